//! The memory store by itself: its bounds, its sweeping, and its counts against a naive model.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, Limit, Mode};
use crate::window::{Hits, Unit, Window};

fn per_minute() -> Limit {
    Limit::fixed(10, Window::of(Unit::Minute))
}

fn add(store: &MemoryStore, key: &str, hits: u64, now: u64) -> u64 {
    let mut batch = Batch::default();
    batch.push(per_minute(), Mode::Enforce, Hits::Add(hits), |buffer| buffer.extend(key.as_bytes()));
    let mut tallies = Vec::new();
    store.count_now(&batch, now * SECOND_US, &mut tallies);
    tallies[0].used
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry>(), 40);
}

#[test]
fn a_storm_of_new_keys_stays_within_the_bound_and_spares_the_busy() {
    const BOUND: usize = 6_431;
    let store = MemoryStore::new(Bounds::keys(BOUND));
    assert_eq!(add(&store, "busy", 50, 0), 50);
    for n in 0..1_000_000 {
        add(&store, &format!("storm-{n}"), 1, 0);
    }
    // A shard may exceed its share by nothing, and all shards together by nothing.
    assert!(store.len() <= BOUND, "{}", store.len());
    assert!(store.evicted() > 990_000);
    assert_eq!(add(&store, "busy", 1, 0), 51);
}

#[test]
fn stale_counters_are_swept_by_later_insertions() {
    let store = MemoryStore::new(Bounds::keys(1_000_000));
    for minute in 0..50 {
        for n in 0..1_000 {
            add(&store, &format!("{minute}-{n}"), 1, minute * 60);
        }
    }
    assert!(store.len() < 10_000, "{} of 50,000 keys are still there", store.len());
    assert_eq!(store.evicted(), 0);
}

#[test]
fn a_look_leaves_nothing_behind() {
    let store = MemoryStore::new(Bounds::keys(10));
    let mut batch = Batch::default();
    batch.push(per_minute(), Mode::Enforce, Hits::Look, |buffer| buffer.push(b'k'));
    batch.push(per_minute(), Mode::Enforce, Hits::GiveBack(3), |buffer| buffer.push(b'k'));
    store.count_now(&batch, 5 * SECOND_US, &mut Vec::new());
    assert!(store.is_empty());
}

#[test]
fn a_clock_that_steps_neither_counts_twice_nor_refuses_for_good() {
    let store = MemoryStore::new(Bounds::keys(10));
    assert_eq!(add(&store, "k", 1, 1_000_000), 1);
    assert_eq!(add(&store, "k", 1, 1_000_000 - 30), 2, "ten seconds back: the same allowance");
    assert_eq!(add(&store, "k", 1, 1_000_000), 3);
    assert_eq!(add(&store, "k", 1, 500_000), 1, "far back: a new start");
}

proptest! {
    /// Against a naive model: a count a key and window, in a map that forgets nothing.
    #[test]
    fn counts_as_a_naive_model_does(
        calls in proptest::collection::vec((0u8..5, 0u8..3, 0u64..4, 0u64..40), 1..200)
    ) {
        let store = MemoryStore::new(Bounds::keys(1_000));
        let mut model: HashMap<(u8, u64), u64> = HashMap::new();
        let (window, mut now) = (Window::of(Unit::Minute), 1_000_000);
        for (key, kind, number, passed) in calls {
            now += passed;
            let hits = match kind {
                0 => Hits::Add(number),
                1 => Hits::GiveBack(number),
                _ => Hits::Look,
            };
            let expected = model.entry((key, window.end(now))).or_default();
            *expected = hits.applied_to(*expected);
            let mut batch = Batch::default();
            batch.push(per_minute(), Mode::Enforce, hits, |buffer| buffer.push(key));
            let mut tallies = Vec::new();
            store.count_now(&batch, now * SECOND_US, &mut tallies);
            prop_assert_eq!(tallies[0].used, *expected);
            prop_assert_eq!(tallies[0].resets_in_seconds, window.end(now) - now);
        }
    }
}

fn sliding(requests: u32) -> Limit {
    Limit { algorithm: Algorithm::SlidingWindow, ..Limit::fixed(requests, Window::of(Unit::Minute)) }
}

#[test]
fn a_storm_of_logs_stays_within_its_bytes() {
    const MAX_BYTES: usize = 1 << 20;
    let store = MemoryStore::new(Bounds { max_keys: 1_000_000, max_bytes: MAX_BYTES });
    for round in 0..20u64 {
        for n in 0..5_000 {
            let mut batch = Batch::default();
            batch.push(sliding(60), Mode::Enforce, Hits::Add(1), |buffer| {
                buffer.extend(format!("{n}").as_bytes())
            });
            store.count_now(&batch, 1_000_000 * SECOND_US + round * 1_000 + n, &mut Vec::new());
            if n % 500 == 0 {
                // A call may go beyond its shards' bytes by the one log it makes.
                assert!(store.bytes() <= MAX_BYTES + SHARDS * 2_048, "{}", store.bytes());
            }
        }
    }
    assert!(store.evicted() > 0);
}

#[test]
fn what_is_forgotten_begins_anew() {
    let store = MemoryStore::new(Bounds::keys(10));
    assert_eq!(add(&store, "k", 5, 0), 5);
    store.forget(b"k");
    assert!(store.is_empty());
    assert_eq!(add(&store, "k", 1, 0), 1);
}
