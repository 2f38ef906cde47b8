//! Destinations that nobody has registered: refused, and remembered by name so that somebody can.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Serialize;

/// Names that are remembered, and have a label of their own in metrics. What comes after them is `other`.
const MAX_NAMES: usize = 256;
/// A name is no longer than this (RFC 1035).
const MAX_NAME: usize = 253;

/// Who was asked for and is not known.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<FxHashMap<Arc<str>, u64>>);

/// A name, and how often it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Stranger {
    destination: Arc<str>,
    refused: u64,
}

impl Strangers {
    /// Counts one request, logs the first for each name, and gives the name to count it under.
    pub(crate) fn note(&self, name: &str, listener: &str) -> Arc<str> {
        let mut names = self.0.lock();
        if let Some((name, count)) = names.get_key_value(name).map(|(name, count)| (Arc::clone(name), *count))
        {
            names.insert(Arc::clone(&name), count + 1);
            return name;
        }
        let fits = names.len() < MAX_NAMES && name.len() <= MAX_NAME;
        let label: Arc<str> = if fits { name.into() } else { "other".into() };
        *names.entry(Arc::clone(&label)).or_default() += 1;
        drop(names);
        if fits {
            tracing::warn!(destination = name, listener, "refused: no route names the destination `{name}`");
        }
        label
    }

    /// All of them, the most wanted first.
    pub(crate) fn list(&self) -> Vec<Stranger> {
        let names = self.0.lock();
        let one = |(destination, refused): (&Arc<str>, &u64)| Stranger {
            destination: Arc::clone(destination),
            refused: *refused,
        };
        let mut list: Vec<_> = names.iter().map(one).collect();
        list.sort_by(|a, b| b.refused.cmp(&a.refused).then_with(|| a.destination.cmp(&b.destination)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_and_bounded() {
        let strangers = Strangers::default();
        for n in 0..1000 {
            strangers.note(&format!("h{n}.test"), "out");
        }
        assert_eq!(&*strangers.note("h7.test", "out"), "h7.test");
        assert_eq!(&*strangers.note("h999.test", "out"), "other");
        let list = strangers.list();
        assert_eq!(list.len(), MAX_NAMES + 1);
        assert_eq!((&*list[0].destination, list[0].refused), ("other", 1000 - 256 + 1));
        assert_eq!((&*list[1].destination, list[1].refused), ("h7.test", 2));
    }
}
