//! Counting windows: given a limit, a count and the time, what is left and until when.
//!
//! Pure arithmetic, in whole seconds of Unix time as envoyproxy/ratelimit counts. It never reads a
//! clock, never locks and never talks to a store; `counters` decides where the counts live.
//!
//! ```text
//!   window k-1      window k        window k+1        start = floor(now / length) * length
//! ──────────────|──────────────|──────────────        end   = start + length
//!               start   now    end
//! ```

use std::num::NonZeroU32;

/// The hits of one call are counted up to here. No limit is larger than `u32::MAX`, so more hits
/// than this change no answer, and counts stay far from overflowing.
pub const MAX_HITS: u64 = 1 << 32;

/// A window stored with an end this far ahead of the present one is still counted in, so that a
/// clock stepping back neither counts twice nor grants a second allowance. Further ahead, the
/// stored window is taken for a mistake and given up, so that no key stays refused for good.
pub const CLOCK_STEP_TOLERANCE_SECONDS: u64 = 60;

/// The moment to reckon with, given the last one reckoned with, in microseconds: after a small step back of the clock
/// time stands still until the clock has caught up, so that nothing comes back twice.
pub fn steady(last_us: u64, now_us: u64) -> u64 {
    const TOLERANCE_US: u64 = CLOCK_STEP_TOLERANCE_SECONDS * 1_000_000;
    if last_us > now_us && last_us - now_us <= TOLERANCE_US { last_us } else { now_us }
}

/// The units of time limits are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// Every unit, shortest first.
    pub const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The unit a limits file means, in any case of letters, as the reference reads it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(name))
    }

    /// The word for this unit.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// How long it is: a month has 30 days and a year 365, since windows are cut from the epoch.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        }
    }
}

/// A length of time that counting starts anew after: a unit, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    unit: Unit,
    multiplier: NonZeroU32,
}

impl Window {
    /// One unit.
    pub fn of(unit: Unit) -> Self {
        Self { unit, multiplier: NonZeroU32::MIN }
    }

    /// Several units; `None` where that is longer than a `u32` of seconds (136 years).
    pub fn of_several(multiplier: NonZeroU32, unit: Unit) -> Option<Self> {
        let seconds = unit.seconds() * u64::from(multiplier.get());
        u32::try_from(seconds).ok().map(|_| Self { unit, multiplier })
    }

    /// The unit it is written in.
    pub fn unit(self) -> Unit {
        self.unit
    }

    /// How many units it spans.
    pub fn multiplier(self) -> NonZeroU32 {
        self.multiplier
    }

    /// Its length.
    pub fn seconds(self) -> u64 {
        self.unit.seconds() * u64::from(self.multiplier.get())
    }

    /// The end of the window that `now_seconds` lies in, which is where the next one starts.
    pub fn end(self, now_seconds: u64) -> u64 {
        let length = self.seconds();
        (now_seconds - now_seconds % length).saturating_add(length)
    }
}

/// How one counter stands after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Hits that count against the limit. In a fixed window those of this call are among them even when it is over;
    /// elsewhere what was refused is not.
    pub used: u64,
    /// This call's hits did not fit.
    pub over: bool,
    /// Seconds until the call could pass, or where it does, until the whole limit is there again; rounded up, at least 1.
    pub resets_in_seconds: u64,
}

impl Tally {
    /// Of a fixed window. Exactly the limit is not over, and giving back never is.
    pub fn of_fixed(limit: u32, count: u64, hits: Hits, resets_in_seconds: u64) -> Self {
        let over = count > u64::from(limit) && !matches!(hits, Hits::GiveBack(_));
        Self { used: count, over, resets_in_seconds: resets_in_seconds.max(1) }
    }
}

/// Whether a stored window that ends at `stored_end` is the one to count in, when the clock says
/// that the present one ends at `current_end`.
pub fn still_counts(stored_end: u64, current_end: u64) -> bool {
    stored_end >= current_end && stored_end - current_end <= CLOCK_STEP_TOLERANCE_SECONDS
}

/// What one call does to a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// Counts this many.
    Add(u64),
    /// Counts nothing, and answers how things stand.
    Look,
    /// Takes this many back, never below zero.
    GiveBack(u64),
}

impl Hits {
    /// What Envoy's fields mean: a request's 0 is 1, a descriptor's 0 is a look, the descriptor's
    /// own number wins over the request's.
    pub fn asked(of_request: u32, of_descriptor: Option<u64>, negative: bool) -> Self {
        let number = of_descriptor.unwrap_or_else(|| u64::from(of_request.max(1))).min(MAX_HITS);
        match (number, negative) {
            (0, _) => Self::Look,
            (n, false) => Self::Add(n),
            (n, true) => Self::GiveBack(n),
        }
    }

