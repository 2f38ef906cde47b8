//! Sliding windows: the hits of the last `window`, whenever one looks.
//!
//! Pure arithmetic over a log of moments and hits. For limits up to [`EXACT_UP_TO`] each hit keeps its own moment,
//! and the log is exact. Above, moments are rounded *up* to 64ths of the window and hits of the same 64th share an
//! entry: so no window of that length ever sees more than the limit, and a hit leaves at most 1/64 of the window late.
//!
//! ```text
//!        now - window                          now
//! ────────────|──────*───*─────────**─*─────────|──>      counted: what lies right of now - window
//! ```
//!
//! A weighted estimate from two fixed windows would be smaller, but lets more than the limit through; a bucket that
//! never does would refuse part of the limit to whoever comes at once. The log costs 16 bytes an entry and has
//! [`MAX_ENTRIES`] at most.

use std::collections::VecDeque;

use crate::window::steady;

/// Limits up to this have an exact log.
pub const EXACT_UP_TO: u32 = 64;
/// Parts a window is cut into for larger limits.
const SLOTS: u64 = 64;
/// Entries of a log at most: the parts of a window, and those it begins and ends in.
pub const MAX_ENTRIES: usize = SLOTS as usize + 2;

/// A limit as the log needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    requests: u64,
    window_us: u64,
    slot_us: u64,
}

impl Span {
    /// `requests` in any `window_us` microseconds.
    pub fn new(requests: u32, window_us: u64) -> Self {
        let slot_us = if requests <= EXACT_UP_TO { 1 } else { window_us.div_ceil(SLOTS) };
        Self { requests: u64::from(requests), window_us, slot_us }
    }

    /// The moment under which a hit is kept.
    fn kept_as(&self, now_us: u64) -> u64 {
        now_us.div_ceil(self.slot_us) * self.slot_us
    }
}

/// Hits by moment, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    entries: VecDeque<(u64, u64)>,
    hits: u64,
    seen_us: u64,
}

impl Log {
    /// Forgets what lies before the window that ends now. A clock that stepped back a little stands still until it
    /// has caught up; one that stepped far back takes the log with it.
    pub fn advance(&mut self, span: &Span, now_us: u64) {
        let now = steady(self.seen_us, now_us);
        self.seen_us = now;
        let latest = span.kept_as(now);
        for (at, _) in self.entries.iter_mut().rev().take_while(|(at, _)| *at > latest) {
            *at = latest;
        }
        while let Some((_, hits)) =
            self.entries.pop_front_if(|(at, _)| at.saturating_add(span.window_us) <= now)
        {
            self.hits -= hits;
        }
    }

    /// Adds hits at the moment of the last [`Self::advance`], where they fit.
    pub fn take(&mut self, span: &Span, hits: u64) -> bool {
        if self.hits + hits > span.requests {
            return false;
        }
        let at = span.kept_as(self.seen_us);
        match self.entries.back_mut() {
            Some((last, count)) if *last >= at => *count += hits,
            _ => self.entries.push_back((at, hits)),
        }
        self.hits += hits;
        true
    }

    /// Takes the newest hits away again.
    pub fn give_back(&mut self, mut hits: u64) {
        while let Some((_, count)) = self.entries.back_mut() {
            let gone = hits.min(*count);
            *count -= gone;
            self.hits -= gone;
            hits -= gone;
            if *count > 0 {
                return;
            }
            self.entries.pop_back();
        }
    }

    /// The log of these moments and hits; none where they are in no order or more than can be counted.
    pub fn of_parts(entries: VecDeque<(u64, u64)>, seen_us: u64) -> Option<Self> {
        let in_order = entries.iter().zip(entries.iter().skip(1)).all(|(one, next)| one.0 < next.0);
        let hits = entries.iter().try_fold(0_u64, |sum, (_, hits)| sum.checked_add(*hits))?;
        in_order.then_some(Self { entries, hits, seen_us })
    }

    /// Moments and hits, oldest first.
    pub fn entries(&self) -> &VecDeque<(u64, u64)> {
        &self.entries
    }

    /// The moment of the last [`Self::advance`].
    pub fn seen_us(&self) -> u64 {
        self.seen_us
    }

    /// Hits in the window.
    pub fn used(&self) -> u64 {
        self.hits
    }

