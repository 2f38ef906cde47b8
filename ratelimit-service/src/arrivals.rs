//! The calls of the last day, bounded, for trying new limits on them.
//!
//! Each distinct request is kept once, and each second it came in as one entry with a count. There is a bound on bytes
//! and on entries a second; where more comes, only every second, fourth, eighth … distinct request is kept, chosen by
//! its hash: whoever is kept is kept whole, so that its own limits are tried exactly, and what is left out is said.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use tollgate_proto::prost::Message as _;

use crate::wire::messages::RateLimitRequest;

/// How far back the log reaches.
pub const HORIZON_SECONDS: u64 = 86_400;
/// Entries a second; beyond that fewer requests are kept.
const MAX_A_SECOND: u32 = 2_000;
/// One in 2^20 requests is the least that is kept.
const MOST_HALVINGS: u32 = 20;
/// Bytes of an entry, and of a request's place besides the request.
const ENTRY_BYTES: usize = size_of::<Entry>();
const REQUEST_BYTES: usize = 128;

/// The log.
#[derive(Debug)]
pub struct Arrivals {
    max_bytes: usize,
    halvings: AtomicU32,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    requests: HashMap<u64, Kept, FxBuildHasher>,
    entries: VecDeque<Entry>,
    /// Entries that fell off the front so far, so that places stay valid.
    gone: u64,
    bytes: usize,
    second: u64,
    in_second: u32,
}

#[derive(Debug)]
struct Kept {
    request: Arc<RateLimitRequest>,
    bytes: usize,
    entries: u32,
    last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    print: u64,
    second: u32,
    calls: u32,
}

/// The same request, so many times in one second.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The second of Unix time.
    pub second: u64,
    /// The request.
    pub request: Arc<RateLimitRequest>,
    /// How many times.
    pub calls: u32,
}

/// What was kept of a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Excerpt {
    /// Oldest first.
    pub arrivals: Vec<Arrival>,
    /// One in this many distinct requests is kept.
    pub one_in: u64,
}

impl Arrivals {
    /// Takes this many bytes at most; 0 keeps nothing.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, halvings: AtomicU32::new(0), log: Mutex::default() }
    }

    /// Notes a call.
    pub fn note(&self, request: &RateLimitRequest, now_seconds: u64) {
        if self.max_bytes == 0 {
            return;
        }
        let print = print_of(request);
        if !is_kept(print, self.halvings.load(Ordering::Relaxed)) {
            return;
        }
        let mut log = self.log.lock();
        let is_more = log.note(print, request, now_seconds);
        if !is_more || (log.bytes <= self.max_bytes && log.in_second <= MAX_A_SECOND) {
            return;
        }
        log.drop_before(now_seconds.saturating_sub(HORIZON_SECONDS));
        while log.bytes > self.max_bytes || log.in_second > MAX_A_SECOND {
            let halvings = self.halvings.load(Ordering::Relaxed) + 1;
            if halvings > MOST_HALVINGS {
                log.drop_oldest();
                break;
            }
            self.halvings.store(halvings, Ordering::Relaxed);
            log.thin(halvings);
        }
    }

    /// What came since then.
    pub fn since(&self, second: u64) -> Excerpt {
        let log = self.log.lock();
        let arrivals = log
            .entries
            .iter()
            .filter(|entry| u64::from(entry.second) >= second)
            .filter_map(|entry| {
                let request = Arc::clone(&log.requests.get(&entry.print)?.request);
                Some(Arrival { second: entry.second.into(), request, calls: entry.calls })
            })
            .collect();
        Excerpt { arrivals, one_in: 1 << self.halvings.load(Ordering::Relaxed) }
    }

    /// Bytes it takes now.
    pub fn bytes(&self) -> usize {
        self.log.lock().bytes
    }
}

fn is_kept(print: u64, halvings: u32) -> bool {
    print >> (64 - MOST_HALVINGS) & ((1 << halvings) - 1) == 0
}

