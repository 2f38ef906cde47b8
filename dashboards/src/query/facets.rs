//! Which values fields take under a filter, and how often.

use std::collections::HashMap;

use super::filter::Filter;
use super::scan::{Range, load, select, units};
use crate::record::Kind;
use crate::store::{Cell, Column, MISSING, Store, StoreError, names};

/// Different values that are told apart; records with more are counted as "other".
const MAX_VALUES: usize = 10_000;

/// Counts of one field.
#[derive(Debug, Clone, Default)]
pub(crate) struct FacetCounts {
    /// By value: how often, and with which outcomes (a bit each).
    pub(crate) values: HashMap<String, (u64, u8)>,
    pub(crate) other: u64,
}

impl FacetCounts {
    fn add(&mut self, value: String, count: u64, outcomes: u8) {
        if self.values.len() >= MAX_VALUES && !self.values.contains_key(&value) {
            self.other += count;
            return;
        }
        let entry = self.values.entry(value).or_default();
        entry.0 += count;
        entry.1 |= outcomes;
    }

    /// The most frequent values, and how many records have another.
    pub(crate) fn top(mut self, n: usize) -> (Vec<(String, u64, u8)>, u64) {
        let mut values: Vec<_> =
            self.values.drain().map(|(value, (count, outcomes))| (value, count, outcomes)).collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rest: u64 = values.iter().skip(n).map(|(_, count, _)| count).sum();
        values.truncate(n);
        (values, rest + self.other)
    }
}

/// Counts the values of `columns`, in their order.
pub(crate) async fn facets(
    store: &Store,
    kind: Kind,
    range: Range,
    filter: &Filter,
    columns: &[String],
) -> Result<Vec<FacetCounts>, StoreError> {
    let mut counts = vec![FacetCounts::default(); columns.len()];
    let mut wanted = filter.columns();
    wanted.extend(columns.iter().map(String::as_str));
    wanted.extend([names::TIME, names::OUTCOME]);
    for unit in units(store, kind, range) {
        if !unit.may_match(filter) {
            continue;
        }
        let Some(loaded) = load(store, &unit, &wanted).await? else { continue };
        let selected = select(&loaded, filter, range);
        let outcomes: Vec<u8> = (0..loaded.rows())
            .map(|row| match loaded.cell(names::OUTCOME, row) {
                Some(Cell::Word(word)) => outcome_bit(word.as_str().unwrap_or_default()),
                _ => 0,
            })
            .collect();
        for (name, counts) in columns.iter().zip(&mut counts) {
            if let Some(column) = loaded.column(name) {
                count_column(&column, &selected, &outcomes, counts);
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(counts)
}

/// One bit for each outcome, so that a set of them fits a byte.
pub(crate) fn outcome_bit(outcome: &str) -> u8 {
    match outcome {
        "passed" => 1,
        "denied" => 2,
        "limited" => 4,
        "failed" => 8,
        _ => 0,
    }
}

fn count_column(column: &Column, selected: &[bool], outcomes: &[u8], counts: &mut FacetCounts) {
    match column {
        Column::Ints(values) => {
            let mut by_value: HashMap<i64, (u64, u8)> = HashMap::new();
            for (row, value) in
                values.iter().enumerate().filter(|(row, value)| selected[*row] && **value != MISSING)
            {
                let entry = by_value.entry(*value).or_default();
                entry.0 += 1;
                entry.1 |= outcomes[row];
            }
            by_value
                .into_iter()
                .for_each(|(value, (count, bits))| counts.add(value.to_string(), count, bits));
        }
        Column::Words { words, codes } => {
            let mut by_code = vec![(0u64, 0u8); words.len() + 1];
            for (row, code) in codes.iter().enumerate().filter(|(row, _)| selected[*row]) {
                by_code[*code as usize].0 += 1;
                by_code[*code as usize].1 |= outcomes[row];
            }
            for (number, word) in words.iter().enumerate() {
                let (count, bits) = by_code[number + 1];
                if count > 0 {
                    counts.add(word.text(), count, bits);
                }
            }
        }
    }
}
