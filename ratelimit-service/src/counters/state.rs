//! What a counter in this process remembers, by algorithm.

use crate::bucket::{Refill, Spent};
use crate::limits::{Algorithm, Limit};
use crate::sliding::{Log, Span};
use crate::window::{Hits, Tally, still_counts};

pub(super) const SECOND_US: u64 = 1_000_000;

/// A counter's memory. The key says which algorithm it is for, so the two never disagree.
#[derive(Debug)]
pub(super) enum State {
    /// A count, and the second its window ends.
    Fixed { count: u64, window_end: u64 },
    /// A bucket, and the second from which it is as good as new.
    Bucket { spent: Spent, stale_at: u32 },
    /// A log, on the heap since few limits need one.
    Sliding(Box<Sliding>),
}

#[derive(Debug)]
pub(super) struct Sliding {
    log: Log,
    stale_at: u64,
}

impl Sliding {
    /// The log, and the second from which it is as good as none.
    pub(super) fn parts(&self) -> (&Log, u64) {
        (&self.log, self.stale_at)
    }
}

/// How to take back what a refused call spent.
#[derive(Debug)]
pub(super) enum Undo {
    Nothing,
    Bucket(Spent),
    Sliding(u64),
}

impl State {
    /// A counter about to be used: nothing sweeps it away within this second.
    pub(super) fn new(limit: &Limit, now_seconds: u64) -> Self {
        let stale_at = now_seconds + 1;
        match limit.algorithm {
            Algorithm::FixedWindow => Self::Fixed { count: 0, window_end: stale_at },
            Algorithm::TokenBucket { .. } => Self::Bucket {
                spent: Spent::default(),
                stale_at: u32::try_from(stale_at).unwrap_or(u32::MAX),
            },
            Algorithm::SlidingWindow => Self::Sliding(Box::new(Sliding { log: Log::default(), stale_at })),
        }
    }

    /// A sliding window's memory from its parts.
    pub(super) fn of_log(log: Log, stale_at: u64) -> Self {
        Self::Sliding(Box::new(Sliding { log, stale_at }))
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_stale(&self, now_seconds: u64) -> bool {
        let stale_at = match self {
            Self::Fixed { window_end, .. } => *window_end,
            Self::Bucket { stale_at, .. } => u64::from(*stale_at),
            Self::Sliding(sliding) => sliding.stale_at,
        };
        stale_at <= now_seconds
    }

    /// What would be lost with it, for choosing whom to forget.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Fixed { count, .. } => *count,
            Self::Bucket { spent, .. } => spent.used(),
            Self::Sliding(sliding) => sliding.log.used(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Sliding(sliding) => size_of::<Sliding>() + sliding.log.heap_bytes(),
            _ => 0,
        }
    }

    /// Applies the hits as far as the counter itself allows; whether they did not fit, and how to undo it.
    pub(super) fn apply(&mut self, limit: &Limit, hits: Hits, now_us: u64) -> (bool, Undo) {
        match self {
            Self::Fixed { count, window_end } => {
                count_fixed(count, window_end, limit, hits, now_us / SECOND_US);
                (Tally::of_fixed(limit.requests, *count, hits, 1).over, Undo::Nothing)
            }
            Self::Bucket { spent, .. } => {
                let refill = refill(limit);
                *spent = spent.drained(&refill, now_us);
                match hits {
                    Hits::Look => (spent.take(&refill, 1).is_none(), Undo::Nothing),
                    Hits::GiveBack(back) => {
                        *spent = spent.give_back(back);
                        (false, Undo::Nothing)
                    }
                    Hits::Add(hits) => match spent.take(&refill, hits) {
                        Some(taken) => (false, Undo::Bucket(std::mem::replace(spent, taken))),
                        None => (true, Undo::Nothing),
                    },
                }
            }
            Self::Sliding(sliding) => {
                let span = span(limit);
                sliding.log.advance(&span, now_us);
                match hits {
                    Hits::Look => (sliding.log.used() >= u64::from(limit.requests), Undo::Nothing),
                    Hits::GiveBack(back) => {
                        sliding.log.give_back(back);
                        (false, Undo::Nothing)
                    }
                    Hits::Add(hits) if sliding.log.take(&span, hits) => (false, Undo::Sliding(hits)),
                    Hits::Add(_) => (true, Undo::Nothing),
                }
            }
        }
    }

    pub(super) fn undo(&mut self, undo: &Undo) {
        match (self, undo) {
            (Self::Bucket { spent, .. }, Undo::Bucket(before)) => *spent = *before,
            (Self::Sliding(sliding), Undo::Sliding(hits)) => sliding.log.give_back(*hits),
            _ => {}
        }
    }

    /// Says how it stands after [`Self::apply`] and perhaps [`Self::undo`], and notes when it will be stale.
    pub(super) fn tally(&mut self, limit: &Limit, hits: Hits, over: bool, now_us: u64) -> Tally {
        let now_seconds = now_us / SECOND_US;
        let asked = if let Hits::Add(hits) = hits { hits } else { 1 };
        let (used, empty_us, wait_us) = match self {
            Self::Fixed { count, window_end } => {
                let resets_in_seconds = window_end.saturating_sub(now_seconds).max(1);
                return Tally { used: *count, over, resets_in_seconds };
            }
            Self::Bucket { spent, .. } => {
                let refill = refill(limit);
                (spent.used(), spent.empty_in_us(&refill), spent.wait_us(&refill, asked))
            }
            Self::Sliding(sliding) => {
                let (log, span) = (&sliding.log, span(limit));
                (log.used(), log.empty_in_us(&span), log.wait_us(&span, asked))
            }
        };
        let emptied = now_seconds + empty_us.div_ceil(SECOND_US);
        match self {
            Self::Fixed { .. } => {}
            Self::Bucket { stale_at, .. } => *stale_at = u32::try_from(emptied).unwrap_or(u32::MAX),
            Self::Sliding(sliding) => sliding.stale_at = emptied,
        }
        let resets_us = if over { wait_us } else { empty_us };
        Tally { used, over, resets_in_seconds: resets_us.div_ceil(SECOND_US).max(1) }
    }
}

/// Counts in the window that is stored, where it still counts, else in the present one.
pub(super) fn count_fixed(
    count: &mut u64,
    window_end: &mut u64,
    limit: &Limit,
    hits: Hits,
    now_seconds: u64,
) {
    let current_end = limit.window.end(now_seconds);
    if !still_counts(*window_end, current_end) {
        (*count, *window_end) = (0, current_end);
    }
    *count = hits.applied_to(*count);
}

fn refill(limit: &Limit) -> Refill {
    Refill::new(limit.requests, limit.window.seconds() * SECOND_US, limit.capacity())
}

fn span(limit: &Limit) -> Span {
    Span::new(limit.requests, limit.window.seconds() * SECOND_US)
}
