//! Certificates that are not believed any more, though they were signed and have not ended.

use std::collections::HashMap;

use crate::certificate::Leaf;
use crate::spiffe_id::IdPattern;

/// What is revoked, each until a time in Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    serials: HashMap<String, i64>,
    /// Single workloads.
    ids: HashMap<String, i64>,
    /// All workloads below a path.
    patterns: Vec<(IdPattern, i64)>,
}

impl Revocations {
    /// Revokes a certificate by its serial number, as [`Leaf::serial`] writes it.
    pub fn serial(&mut self, serial: &str, until: i64) {
        later(self.serials.entry(serial.to_owned()).or_insert(until), until);
    }

    /// Revokes all certificates of some workloads.
    pub fn workloads(&mut self, pattern: IdPattern, until: i64) {
        match pattern {
            IdPattern::Exact(id) => later(self.ids.entry(id.to_string()).or_insert(until), until),
            below @ IdPattern::Below(_) => self.patterns.push((below, until)),
        }
    }

    /// Whether a certificate is revoked at `now`.
    pub fn include(&self, leaf: &Leaf, now: i64) -> bool {
        let named = [self.serials.get(&leaf.serial), self.ids.get(leaf.id.as_str())];
        let below =
            self.patterns.iter().filter(|(pattern, _)| pattern.matches(&leaf.id)).map(|(_, until)| until);
        named.into_iter().flatten().chain(below).any(|until| now < *until)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.serials.is_empty() && self.ids.is_empty() && self.patterns.is_empty()
    }
}

fn later(known: &mut i64, until: i64) {
    *known = (*known).max(until);
}
