//! Questions to the store: filter text to a tree, blocks pruned, columns scanned, answers as plain values.
//!
//! ```text
//! filter text -> tree -> prune by time, zone, bloom -> read needed columns -> selection -> page | counts | sums
//! ```
//! Every query works on one snapshot of the store and holds nothing that ingest needs.

mod facets;
mod fields;
mod filter;
mod fold;
mod lexer;
mod scan;
mod search;
mod tally;

pub(crate) use facets::{FacetCounts, facets};
pub(crate) use fields::{SHORT_KEYS, column_of, short_key_of};
pub(crate) use filter::{Filter, FilterError};
#[cfg(test)]
pub(crate) use fold::scan as scan_sums;
pub(crate) use fold::{fold, steps_over};
pub(crate) use scan::{Loaded, Range, load, select, units};
pub(crate) use search::{Ask, Cursor, count, search};
pub(crate) use tally::{Counts, Tally};
