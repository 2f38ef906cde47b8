//! The name of a counter: domain, window length and the descriptor's entries.
//!
//! ```text
//! tg:{insurance}:60:7:subject:5:alice       {domain}, seconds, then :length:text for each key and value
//! ```
//!
//! Before the seconds stands `s` for a sliding window, `b` for a bucket, and `c` before that for a candidate.
//!
//! Lengths stand before the texts, so no two descriptors share a name (the reference joins with `_`
//! and lets `("a_b","c")` and `("a","b_c")` share a counter). The braces keep the counters of one
//! domain on one node of a Redis Cluster, since one call counts them together. The window's start
//! is not part of the name: a counter ends with its window.

use sha2::{Digest as _, Sha256};

use crate::limits::{Algorithm, Limit, Mode};

/// A longer name is replaced by its hash, so that a caller cannot make us remember long ones.
pub const MAX_KEY_BYTES: usize = 512;

const PREFIX: &[u8] = b"tg:{";

/// The part of a name that decides on the node of a Redis Cluster.
pub(super) fn tag(name: &[u8]) -> &[u8] {
    name.iter().position(|byte| *byte == b'}').map_or(name, |end| &name[..end])
}

/// Appends the counter's name. `shared` holds, by depth, the wildcard whose values count as one.
pub fn write<'e>(
    buffer: &mut Vec<u8>,
    domain: &str,
    limit: &Limit,
    mode: Mode,
    entries: impl IntoIterator<Item = (&'e str, &'e str)>,
    shared: &[Option<Box<str>>],
) {
    let start = buffer.len();
    buffer.extend_from_slice(PREFIX);
    for byte in domain.bytes() {
        match byte {
            // These would end or break the hash tag, or make an escape of ours.
            b'{' => buffer.extend_from_slice(b"%7B"),
            b'}' => buffer.extend_from_slice(b"%7D"),
            b'%' => buffer.extend_from_slice(b"%25"),
            byte => buffer.push(byte),
        }
    }
    buffer.extend_from_slice(b"}:");
    if mode == Mode::Candidate {
        buffer.push(b'c');
    }
    match limit.algorithm {
        Algorithm::FixedWindow => {}
        Algorithm::SlidingWindow => buffer.push(b's'),
        Algorithm::TokenBucket { .. } => buffer.push(b'b'),
    }
    number(buffer, limit.window.seconds());
    let head = buffer.len();
    for (depth, (key, value)) in entries.into_iter().enumerate() {
        text(buffer, b':', key);
        match shared.get(depth) {
            // The tilde tells the wildcard from a value that happens to read like it.
            Some(Some(wildcard)) => text(buffer, b'~', wildcard),
            _ => text(buffer, b':', value),
        }
    }
    if buffer.len() - start > MAX_KEY_BYTES {
        let hash = Sha256::digest(&buffer[head..]);
        buffer.truncate(head);
        buffer.push(b'#');
        hash.iter().for_each(|byte| {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            buffer.push(HEX[usize::from(byte >> 4)]);
            buffer.push(HEX[usize::from(byte & 15)]);
        });
    }
}

fn text(buffer: &mut Vec<u8>, mark: u8, text: &str) {
    buffer.push(mark);
    number(buffer, text.len() as u64);
    buffer.push(b':');
    buffer.extend_from_slice(text.as_bytes());
}

fn number(buffer: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A remainder of ten is one digit.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buffer.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::window::{Unit, Window};

    fn key(domain: &str, seconds: u64, entries: &[(&str, &str)]) -> Vec<u8> {
        let mut buffer = Vec::new();
        write(&mut buffer, domain, &limit(seconds), Mode::Enforce, entries.iter().copied(), &[]);
        buffer
    }

    fn limit(seconds: u64) -> Limit {
        let seconds = std::num::NonZeroU32::new(u32::try_from(seconds).unwrap()).unwrap();
        Limit::fixed(1, Window::of_several(seconds, Unit::Second).unwrap())
    }

    #[test]
    fn each_way_of_counting_has_a_counter_of_its_own() {
        let mut names = Vec::new();
        for algorithm in
            [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket { burst: 1 }]
        {
            for mode in [Mode::Enforce, Mode::Candidate] {
                let mut buffer = Vec::new();
                write(&mut buffer, "d", &Limit { algorithm, ..limit(60) }, mode, [("k", "v")], &[]);
                assert!(!names.contains(&buffer));
                names.push(buffer);
            }
        }
    }

    #[test]
    fn readable_and_tagged() {
        let name = key("insurance", 60, &[("subject", "alice")]);
        assert_eq!(String::from_utf8(name).unwrap(), "tg:{insurance}:60:7:subject:5:alice");
        assert!(key("a{b}%", 1, &[]).starts_with(b"tg:{a%7Bb%7D%25}:1"));
    }

    #[test]
    fn a_shared_wildcard_replaces_the_value() {
        let write_shared = |value: &str, shared: &[Option<Box<str>>]| {
            let mut buffer = Vec::new();
            write(&mut buffer, "d", &limit(1), Mode::Enforce, [("k", value)], shared);
            buffer
        };
        let shared = [Some("p*".into())];
        assert_eq!(write_shared("p1", &shared), write_shared("p2", &shared));
        assert_ne!(write_shared("p*", &shared), write_shared("p*", &[]));
    }

    #[test]
    fn long_names_are_bounded_and_still_differ() {
        let long = "x".repeat(10_000);
        let (one, other) = (key("d", 1, &[("k", &long)]), key("d", 1, &[("k", &long), ("l", "")]));
        assert!(one.len() <= MAX_KEY_BYTES && other.len() <= MAX_KEY_BYTES);
        assert_ne!(one, other);
    }

    proptest! {
        #[test]
        fn no_two_descriptors_share_a_name(
            all in proptest::collection::vec(
                ("[ab_:{}%]{0,3}", 1u64..3, proptest::collection::vec(("[ab_:1]{0,3}", "[ab_:1]{0,3}"), 0..3)),
                2..40,
            )
        ) {
            let mut seen = HashMap::new();
            for asked in all {
                let entries: Vec<_> = asked.2.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let name = key(&asked.0, asked.1, &entries);
                if let Some(other) = seen.insert(name, asked.clone()) {
                    prop_assert_eq!(other, asked);
                }
            }
        }
    }
}
