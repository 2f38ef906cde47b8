//! What happens at each limit, for the live view: counts, who is near, who is limited now, who talks most.
//!
//! Counts are atomics. The sketch of callers is behind a lock and takes part of the calls when there are many, each
//! standing for several, so that a busy limit pays little for being watched.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxBuildHasher;

use crate::limits::{Domain, Rule};
use crate::talkers::{Call, Talker, Talkers};
use crate::window::{Hits, Tally};
use crate::wire::messages::Descriptor;

/// Limits watched at once; those of further ones share one record, which is shown for none.
const MAX_WATCHED: usize = 4_096;
/// Calls a second that the sketch takes whole; of more it takes one in [`STRIDE`].
const WHOLE: u64 = 128;
const STRIDE: u64 = 32;

/// Everything seen of one limit.
#[derive(Debug, Default)]
pub struct Activity {
    hits: AtomicU64,
    over: AtomicU64,
    near: AtomicU64,
    /// The second, and the calls in it.
    pace: AtomicU64,
    talkers: Mutex<Talkers>,
}

/// Counts of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Calls counted against it.
    pub calls: u64,
    /// Calls that did not fit.
    pub over: u64,
    /// Calls that fitted and left it near.
    pub near: u64,
}

impl Activity {
    /// Takes a call into account.
    pub fn note(&self, descriptor: &Descriptor, hits: Hits, tally: &Tally, near: bool, now_seconds: u64) {
        let Hits::Add(_) = hits else { return };
        self.hits.fetch_add(1, Ordering::Relaxed);
        if tally.over {
            self.over.fetch_add(1, Ordering::Relaxed);
        } else if near {
            self.near.fetch_add(1, Ordering::Relaxed);
        }
        let Some(weight) = self.weight(now_seconds) else { return };
        let limited_until = tally.over.then_some(now_seconds + tally.resets_in_seconds);
        let call = Call { print: print_of(descriptor), weight, limited_until };
        self.talkers.lock().note(call, now_seconds, || label_of(descriptor));
    }

    /// How many calls this one stands for, if it is looked at.
    fn weight(&self, now_seconds: u64) -> Option<u64> {
        let seen = self.pace.load(Ordering::Relaxed);
        if seen >> 32 != now_seconds & 0xFFFF_FFFF {
            // Two that begin the second together lose a call of it, which changes no picture.
            self.pace.store((now_seconds << 32) | 1, Ordering::Relaxed);
            return Some(1);
        }
        let count = self.pace.fetch_add(1, Ordering::Relaxed) & 0xFFFF_FFFF;
        match count {
            0..WHOLE => Some(1),
            _ if count.is_multiple_of(STRIDE) => Some(STRIDE),
            _ => None,
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { calls: of(&self.hits), over: of(&self.over), near: of(&self.near) }
    }

    /// The callers of the last minute or two, most hits first.
    pub fn talkers(&self, now_seconds: u64) -> Vec<Talker> {
        self.talkers.lock().top(now_seconds)
    }
}

fn print_of(descriptor: &Descriptor) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    for (_, value) in descriptor.pairs() {
        hasher.write(value.as_bytes());
        hasher.write_u8(0xFF);
    }
    hasher.finish()
}

fn label_of(descriptor: &Descriptor) -> String {
    descriptor.pairs().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// The records of all limits, kept over reloads.
#[derive(Debug, Default)]
pub struct Activities(RwLock<HashMap<Box<str>, Arc<Activity>>>);

impl Activities {
    /// The records of a domain's rules, in their order.
    pub fn of(&self, domain: &Domain) -> Vec<Arc<Activity>> {
        let mut all = self.0.write();
        domain
            .rules()
            .iter()
            .map(|rule| {
                let known = all.len() < MAX_WATCHED;
                let name = if known { name_of(rule) } else { Box::default() };
                Arc::clone(all.entry(name).or_default())
            })
            .collect()
    }
}

/// Tells a limit from the others of its key, so that its record survives a reload.
fn name_of(rule: &Rule) -> Box<str> {
    let how = rule.limit().map(|limit| format!("{} {}", limit.algorithm.name(), limit.window.seconds()));
    format!("{} {:?} {}", rule.path, rule.mode, how.unwrap_or_default()).into()
}
