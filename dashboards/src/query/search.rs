//! Newest first, a page at a time, and counting.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;

use super::filter::Filter;
use super::scan::{Loaded, Range, Unit, load, select, units};
use crate::record::Kind;
use crate::store::{Store, StoreError, names};

/// The last record of a page. Records that arrive later do not move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) time_ns: i64,
    pub(crate) seq: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.time_ns, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (time, seq) = text.split_once('.').ok_or(())?;
        Ok(Self { time_ns: time.parse().map_err(|_| ())?, seq: seq.parse().map_err(|_| ())? })
    }
}

/// Which records, and which page of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) kind: Kind,
    pub(crate) range: Range,
    pub(crate) filter: &'a Filter,
    /// Only records before this one; the newest when absent.
    pub(crate) before: Option<Cursor>,
    pub(crate) limit: usize,
}

/// A record of a page.
pub(crate) struct Hit<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) row: usize,
    pub(crate) at: Cursor,
}

/// A page.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) next: Option<Cursor>,
    pub(crate) matched: u64,
    pub(crate) total: u64,
    pub(crate) scanned: u64,
}

/// The newest records that are asked for, each turned into a `T` from the columns in `wanted` (all for an empty list).
///
/// Blocks are walked newest first. Once the page is full of records newer than all that is left, only counting goes on,
/// which reads nothing but the filter's columns, and nothing at all where every record of a block counts.
pub(crate) async fn search<T>(
    store: &Store,
    ask: &Ask<'_>,
    wanted: &[&str],
    mut make: impl FnMut(&Hit<'_>) -> T,
) -> Result<Found<T>, StoreError> {
    let Ask { kind, range, filter, before, limit } = *ask;
    let units = units(store, kind, range);
    let mut page: BinaryHeap<Reverse<(Cursor, usize, usize)>> = BinaryHeap::new();
    let mut more = false;
    let (mut matched, mut total, mut scanned) = (0u64, 0u64, 0u64);
    let columns = with_own(filter.columns());
    for (number, unit) in units.iter().enumerate() {
        let inside = range.holds(unit.tmin()) && range.holds(unit.tmax());
        let full =
            page.len() >= limit && page.peek().is_some_and(|Reverse((at, ..))| at.time_ns > unit.tmax());
        let pruned = !unit.may_match(filter);
        if inside && (pruned || (filter.is_empty() && full)) {
            total += unit.rows() as u64;
            matched += if pruned { 0 } else { unit.rows() as u64 };
            more |= !pruned;
            continue;
        }
        let Some(loaded) = load(store, unit, &columns).await? else { continue };
        scanned += loaded.rows() as u64;
        let selected = select(&loaded, filter, range);
        let (times, seqs) = (loaded.times(), loaded.seqs());
        total += times.iter().filter(|at| range.holds(**at)).count() as u64;
        for row in (0..selected.len()).filter(|row| selected[*row]) {
            matched += 1;
            let at = Cursor { time_ns: times[row], seq: seqs.get(row).copied().unwrap_or_default() };
            if before.is_some_and(|before| at >= before) {
                continue;
            }
            page.push(Reverse((at, number, row)));
            if page.len() > limit {
                page.pop();
                more = true;
            }
        }
        tokio::task::yield_now().await;
    }
    let mut page: Vec<(Cursor, usize, usize)> = page.into_iter().map(|Reverse(hit)| hit).collect();
    page.sort_unstable_by(|a, b| b.cmp(a));
    let next = if more { page.last().map(|(at, ..)| *at) } else { None };
    let rows = make_rows(store, &units, &page, wanted, &mut make).await?;
    Ok(Found { rows, next, matched, total, scanned })
}

async fn make_rows<T>(
    store: &Store,
    units: &[Unit],
    page: &[(Cursor, usize, usize)],
    wanted: &[&str],
    make: &mut impl FnMut(&Hit<'_>) -> T,
) -> Result<Vec<T>, StoreError> {
    let wanted = if wanted.is_empty() { Vec::new() } else { with_own(wanted.to_vec()) };
    let mut numbers: Vec<usize> = page.iter().map(|(_, number, _)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut rows: Vec<Option<T>> = page.iter().map(|_| None).collect();
    for number in numbers {
        let Some(loaded) = load(store, &units[number], &wanted).await? else { continue };
        for (slot, (at, _, row)) in page.iter().enumerate().filter(|(_, (_, of, _))| *of == number) {
            rows[slot] = Some(make(&Hit { loaded: &loaded, row: *row, at: *at }));
        }
    }
    Ok(rows.into_iter().flatten().collect())
}

fn with_own(mut columns: Vec<&str>) -> Vec<&str> {
    columns.extend([names::TIME, names::SEQ]);
    columns
}

/// How many records of a range a filter takes.
pub(crate) async fn count(
    store: &Store,
    kind: Kind,
    range: Range,
    filter: &Filter,
) -> Result<u64, StoreError> {
    let columns = with_own(filter.columns());
    let mut matched = 0;
    for unit in units(store, kind, range) {
        if !unit.may_match(filter) {
            continue;
        }
        if let Some(loaded) = load(store, &unit, &columns).await? {
            matched += select(&loaded, filter, range).into_iter().filter(|yes| *yes).count() as u64;
        }
        tokio::task::yield_now().await;
    }
    Ok(matched)
}
