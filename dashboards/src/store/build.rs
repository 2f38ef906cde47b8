//! Building blocks: from records as they come in, and from blocks that are joined.
//!
//! A block has at most [`MAX_COLUMNS`] columns. Attributes beyond that keep their names and values, as a JSON object
//! in the column [`names::ATTRS`] of their record: whoever invents attribute names at will makes
//! queries on them slower, and nothing else.

use std::collections::BTreeMap;

use super::column::{Block, Cell, Column, ColumnBuilder};
use super::names;
use crate::record::{Row, Value, hex};

/// Columns of attributes in a block; columns that we add ourselves come on top.
pub(crate) const MAX_COLUMNS: usize = 256;
/// A longer attribute name never becomes a column.
const MAX_NAME: usize = 200;

/// Takes records one by one.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    rows: usize,
    attribute_columns: usize,
    columns: BTreeMap<String, ColumnBuilder>,
}

impl BlockBuilder {
    pub(crate) fn push(&mut self, row: &Row<'_>) {
        let at = self.rows;
        let mut rest = serde_json::Map::new();
        for (name, value) in &row.fields {
            if let Some(column) = self.columns.get_mut(name.as_ref()) {
                column.set(at, value);
            } else if self.may_add(name) {
                let mut column = ColumnBuilder::new(value);
                column.set(at, value);
                self.columns.insert(name.clone().into_owned(), column);
            } else {
                rest.insert(name.clone().into_owned(), json_of(value));
            }
        }
        if !rest.is_empty() {
            let text = Value::Json(serde_json::Value::Object(rest).to_string());
            self.columns
                .entry(names::ATTRS.to_owned())
                .or_insert_with(|| ColumnBuilder::new(&text))
                .set(at, &text);
        }
        self.rows += 1;
    }

    fn may_add(&mut self, name: &str) -> bool {
        if names::is_ours(name) {
            return true;
        }
        let free = self.attribute_columns < MAX_COLUMNS && name.len() <= MAX_NAME;
        self.attribute_columns += usize::from(free);
        free
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn finish(self) -> Block {
        let rows = self.rows;
        Block {
            rows,
            columns: self.columns.into_iter().map(|(name, column)| (name, column.finish(rows))).collect(),
        }
    }
}

/// A value as JSON.
pub(crate) fn json_of(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Text(text) => text.as_ref().into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Value::Hex(bytes) => hex(bytes).into(),
    }
}

/// Joins blocks into one, in the order of time, then of arrival.
pub(crate) fn join(blocks: &[&Block]) -> Block {
    let mut order: Vec<(i64, i64, u32, u32)> = Vec::with_capacity(blocks.iter().map(|b| b.rows).sum());
    for (number, block) in blocks.iter().enumerate() {
        let (times, seqs) = (block.ints(names::TIME), block.ints(names::SEQ));
        for row in 0..block.rows {
            let time = times.get(row).copied().unwrap_or_default();
            let seq = seqs.get(row).copied().unwrap_or_default();
            let narrow = |n: usize| u32::try_from(n).expect("a block has far fewer rows than 2^32");
            order.push((time, seq, narrow(number), narrow(row)));
        }
    }
    order.sort_unstable();

    let (kept, spilled) = split_names(blocks);
    let mut columns: BTreeMap<String, Column> =
        kept.into_iter().map(|name| (name.to_owned(), gather(blocks, name, &order))).collect();
    if !spilled.is_empty() {
        columns.insert(names::ATTRS.to_owned(), spill(blocks, &spilled, &order));
    }
    Block { rows: order.len(), columns }
}

/// Which names stay columns (those with the most values) and which go to [`names::ATTRS`].
fn split_names<'a>(blocks: &[&'a Block]) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for block in blocks {
        for (name, column) in &block.columns {
            let values = (0..column.len()).filter(|row| column.cell(*row).is_some()).count();
            *counts.entry(name).or_default() += values;
        }
    }
    let (mut kept, mut others): (Vec<_>, Vec<_>) =
        counts.into_iter().partition(|(name, _)| names::is_ours(name));
    if others.len() > MAX_COLUMNS {
        others.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let spilled = others.split_off(MAX_COLUMNS);
        kept.extend(others);
        return (kept.into_iter().map(|k| k.0).collect(), spilled.into_iter().map(|s| s.0).collect());
    }
    kept.extend(others);
    (kept.into_iter().map(|k| k.0).collect(), Vec::new())
}

fn gather(blocks: &[&Block], name: &str, order: &[(i64, i64, u32, u32)]) -> Column {
    let columns: Vec<Option<&Column>> = blocks.iter().map(|block| block.columns.get(name)).collect();
    let ints = columns.iter().flatten().all(|column| matches!(column, Column::Ints(_)));
    if ints {
        return Column::Ints(
            order
                .iter()
                .map(|(_, _, block, row)| match columns[*block as usize] {
                    Some(Column::Ints(values)) => values[*row as usize],
                    _ => super::column::MISSING,
                })
                .collect(),
        );
    }
    // Each word of each block is looked up once; rows are then only renumbered.
    let mut dictionary = super::words::Dictionary::default();
    let mut word = Vec::new();
    let renumbered: Vec<Vec<u32>> = columns
        .iter()
        .map(|column| match column {
            Some(Column::Words { words, .. }) => words.iter().map(|w| dictionary.number(w.0) + 1).collect(),
            Some(Column::Ints(values)) => values
                .iter()
                .map(|value| {
                    if *value == super::column::MISSING {
                        return 0;
                    }
                    super::words::write_word(&mut word, &Value::Int(*value));
                    dictionary.number(&word) + 1
                })
                .collect(),
            None => Vec::new(),
        })
        .collect();
    let codes = order
        .iter()
        .map(|(_, _, block, row)| {
            let (block, row) = (*block as usize, *row as usize);
            match columns[block] {
                Some(Column::Words { codes, .. }) if codes[row] > 0 => {
                    renumbered[block][codes[row] as usize - 1]
                }
                Some(Column::Ints(_)) => renumbered[block][row],
                _ => 0,
            }
        })
        .collect();
    Column::Words { words: dictionary.into_words(), codes }
}

fn spill(blocks: &[&Block], spilled: &[&str], order: &[(i64, i64, u32, u32)]) -> Column {
    let mut builder = ColumnBuilder::new(&Value::Json(String::new()));
    for (at, (_, _, block, row)) in order.iter().enumerate() {
        let (block, row) = (blocks[*block as usize], *row as usize);
        let mut rest = match block.cell(names::ATTRS, row).map(Cell::json) {
            Some(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        for name in spilled {
            if let Some(cell) = block.cell(name, row) {
                rest.insert((*name).to_owned(), cell.json());
            }
        }
        if !rest.is_empty() {
            builder.set(at, &Value::Json(serde_json::Value::Object(rest).to_string()));
        }
    }
    builder.finish(order.len())
}
