//! The claims of a token as its issuer wrote them.
//!
//! A policy that asks for none of them beyond the usual, and most do, never takes them apart.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::json::{self, Members};

/// What a value of a claim takes in memory beside its text, once claims are taken apart.
const VALUE_BYTES: usize = 192;

/// Claims, taken apart when they are first asked for.
#[derive(Clone, Default)]
pub struct ClaimSet {
    /// Good JSON: it was read before.
    text: Box<[u8]>,
    members: OnceLock<Map<String, Value>>,
    weight: usize,
}

impl ClaimSet {
    /// Of `text`, which was read as `members`.
    pub(super) fn of(text: &[u8], members: &Members<'_>) -> Self {
        // As it was written, taken apart, and what was read out of it.
        let weight = 3 * text.len() + VALUE_BYTES * members.values();
        Self { text: text.into(), members: OnceLock::new(), weight }
    }

    /// All of them.
    pub fn members(&self) -> &Map<String, Value> {
        self.members.get_or_init(|| json::parse_object(&self.text).unwrap_or_default())
    }

    /// Bytes that they take, by a count that is rather too high: as if they were taken apart.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

impl From<Map<String, Value>> for ClaimSet {
    fn from(members: Map<String, Value>) -> Self {
        Self { members: members.into(), ..Self::default() }
    }
}

impl FromIterator<(String, Value)> for ClaimSet {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        Map::from_iter(members).into()
    }
}

impl PartialEq for ClaimSet {
    fn eq(&self, other: &Self) -> bool {
        self.members() == other.members()
    }
}

impl std::fmt::Debug for ClaimSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.members().fmt(f)
    }
}
