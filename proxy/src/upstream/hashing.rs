//! Consistent hashing: one key always goes to one endpoint, and few keys move when endpoints come and go. Pure.

use crate::route::Hash;

/// Where keys lead.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Points on a ring, sorted, each with the index of an endpoint.
    Ring(Vec<(u64, u32)>),
    /// A table of a prime length, each entry the index of an endpoint.
    Maglev(Vec<u32>),
}

/// Points of one endpoint on the ring: with fewer, shares differ by more than about a tenth.
const POINTS: u32 = 160;
/// Entries of the table, a prime far above any number of endpoints that is sensible.
const ENTRIES: usize = 65_537;

impl Lookup {
    /// A ring for endpoints with these names.
    pub(super) fn ring(names: &[String]) -> Self {
        let mut points: Vec<(u64, u32)> = (0..)
            .zip(names)
            .flat_map(|(index, name)| (0..POINTS).map(move |point| (hash(name, &point.to_string()), index)))
            .collect();
        points.sort_unstable();
        Self::Ring(points)
    }

    /// A Maglev table (Eisenbud and others, 2016) for endpoints with these names.
    pub(super) fn maglev(names: &[String]) -> Self {
        if names.is_empty() {
            return Self::Maglev(Vec::new());
        }
        let size = ENTRIES as u64;
        let permutations: Vec<(u64, u64)> = names
            .iter()
            .map(|name| (hash(name, "offset") % size, hash(name, "skip") % (size - 1) + 1))
            .collect();
        let mut next = vec![0_u64; names.len()];
        let mut table = vec![u32::MAX; ENTRIES];
        let mut filled = 0;
        // Each in turn takes the first free entry of its own permutation.
        'filling: loop {
            for (index, (offset, skip)) in (0_u32..).zip(&permutations) {
                let turn = &mut next[index as usize];
                let entry = loop {
                    let entry = usize::try_from((offset + *turn * skip) % size).unwrap_or_default();
                    *turn += 1;
                    if table[entry] == u32::MAX {
                        break entry;
                    }
                };
                table[entry] = index;
                filled += 1;
                if filled == ENTRIES {
                    break 'filling;
                }
            }
        }
        Self::Maglev(table)
    }

    /// The endpoint of a key.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        match self {
            Self::Ring(points) => {
                let at = points.partition_point(|(point, _)| *point < key);
                points.get(at).or(points.first()).map(|(_, index)| *index as usize)
            }
            Self::Maglev(table) => {
                let entry = key.checked_rem(table.len() as u64)?;
                table.get(usize::try_from(entry).ok()?).map(|index| *index as usize)
            }
        }
    }
}

fn hash(name: &str, salt: &str) -> u64 {
    let mut hash = Hash::new(salt);
    hash.add(name.as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("127.0.0.1:{}", 9000 + n)).collect()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..20_000).map(|n: u32| hash(&n.to_string(), "key"))
    }

    #[test]
    fn shares_are_even_and_few_keys_move() {
        for (build, spread, moved) in
            [(Lookup::ring as fn(&[String]) -> Lookup, 0.35, 0.15), (Lookup::maglev, 0.05, 0.2)]
        {
            let ten = build(&names(10));
            let mut counts = [0_usize; 10];
            for key in keys() {
                counts[ten.find(key).unwrap()] += 1;
            }
            for count in counts {
                let share = count as f64 / 2000.0;
                assert!((1.0 - spread..1.0 + spread).contains(&share), "{counts:?}");
            }
            // One goes: the keys of the others mostly stay.
            let nine = build(&names(9));
            let others = keys().filter(|key| ten.find(*key) != Some(9));
            let (all, gone) = others.fold((0_usize, 0_usize), |(all, gone), key| {
                (all + 1, gone + usize::from(nine.find(key) != ten.find(key)))
            });
            assert!((gone as f64) < moved * all as f64, "{gone} of {all} moved");
        }
    }

    #[test]
    fn nobody_is_nowhere() {
        assert_eq!(Lookup::ring(&[]).find(7), None);
        assert_eq!(Lookup::maglev(&[]).find(7), None);
        assert_eq!(Lookup::maglev(&names(1)).find(7), Some(0));
    }
}
