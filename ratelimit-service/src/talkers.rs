//! Who uses a limit most: a space-saving sketch, whose size is fixed whatever the number of callers.
//!
//! Pure. Each count may be too large by its `error` at most, and whoever made more than one in [`CAPACITY`] of all
//! calls is among those kept. Two sketches take turns, so that what is shown is of the last minute or two.

/// Callers kept for each limit.
pub const CAPACITY: usize = 32;
/// Bytes of a caller's name that are kept.
const MAX_LABEL_BYTES: usize = 128;
/// After so long a sketch is laid aside.
const TURN_SECONDS: u64 = 60;

/// One caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talker {
    print: u64,
    /// Its descriptor's entries.
    pub label: Box<str>,
    /// Hits, too many by `error` at most.
    pub hits: u64,
    /// How much of that may be somebody else's.
    pub error: u64,
    /// Hits that were refused.
    pub refused: u64,
    /// Until when it is refused, in seconds of Unix time.
    pub limited_until: u64,
}

/// The callers of one limit.
#[derive(Debug, Clone, Default)]
pub struct Talkers {
    present: Sketch,
    before: Sketch,
    turned: u64,
}

#[derive(Debug, Clone, Default)]
struct Sketch(Vec<Talker>);

/// What a call was.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Tells the caller from others.
    pub print: u64,
    /// How many like it this one stands for.
    pub weight: u64,
    /// It was over the limit, which it may try again at this second.
    pub limited_until: Option<u64>,
}

impl Talkers {
    /// Takes a call into account; `label` is asked for only if the caller is new.
    pub fn note(&mut self, call: Call, now_seconds: u64, label: impl FnOnce() -> String) {
        if now_seconds >= self.turned + TURN_SECONDS {
            self.before = std::mem::take(&mut self.present);
            self.turned = now_seconds;
        }
        self.present.note(call, label);
    }

    /// The callers of the last minute or two, most hits first.
    pub fn top(&self, now_seconds: u64) -> Vec<Talker> {
        if now_seconds >= self.turned + 2 * TURN_SECONDS {
            return Vec::new();
        }
        let mut all = self.present.0.clone();
        for earlier in &self.before.0 {
            match all.iter_mut().find(|one| one.print == earlier.print) {
                Some(one) => {
                    one.hits += earlier.hits;
                    one.error += earlier.error;
                    one.refused += earlier.refused;
                }
                None => all.push(earlier.clone()),
            }
        }
        all.sort_by_key(|talker| std::cmp::Reverse(talker.hits));
        all.truncate(CAPACITY);
        all
    }
}

impl Sketch {
    fn note(&mut self, call: Call, label: impl FnOnce() -> String) {
        let place = match self.0.iter().position(|talker| talker.print == call.print) {
            Some(place) => place,
            None => self.admit(call.print, label()),
        };
        let talker = &mut self.0[place];
        talker.hits += call.weight;
        if let Some(until) = call.limited_until {
            talker.refused += call.weight;
            talker.limited_until = until;
        }
    }

    /// A newcomer takes the place of whoever has least, and may have had as much.
    fn admit(&mut self, print: u64, mut label: String) -> usize {
        if label.len() > MAX_LABEL_BYTES {
            label.truncate((0..=MAX_LABEL_BYTES).rev().find(|at| label.is_char_boundary(*at)).unwrap_or(0));
        }
        let fresh =
            |hits| Talker { print, label: label.into(), hits, error: hits, refused: 0, limited_until: 0 };
        if self.0.len() < CAPACITY {
            self.0.push(fresh(0));
            return self.0.len() - 1;
        }
        let least = self.0.iter().enumerate().min_by_key(|(_, talker)| talker.hits);
        let (place, hits) = least.map_or((0, 0), |(place, talker)| (place, talker.hits));
        self.0[place] = fresh(hits);
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(print: u64) -> Call {
        Call { print, weight: 1, limited_until: None }
    }

    #[test]
    fn heavy_hitters_are_kept_among_a_crowd() {
        let mut talkers = Talkers::default();
        for n in 0..10_000u64 {
            talkers.note(call(n + 100), 5, || n.to_string());
            if n % 5 == 0 {
                talkers.note(call(1), 5, || "heavy".to_owned());
            }
        }
        let top = talkers.top(5);
        assert_eq!((&*top[0].label, top.len()), ("heavy", CAPACITY));
        assert!((2_000..2_000 + 500).contains(&top[0].hits), "{:?}", top[0]);
    }

    #[test]
    fn what_is_shown_is_of_the_last_minutes() {
        let mut talkers = Talkers::default();
        talkers.note(Call { limited_until: Some(70), ..call(1) }, 60, || "a".to_owned());
        talkers.note(call(1), 121, || "a".to_owned());
        assert_eq!((talkers.top(121)[0].hits, talkers.top(121)[0].refused), (2, 1));
        talkers.note(call(2), 190, || "x".repeat(500));
        assert_eq!(talkers.top(190).len(), 2);
        assert!(talkers.top(190)[1].label.len() <= MAX_LABEL_BYTES);
        assert!(talkers.top(1_000).is_empty());
    }

    proptest! {
        #[test]
        fn never_counts_too_little(calls in proptest::collection::vec(0u64..60, 0..500)) {
            let mut talkers = Talkers::default();
            for print in &calls {
                talkers.note(call(*print), 0, || print.to_string());
            }
            for talker in talkers.top(0) {
                let real = calls.iter().filter(|print| **print == talker.print).count() as u64;
                prop_assert!(talker.hits >= real && talker.hits - talker.error <= real);
            }
        }
    }
}