fn print_of(request: &RateLimitRequest) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write(request.domain.as_bytes());
    for descriptor in &request.descriptors {
        hasher.write_u8(1);
        for (key, value) in descriptor.pairs() {
            hasher.write(key.as_bytes());
            hasher.write_u8(2);
            hasher.write(value.as_bytes());
        }
        hasher.write_u64(descriptor.hits_addend.unwrap_or(u64::MAX));
    }
    hasher.write_u32(request.hits_addend);
    // Its lower bits vary best; the choice of whom to keep is made by the upper ones.
    hasher.finish().wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Log {
    /// Whether there is an entry more than before.
    fn note(&mut self, print: u64, request: &RateLimitRequest, now_seconds: u64) -> bool {
        if self.second != now_seconds {
            (self.second, self.in_second) = (now_seconds, 0);
        }
        // Entries are 32 bits of seconds: enough until 2106.
        let second = u32::try_from(now_seconds).unwrap_or(u32::MAX);
        let place = self.gone + self.entries.len() as u64;
        if let Some(kept) = self.requests.get_mut(&print) {
            let last = kept.last.checked_sub(self.gone).and_then(|at| self.entries.get_mut(at as usize));
            if let Some(last) = last
                && last.print == print
                && last.second == second
            {
                last.calls = last.calls.saturating_add(1);
                return false;
            }
            kept.entries += 1;
            kept.last = place;
        } else {
            let bytes = request.encoded_len() * 2 + REQUEST_BYTES;
            self.bytes += bytes;
            let request = Arc::new(request.clone());
            self.requests.insert(print, Kept { request, bytes, entries: 1, last: place });
        }
        self.entries.push_back(Entry { print, second, calls: 1 });
        self.bytes += ENTRY_BYTES;
        self.in_second += 1;
        true
    }

    fn drop_before(&mut self, second: u64) {
        while self.entries.front().is_some_and(|entry| u64::from(entry.second) < second) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.gone += 1;
            self.bytes -= ENTRY_BYTES;
            self.release(entry.print);
        }
    }

    fn release(&mut self, print: u64) {
        if let Some(kept) = self.requests.get_mut(&print) {
            kept.entries -= 1;
            if kept.entries == 0 {
                self.bytes -= kept.bytes;
                self.requests.remove(&print);
            }
        }
    }

    /// Leaves out whoever is not kept any more.
    fn thin(&mut self, halvings: u32) {
        let entries = std::mem::take(&mut self.entries);
        let before = entries.len();
        self.gone += before as u64;
        self.in_second = 0;
        for entry in entries {
            if is_kept(entry.print, halvings) {
                if let Some(kept) = self.requests.get_mut(&entry.print) {
                    kept.last = self.gone + self.entries.len() as u64;
                }
                self.in_second += u32::from(u64::from(entry.second) == self.second);
                self.entries.push_back(entry);
            } else {
                self.bytes -= ENTRY_BYTES;
                self.release(entry.print);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{Descriptor, Entry as Pair};

    fn request(user: u32) -> RateLimitRequest {
        let entries = vec![Pair { key: "user".into(), value: format!("u-{user}") }];
        let descriptors = vec![Descriptor { entries, ..Descriptor::default() }];
        RateLimitRequest { domain: "d".into(), descriptors, hits_addend: 0 }
    }

    #[test]
    fn the_same_in_one_second_is_one_entry() {
        let arrivals = Arrivals::new(1 << 20);
        for (user, second) in [(1, 10), (2, 10), (1, 10), (1, 11)] {
            arrivals.note(&request(user), second);
        }
        let all = arrivals.since(0);
        let seen: Vec<_> = all.arrivals.iter().map(|arrival| (arrival.second, arrival.calls)).collect();
        assert_eq!((seen, all.one_in), (vec![(10, 2), (10, 1), (11, 1)], 1));
        assert_eq!(arrivals.since(11).arrivals.len(), 1);
    }

    #[test]
    fn a_second_has_so_many_entries_and_no_more() {
        let arrivals = Arrivals::new(64 << 20);
        for second in 0..3 {
            for user in 0..10_000 {
                arrivals.note(&request(user), second);
            }
        }
        let all = arrivals.since(0);
        for second in 0..3 {
            let entries = all.arrivals.iter().filter(|arrival| arrival.second == second).count();
            assert!((500..=MAX_A_SECOND as usize).contains(&entries), "{entries} in second {second}");
        }
        assert_eq!(all.one_in, 8);
    }

    #[test]
    fn a_flood_is_thinned_and_stays_within_its_bytes() {
        const MAX_BYTES: usize = 256 << 10;
        let arrivals = Arrivals::new(MAX_BYTES);
        for second in 0..200 {
            for user in 0..1_000 {
                arrivals.note(&request(user), second);
            }
        }
        assert!(arrivals.bytes() <= MAX_BYTES, "{}", arrivals.bytes());
        let all = arrivals.since(0);
        assert!(all.one_in > 1 && !all.arrivals.is_empty());
        let users: std::collections::HashSet<_> = all
            .arrivals
            .iter()
            .map(|arrival| arrival.request.descriptors[0].entries[0].value.clone())
            .collect();
        // Whoever is kept is kept over the whole time.
        assert_eq!(all.arrivals.len(), users.len() * 200);
    }
}
