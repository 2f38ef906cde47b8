//! A hash map that is copied by its parts: a copy shares all of them, and a change copies the one it falls into.
//!
//! ```text
//! parts ─┬─ Arc ─ entries whose hash starts with 0     A copy of a million entries is a copy of 1,024 pointers;
//!        ├─ Arc ─ entries whose hash starts with 1     the first change after it copies a thousand entries.
//!        └─ ...                                        While nobody else has a part, it is changed in place.
//! ```

use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use hashbrown::{Equivalent, HashTable};
use rustc_hash::FxBuildHasher;

/// How many parts there are: at a million entries a change copies about a thousand of them, at ten million ten thousand.
const PARTS: usize = 1024;
/// These bits of the hash choose the part. The table within takes its place from the lowest ones and its tag from the
/// highest, so the three do not depend on each other.
const PART_SHIFT: u32 = 20;

type Part<K, V> = HashTable<(K, V)>;

/// The map.
#[derive(Debug, Clone)]
pub struct Shards<K, V> {
    /// Empty until something is put in.
    parts: Box<[Arc<Part<K, V>>]>,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { parts: Box::default(), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value under `key`.
    #[inline]
    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The key under which something is filed: to share its text.
    pub fn key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&K> {
        self.entry(key).map(|(key, _)| key)
    }

    #[inline]
    fn entry<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&(K, V)> {
        let hash = hash_of(key);
        self.parts.get(part_of(hash))?.find(hash, |(known, _)| key.equivalent(known))
    }

    /// The value under `key`, to be changed; its part is copied if others share it.
    pub fn get_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let hash = hash_of(key);
        let part = self.parts.get_mut(part_of(hash))?;
        // A part without the key is not copied for nothing.
        part.find(hash, |(known, _)| key.equivalent(known))?;
        let found = Arc::make_mut(part).find_mut(hash, |(known, _)| key.equivalent(known));
        found.map(|(_, value)| value)
    }

    /// The value under `key`, put there first if there was none.
    pub fn get_or_default(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        let hash = hash_of(key);
        let len = &mut self.len;
        let part = Arc::make_mut(&mut parts(&mut self.parts)[part_of(hash)]);
        let entry = part.entry(hash, |(known, _)| known == key, |(known, _)| hash_of(known));
        let found = entry.or_insert_with(|| {
            *len += 1;
            (key.clone(), V::default())
        });
        &mut found.into_mut().1
    }

    /// Files a value; answers the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(known) = self.get_mut(&key) {
            return Some(std::mem::replace(known, value));
        }
        let hash = hash_of(&key);
        let part = Arc::make_mut(&mut parts(&mut self.parts)[part_of(hash)]);
        part.insert_unique(hash, (key, value), |(known, _)| hash_of(known));
        self.len += 1;
        None
    }

    /// Takes a value out.
    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let hash = hash_of(key);
        let part = self.parts.get_mut(part_of(hash))?;
        part.find(hash, |(known, _)| key.equivalent(known))?;
        let found = Arc::make_mut(part).find_entry(hash, |(known, _)| key.equivalent(known)).ok()?;
        self.len -= 1;
        Some(found.remove().0.1)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(key, value)| (key, value))
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

fn parts<K, V>(parts: &mut Box<[Arc<Part<K, V>>]>) -> &mut [Arc<Part<K, V>>] {
    if parts.is_empty() {
        // All empty parts are one.
        *parts = std::iter::repeat_n(Arc::new(Part::new()), PARTS).collect();
    }
    parts
}

#[inline]
fn hash_of<Q: Hash + ?Sized>(key: &Q) -> u64 {
    FxBuildHasher.hash_one(key)
}

#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> PART_SHIFT) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had_and_shares_what_did_not_change() {
        let mut map = Shards::<Arc<str>, u32>::default();
        for n in 0..10_000 {
            map.insert(format!("k{n}").into(), n);
        }
        let before = map.clone();
        assert_eq!(
            (map.insert("k1".into(), 0), map.remove("k2"), map.remove("gone")),
            (Some(1), Some(2), None)
        );
        *map.get_or_default(&"new".into()) = 7;
        assert_eq!(
            (before.len(), before.get("k1"), before.get("k2"), before.get("new")),
            (10_000, Some(&1), Some(&2), None)
        );
        assert_eq!(
            (map.len(), map.get("k1"), map.get("k2"), map.get("new")),
            (10_000, Some(&0), None, Some(&7))
        );
        let copied =
            before.parts.iter().zip(&map.parts).filter(|(one, other)| !Arc::ptr_eq(one, other)).count();
        assert!((1..=3).contains(&copied), "{copied} parts were copied for three changes");
        let fullest = map.parts.iter().map(|part| part.len()).max().unwrap();
        assert!(fullest < 40, "one part holds {fullest} of ten thousand");
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u8..4, 0_u16..50), 0..200)) {
            let (mut map, mut model) = (Shards::<u16, usize>::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (at, (step, key)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => prop_assert_eq!(map.insert(key, at), model.insert(key, at)),
                    2 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    _ => copies.push((map.clone(), model.clone())),
                }
            }
            copies.push((map, model));
            for (map, model) in copies {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.iter().map(|(k, v)| (*k, *v)).collect::<BTreeMap<_, _>>(), model);
            }
        }
    }
}