    /// Microseconds until `hits` could be taken; where they never can, until the log is empty.
    pub fn wait_us(&self, span: &Span, hits: u64) -> u64 {
        if hits > span.requests {
            return self.empty_in_us(span);
        }
        let mut used = self.hits;
        for (at, count) in &self.entries {
            if used + hits <= span.requests {
                break;
            }
            used -= count;
            if used + hits <= span.requests {
                return (at + span.window_us).saturating_sub(self.seen_us);
            }
        }
        0
    }

    /// Microseconds until the last hit leaves.
    pub fn empty_in_us(&self, span: &Span) -> u64 {
        self.entries.back().map_or(0, |(at, _)| (at + span.window_us).saturating_sub(self.seen_us))
    }

    /// Memory held beside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u64, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn try_take(log: &mut Log, span: &Span, now_us: u64, hits: u64) -> bool {
        log.advance(span, now_us);
        log.take(span, hits)
    }

    #[test]
    fn the_edge_of_a_window_grants_nothing_twice() {
        let span = Span::new(5, 60 * SECOND);
        let mut log = Log::default();
        assert!(try_take(&mut log, &span, START + 59 * SECOND, 5));
        for later in [60, 61, 100, 118] {
            assert!(!try_take(&mut log, &span, START + later * SECOND, 1), "{later}");
        }
        assert_eq!(log.wait_us(&span, 1), SECOND);
        assert!(try_take(&mut log, &span, START + 119 * SECOND, 5));
    }

    #[test]
    fn a_log_stays_small_whatever_the_limit() {
        let span = Span::new(1_000_000, 60 * SECOND);
        let mut log = Log::default();
        for n in 0..100_000 {
            try_take(&mut log, &span, START + n * 1_777, 1);
            assert!(log.entries.len() <= MAX_ENTRIES);
        }
        assert!(log.heap_bytes() <= 128 * 16);
    }

    #[test]
    fn giving_back_takes_the_newest() {
        let span = Span::new(10, 60 * SECOND);
        let mut log = Log::default();
        assert!(try_take(&mut log, &span, START, 4) && try_take(&mut log, &span, START + SECOND, 6));
        log.give_back(7);
        assert_eq!(log.used(), 3);
        assert_eq!(log.empty_in_us(&span), 59 * SECOND);
        log.give_back(99);
        assert_eq!((log.used(), log.empty_in_us(&span)), (0, 0));
    }

    #[test]
    fn a_clock_that_steps_neither_counts_twice_nor_refuses_for_good() {
        for requests in [5, 500] {
            let span = Span::new(requests, 2 * SECOND);
            let all = u64::from(requests);
            let mut log = Log::default();
            assert!(try_take(&mut log, &span, START, all));
            assert!(!try_take(&mut log, &span, START - 10 * SECOND, 1), "ten seconds back");
            assert!(!try_take(&mut log, &span, START + SECOND, 1));
            assert!(try_take(&mut log, &span, START + 3 * SECOND, all), "no longer than the window");
            assert!(!try_take(&mut log, &span, START - 3_600 * SECOND, 1), "an hour back");
            assert!(try_take(&mut log, &span, START - 3_597 * SECOND, all), "and not for good");
        }
    }

    proptest! {
        /// Against a naive model that keeps every hit for ever: never over the limit in any window;
        /// exact for small limits, and for large ones late by a 64th of the window at most.
        #[test]
        fn as_a_naive_model(
            requests in prop_oneof![1u32..20, 60u32..200], window_s in 1u64..90,
            calls in proptest::collection::vec((0u64..3_000_000, 1u64..30), 1..200),
        ) {
            let span = Span::new(requests, window_s * SECOND);
            let late = if requests <= EXACT_UP_TO { 0 } else { span.slot_us };
            let (mut now, mut log, mut passed) = (START, Log::default(), Vec::<(u64, u64)>::new());
            for (later, hits) in calls {
                now += later;
                let within = |window: u64| -> u64 {
                    passed.iter().filter(|(at, _)| at + window > now).map(|(_, hits)| hits).sum()
                };
                let fits = within(span.window_us) + hits <= u64::from(requests);
                let fits_late = within(span.window_us + late) + hits <= u64::from(requests);
                let allowed = try_take(&mut log, &span, now, hits);
                prop_assert!(!allowed || fits, "over the limit at {}", now);
                prop_assert!(allowed || !fits_late, "refused without need at {}", now);
                if allowed {
                    passed.push((now, hits));
                }
            }
        }
    }
}