    /// The count after this call.
    pub fn applied_to(self, count: u64) -> u64 {
        match self {
            Self::Add(n) => count.saturating_add(n),
            Self::Look => count,
            Self::GiveBack(n) => count.saturating_sub(n),
        }
    }
}

/// How a tally stands against its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The limit is passed.
    pub over: bool,
    /// What is left of it.
    pub remaining: u32,
    /// More than a share of it is used, and it is not passed.
    pub near: bool,
}

impl Standing {
    /// Judges a tally; `near_ratio` is the share from which a limit is near.
    pub fn of(capacity: u32, tally: &Tally, near_ratio: f64) -> Self {
        // The subtraction yields at most `capacity`, so it fits.
        let remaining = u32::try_from(u64::from(capacity).saturating_sub(tally.used)).unwrap_or(capacity);
        let near = !tally.over && tally.used as f64 > (f64::from(capacity) * near_ratio).floor();
        Self { over: tally.over, remaining, near }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_as_long_as_the_reference_counts_them() {
        let table = [
            ("second", 1),
            ("MINUTE", 60),
            ("Hour", 3600),
            ("day", 86_400),
            ("WEEK", 604_800),
            ("month", 2_592_000),
            ("year", 31_536_000),
        ];
        for (name, seconds) in table {
            assert_eq!(Unit::from_name(name).unwrap().seconds(), seconds, "{name}");
        }
        for name in ["", "unknown", "seconds", "0", "fortnight"] {
            assert_eq!(Unit::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn windows_are_cut_from_the_epoch() {
        let three = NonZeroU32::new(3).unwrap();
        let table = [
            (Window::of(Unit::Second), 10, 11),
            (Window::of(Unit::Minute), 59, 60),
            (Window::of(Unit::Minute), 60, 120),
            (Window::of(Unit::Week), 604_799, 604_800),
            (Window::of(Unit::Month), 2_592_000, 5_184_000),
            (Window::of_several(three, Unit::Minute).unwrap(), 179, 180),
            (Window::of_several(three, Unit::Minute).unwrap(), 180, 360),
        ];
        for (window, now, end) in table {
            assert_eq!(window.end(now), end, "{window:?} at {now}");
        }
        assert_eq!(Window::of_several(NonZeroU32::MAX, Unit::Minute), None);
        assert!(Window::of_several(NonZeroU32::MAX, Unit::Second).is_some());
    }

    #[test]
    fn hits_as_envoy_means_them() {
        let table = [
            (0, None, false, Hits::Add(1)),
            (3, None, false, Hits::Add(3)),
            (3, Some(7), false, Hits::Add(7)),
            (3, Some(0), false, Hits::Look),
            (3, Some(0), true, Hits::Look),
            (0, None, true, Hits::GiveBack(1)),
            (9, Some(4), true, Hits::GiveBack(4)),
            (0, Some(u64::MAX), false, Hits::Add(MAX_HITS)),
        ];
        for (request, descriptor, negative, expected) in table {
            assert_eq!(Hits::asked(request, descriptor, negative), expected);
        }
    }

    #[test]
    fn exactly_the_limit_is_not_over() {
        let table = [
            // limit, count, hits, over, remaining, near
            (10, 1, Hits::Add(1), false, 9, false),
            (10, 8, Hits::Add(1), false, 2, false),
            (10, 9, Hits::Add(1), false, 1, true),
            (10, 10, Hits::Add(1), false, 0, true),
            (10, 11, Hits::Add(1), true, 0, false),
            (10, 10, Hits::Look, false, 0, true),
            (10, 11, Hits::Look, true, 0, false),
            (10, 40, Hits::GiveBack(3), false, 0, true),
            (0, 1, Hits::Add(1), true, 0, false),
            (0, 0, Hits::Look, false, 0, false),
            (u32::MAX, MAX_HITS, Hits::Add(MAX_HITS), true, 0, false),
        ];
        for (limit, count, hits, over, remaining, near) in table {
            let expected = Standing { over, remaining, near };
            let tally = Tally::of_fixed(limit, count, hits, 1);
            assert_eq!(Standing::of(limit, &tally, 0.8), expected, "{count} of {limit}, {hits:?}");
        }
    }

    #[test]
    fn giving_back_stops_at_zero() {
        assert_eq!(Hits::GiveBack(5).applied_to(3), 0);
        assert_eq!(Hits::GiveBack(2).applied_to(3), 1);
    }

    #[test]
    fn a_step_back_of_the_clock_goes_on_counting_within_bounds() {
        assert!(still_counts(120, 120));
        assert!(still_counts(130, 120), "stepped back ten seconds");
        assert!(!still_counts(120, 180), "the window is over");
        assert_eq!((steady(130, 120), steady(120, 130)), (130, 130));
        assert_eq!(steady(1 + 61_000_000, 1), 1, "too far back to wait");
        assert!(!still_counts(120 + CLOCK_STEP_TOLERANCE_SECONDS + 1, 120), "not refused for good");
    }
}
