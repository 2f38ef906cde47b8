//! What a query can know about a block without reading its columns: the range of its numbers, the words of its
//! small dictionaries (zone map), and which ids it may hold (bloom filter).

use std::collections::BTreeMap;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};

use super::column::{Block, Column, MISSING};
use super::names;

/// A dictionary with more words is not worth listing.
const MAX_ZONE_WORDS: usize = 24;
/// Words longer than this in sum are not listed either.
const MAX_ZONE_BYTES: usize = 512;
/// Columns whose words are listed: those a person filters by. Listing all would cost more memory than it saves reads.
const LISTED: &[&str] = &[
    names::OUTCOME,
    names::DEST,
    names::NAME,
    "tollgate.reason",
    "tollgate.reporter",
    "tollgate.source.workload",
    "http.request.method",
    "http.route",
    "tollgate.token.state",
    "tollgate.ratelimit.rule",
    "service.name",
];
const RANGED: &[&str] = &["http.response.status_code", "tollgate.duration_us", "tollgate.authz.epoch"];
/// Columns whose values the bloom filter holds.
const FILTERED: &[&str] = &[names::TRACE, "tollgate.request.id"];
const BITS_PER_ID: usize = 10;
const HASHES: u64 = 6;

/// What is known about some columns of a block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Zone {
    #[serde(default)]
    pub(crate) ints: BTreeMap<String, (i64, i64)>,
    #[serde(default)]
    pub(crate) words: BTreeMap<String, Vec<String>>,
}

impl Zone {
    pub(crate) fn of(block: &Block) -> Self {
        let mut zone = Self::default();
        for name in RANGED {
            if let Some(Column::Ints(values)) = block.columns.get(*name) {
                let mut values = values.iter().copied().filter(|v| *v != MISSING);
                if let Some(first) = values.next() {
                    let range = values.fold((first, first), |(low, high), v| (low.min(v), high.max(v)));
                    zone.ints.insert((*name).to_owned(), range);
                }
            }
        }
        for name in LISTED {
            if let Some(Column::Words { words, .. }) = block.columns.get(*name)
                && words.len() <= MAX_ZONE_WORDS
                && words.bytes.len() <= MAX_ZONE_BYTES
            {
                zone.words.insert((*name).to_owned(), words.iter().map(|w| w.text()).collect());
            }
        }
        zone
    }
}

/// Which ids a block may hold: "no" is certain, "yes" is wrong about once in a hundred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bloom(pub(crate) Vec<u8>);

impl Bloom {
    pub(crate) fn of(block: &Block) -> Self {
        let mut ids: Vec<u64> = Vec::new();
        for name in FILTERED {
            if let Some(Column::Words { words, .. }) = block.columns.get(*name) {
                ids.extend(words.iter().map(|word| hash(&word.text())));
            }
        }
        if ids.is_empty() {
            return Self::default();
        }
        let mut bits = vec![0u8; (ids.len() * BITS_PER_ID).div_ceil(8).max(8)];
        for id in ids {
            for bit in positions(id, bits.len()) {
                bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        Self(bits)
    }

    pub(crate) fn may_hold(&self, id: &str) -> bool {
        !self.0.is_empty()
            && positions(hash(id), self.0.len()).all(|bit| self.0[bit / 8] >> (bit % 8) & 1 == 1)
    }

    /// Whether the filter says anything about a column.
    pub(crate) fn covers(column: &str) -> bool {
        FILTERED.contains(&column)
    }
}

/// Ids are random and the filter is on disk, so the hash has a fixed seed.
fn hash(id: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(id.as_bytes());
    let mixed = hasher.finish();
    (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn positions(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (hash & 0xffff_ffff, (hash >> 32) | 1);
    let bits = bytes as u64 * 8;
    (0..HASHES).map(move |k| usize::try_from(first.wrapping_add(k * step) % bits).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Row, Value};
    use crate::store::build::BlockBuilder;

    #[test]
    fn the_filter_finds_all_it_holds_and_little_else() {
        let mut builder = BlockBuilder::default();
        for id in 0..1000u128 {
            let id = uuid::Uuid::from_u128(id * 7919).to_string();
            builder.push(&Row::of(1, vec![("tollgate.request.id", Value::Text(id.into()))]));
        }
        let bloom = Bloom::of(&builder.finish());
        for id in 0..1000u128 {
            assert!(bloom.may_hold(&uuid::Uuid::from_u128(id * 7919).to_string()));
        }
        let wrong = (0..10_000).filter(|n| bloom.may_hold(&format!("other-{n}"))).count();
        assert!(wrong < 300, "{wrong} false of 10,000");
    }
}
