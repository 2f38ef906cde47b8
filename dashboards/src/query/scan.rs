//! Walking over blocks and open parts: which ones, their columns, and which of their records are wanted.

use std::borrow::Cow;
use std::sync::Arc;

use super::filter::Filter;
use crate::record::{Kind, Value};
use crate::store::{Block, Cell, Column, Part, SealedBlock, Store, StoreError, names};

/// A span of time in unix nanoseconds, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Range {
    pub(crate) fn of_millis(from: u64, to: u64) -> Self {
        let nanos = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        Self { from: nanos(from), to: nanos(to) }
    }

    pub(crate) fn holds(&self, at: i64) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// A block on disk or a part in memory.
#[derive(Debug, Clone)]
pub(crate) enum Unit {
    Sealed(Arc<SealedBlock>),
    Open(Arc<Part>),
}

impl Unit {
    pub(crate) fn tmin(&self) -> i64 {
        match self {
            Self::Sealed(block) => block.tmin,
            Self::Open(part) => part.tmin,
        }
    }

    pub(crate) fn tmax(&self) -> i64 {
        match self {
            Self::Sealed(block) => block.tmax,
            Self::Open(part) => part.tmax,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Sealed(block) => block.rows,
            Self::Open(part) => part.block.rows,
        }
    }

    /// Whether it may hold a record that the filter takes.
    pub(crate) fn may_match(&self, filter: &Filter) -> bool {
        match self {
            Self::Sealed(block) => filter.may_match(&block.zone, &block.bloom),
            Self::Open(_) => true,
        }
    }
}

/// Everything of a sort that has records in the range, newest first.
pub(crate) fn units(store: &Store, kind: Kind, range: Range) -> Vec<Unit> {
    let view = store.view();
    let sealed = view.sealed.iter().filter(|block| block.kind == kind).cloned().map(Unit::Sealed);
    let open = view.open.iter().filter(|part| part.kind == kind).cloned().map(Unit::Open);
    let mut units: Vec<Unit> =
        sealed.chain(open).filter(|unit| unit.tmin() < range.to && unit.tmax() >= range.from).collect();
    units.sort_by_key(|unit| std::cmp::Reverse(unit.tmax()));
    units
}

/// Columns of a unit.
#[derive(Debug)]
pub(crate) enum Loaded {
    Sealed(Block),
    Open(Arc<Part>),
}

impl Loaded {
    fn block(&self) -> &Block {
        match self {
            Self::Sealed(block) => block,
            Self::Open(part) => &part.block,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.block().rows
    }

    pub(crate) fn times(&self) -> &[i64] {
        self.block().ints(names::TIME)
    }

    pub(crate) fn seqs(&self) -> &[i64] {
        self.block().ints(names::SEQ)
    }

    /// A column, also one whose attribute had no room for a column of its own.
    pub(crate) fn column(&self, name: &str) -> Option<Cow<'_, Column>> {
        let block = self.block();
        if let Some(column) = block.columns.get(name) {
            return Some(Cow::Borrowed(column));
        }
        let rest = block.columns.get(names::ATTRS).filter(|_| !names::is_ours(name))?;
        let mut found: Option<crate::store::ColumnBuilder> = None;
        for row in 0..block.rows {
            let Some(serde_json::Value::Object(map)) = rest.cell(row).map(Cell::json) else { continue };
            if let Some(value) = map.get(name) {
                let value = value_of(value);
                found.get_or_insert_with(|| crate::store::ColumnBuilder::new(&value)).set(row, &value);
            }
        }
        found.map(|column| Cow::Owned(column.finish(block.rows)))
    }

    pub(crate) fn cell(&self, name: &str, row: usize) -> Option<Cell<'_>> {
        self.block().cell(name, row)
    }

    pub(crate) fn text(&self, name: &str, row: usize) -> String {
        self.cell(name, row).map(Cell::text).unwrap_or_default()
    }

    /// Every attribute of a record, those without a column of their own included.
    pub(crate) fn attributes(&self, row: usize) -> serde_json::Map<String, serde_json::Value> {
        let mut attributes = serde_json::Map::new();
        for (name, column) in &self.block().columns {
            if let Some(name) = names::attribute_of(name)
                && let Some(cell) = column.cell(row)
            {
                attributes.insert(name.to_owned(), cell.json());
            }
        }
        if let Some(serde_json::Value::Object(rest)) = self.cell(names::ATTRS, row).map(Cell::json) {
            attributes.extend(rest);
        }
        attributes
    }
}

fn value_of(json: &serde_json::Value) -> Value<'static> {
    match json {
        serde_json::Value::String(text) => Value::Text(Cow::Owned(text.clone())),
        serde_json::Value::Bool(yes) => Value::Bool(*yes),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        other => Value::Json(other.to_string()),
    }
}

/// Reads columns; all of them for an empty list. `None` if retention took the block meanwhile.
pub(crate) async fn load(store: &Store, unit: &Unit, wanted: &[&str]) -> Result<Option<Loaded>, StoreError> {
    match unit {
        Unit::Open(part) => Ok(Some(Loaded::Open(Arc::clone(part)))),
        Unit::Sealed(block) => {
            let mut wanted = wanted.to_vec();
            if !wanted.is_empty() {
                wanted.push(names::ATTRS);
                wanted.sort_unstable();
                wanted.dedup();
            }
            let columns = store.columns(block, &wanted).await?;
            Ok(columns.map(|c| Loaded::Sealed(Block { rows: block.rows, columns: c.into_iter().collect() })))
        }
    }
}

/// Which records lie in the range and are taken by the filter.
pub(crate) fn select(loaded: &Loaded, filter: &Filter, range: Range) -> Vec<bool> {
    let mut selected: Vec<bool> = loaded.times().iter().map(|at| range.holds(*at)).collect();
    selected.resize(loaded.rows(), false);
    filter.narrow(&mut selected, |name| loaded.column(name));
    selected
}
