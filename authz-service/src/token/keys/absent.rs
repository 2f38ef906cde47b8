//! Key ids of which an issuer has said that it has no such key.
//!
//! A pure table that is told the time. While an id stands in it, a token that names it is refused without asking
//! again, so that one broken client does not make us ask its issuer for ever.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// How long an issuer's "no" is believed.
pub(super) const BELIEVED: Duration = Duration::from_secs(300);
/// More ids than this are a flood of invented ones; then the table starts anew, and the least time between two
/// fetches is what protects the issuer.
const MAX_REMEMBERED: usize = 4096;

/// The table. Ids are kept as hashes with a secret seed: they come from outside and may be long.
#[derive(Debug, Default)]
pub(super) struct AbsentKeys {
    until: FxHashMap<u64, Instant>,
    hasher: RandomState,
}

impl AbsentKeys {
    /// Whether the issuer is known not to have this key.
    pub(super) fn contains(&self, issuer: &str, kid: &str, now: Instant) -> bool {
        self.until.get(&self.hasher.hash_one((issuer, kid))).is_some_and(|until| now < *until)
    }

    /// The issuer has just said that it has no such key.
    pub(super) fn insert(&mut self, issuer: &str, kid: &str, now: Instant) {
        if self.until.len() >= MAX_REMEMBERED {
            self.until.clear();
        }
        self.until.insert(self.hasher.hash_one((issuer, kid)), now + BELIEVED);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_its_issuer_and_for_a_time() {
        let (mut absent, now) = (AbsentKeys::default(), Instant::now());
        absent.insert("a", "k", now);
        assert!(absent.contains("a", "k", now));
        assert!(!absent.contains("b", "k", now) && !absent.contains("a", "l", now));
        assert!(!absent.contains("a", "k", now + BELIEVED));
    }

    #[test]
    fn a_flood_does_not_fill_the_memory() {
        let (mut absent, now) = (AbsentKeys::default(), Instant::now());
        for kid in 0..3 * MAX_REMEMBERED {
            absent.insert("a", &kid.to_string(), now);
        }
        assert!(absent.len() <= MAX_REMEMBERED);
    }
}
