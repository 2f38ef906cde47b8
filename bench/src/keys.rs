//! What counters in memory take: ten million live ones, and a storm of new ones on a store that is full.

use std::time::Instant;

use tollgate_ratelimit::counters::{Batch, Bounds, MemoryStore};
use tollgate_ratelimit::limits::{Limit, Mode};
use tollgate_ratelimit::window::{Hits, Unit, Window};

use crate::process::rss_mib;
use crate::say;

const LIVE: usize = 10_000_000;
const STORM: usize = 1_000_000;
/// Counters, and bytes, of the store that the storm meets.
const BOUND: Bounds = Bounds { max_keys: 100_000, max_bytes: 16 << 20 };
const NOW_US: u64 = 1_700_000_000_000_000;

/// Measures and prints.
pub(crate) fn run() -> anyhow::Result<()> {
    let small = MemoryStore::new(BOUND);
    let mut most = (0, 0);
    for number in 0..STORM {
        count(&small, number);
        if number.is_multiple_of(10_000) {
            most = (most.0.max(small.len()), most.1.max(small.bytes()));
        }
    }
    say(&format!(
        "{STORM} distinct keys on a store of {} and {} MiB: {} at most, {} MiB, {} gave way",
        BOUND.max_keys,
        BOUND.max_bytes >> 20,
        most.0.max(small.len()),
        most.1.max(small.bytes()) >> 20,
        small.evicted(),
    ));

    let before = rss_mib(std::process::id())?;
    let (large, began) = (MemoryStore::new(Bounds::keys(LIVE + LIVE / 8)), Instant::now());
    (0..LIVE).for_each(|number| count(&large, number));
    say(&format!(
        "{} live keys: {:.0} MiB resident, {} gave way, {:.0} ns each",
        large.len(),
        rss_mib(std::process::id())? - before,
        large.evicted(),
        began.elapsed().as_nanos() as f64 / LIVE as f64,
    ));
    Ok(())
}

fn count(store: &MemoryStore, number: usize) {
    let mut batch = Batch::with_capacity(1);
    batch.push(Limit::fixed(10, Window::of(Unit::Day)), Mode::Enforce, Hits::Add(1), |key| {
        key.extend_from_slice(format!("tg:{{bench}}:86400:4:user:{number}").as_bytes());
    });
    store.count_now(&batch, NOW_US, &mut Vec::new());
}
