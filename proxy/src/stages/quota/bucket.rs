//! What one bucket of a divided limit lets pass. Pure: time goes in as nanoseconds of a clock that never steps.
//!
//! ```text
//! unassigned --assignment--> assigned --its life over--> unassigned
//! ```
//!
//! An assigned bucket starts full, and a replacement keeps the ratio of its filling, as Envoy's does: the service
//! reckons with exactly that. While there is no assignment a small bucket of the configuration's size decides.

/// What an assignment lets pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Strategy {
    AllowAll,
    DenyAll,
    Tokens { max: f64, per_second: f64 },
}

/// By what right a request passed, or was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Share,
    /// There is no assignment: what passes now comes on top of the limit.
    Nothing,
}

/// One bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    assigned: Option<Assigned>,
    /// Decides while nothing is assigned.
    alone: Tokens,
    usage: Usage,
    reported_ns: u64,
    pub(super) used_ns: u64,
}

#[derive(Debug)]
struct Assigned {
    strategy: Strategy,
    tokens: Tokens,
    expires_ns: u64,
}

/// Requests since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    /// Since the last report.
    pub(super) elapsed_ns: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    max: f64,
    per_second: f64,
    level: f64,
    at_ns: u64,
}

impl Tokens {
    pub(super) fn full(max: f64, per_second: f64, now_ns: u64) -> Self {
        Self { max, per_second, level: max, at_ns: now_ns }
    }

    fn advance(&mut self, now_ns: u64) {
        let seconds = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        self.level = (self.level + seconds * self.per_second).min(self.max);
        self.at_ns = self.at_ns.max(now_ns);
    }

    /// Takes one, or says after how many nanoseconds there is one.
    pub(super) fn take(&mut self, now_ns: u64) -> Result<(), u64> {
        self.advance(now_ns);
        // A hair below one is one: sums of fractions are not exact.
        if self.level >= 1.0 - 1e-9 {
            self.level -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.level) / self.per_second;
        Err(if seconds.is_finite() { (seconds * 1e9) as u64 } else { LONG_NS })
    }

    fn give_back(&mut self) {
        self.level = (self.level + 1.0).min(self.max);
    }
}

/// How long a refused client is told to wait where nothing is known to come.
const LONG_NS: u64 = 60_000_000_000;

impl Bucket {
    pub(super) fn new(unassigned_per_second: u32, now_ns: u64) -> Self {
        let alone = f64::from(unassigned_per_second);
        Self {
            assigned: None,
            alone: Tokens::full(alone, alone, now_ns),
            usage: Usage::default(),
            reported_ns: now_ns,
            used_ns: now_ns,
        }
    }

    /// Decides about a request, and counts it.
    pub(super) fn take(&mut self, now_ns: u64) -> (By, Result<(), u64>) {
        self.used_ns = now_ns;
        if self.assigned.as_ref().is_some_and(|assigned| assigned.expires_ns <= now_ns) {
            self.assigned = None;
        }
        let (by, taken) = match &mut self.assigned {
            Some(Assigned { strategy: Strategy::AllowAll, .. }) => (By::Share, Ok(())),
            Some(Assigned { strategy: Strategy::DenyAll, expires_ns, .. }) => {
                (By::Share, Err((*expires_ns - now_ns).min(LONG_NS)))
            }
            Some(assigned) => (By::Share, assigned.tokens.take(now_ns)),
            None => (By::Nothing, self.alone.take(now_ns)),
        };
        match taken {
            Ok(()) => self.usage.allowed += 1,
            Err(_) => self.usage.denied += 1,
        }
        (by, taken)
    }

    /// A request that passed here was refused elsewhere: it was wanted, and not admitted.
    pub(super) fn give_back(&mut self) {
        match &mut self.assigned {
            Some(assigned) => assigned.tokens.give_back(),
            None => self.alone.give_back(),
        }
        self.usage.allowed = self.usage.allowed.saturating_sub(1);
    }

    /// A new assignment, that lives so long.
    pub(super) fn assign(&mut self, strategy: Strategy, life_ns: u64, now_ns: u64) {
        let expires_ns = now_ns.saturating_add(life_ns);
        let (max, per_second) = match strategy {
            Strategy::Tokens { max, per_second } => (max, per_second),
            Strategy::AllowAll | Strategy::DenyAll => (0.0, 0.0),
        };
        let mut tokens = Tokens::full(max, per_second, now_ns);
        if let Some(before) = self.assigned.as_mut().filter(|before| before.expires_ns > now_ns) {
            before.tokens.advance(now_ns);
            if before.tokens.max > 0.0 {
                tokens.level = max * before.tokens.level / before.tokens.max;
            }
        }
        self.assigned = Some(Assigned { strategy, tokens, expires_ns });
    }

    /// The share is given back: nothing is left of it.
    pub(super) fn unassign(&mut self) {
        self.assigned = None;
    }

    /// What was not reported yet; from now on it is.
    pub(super) fn report(&mut self, now_ns: u64) -> Usage {
        let elapsed_ns = now_ns.saturating_sub(self.reported_ns);
        self.reported_ns = now_ns;
        Usage { elapsed_ns, ..std::mem::take(&mut self.usage) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn passed(bucket: &mut Bucket, now: u64, by: By) -> usize {
        let taken: Vec<_> = (0..100).map(|_| bucket.take(now)).collect();
        assert!(taken.iter().all(|(found, _)| *found == by), "{taken:?}");
        taken.iter().filter(|(_, taken)| taken.is_ok()).count()
    }

    #[test]
    fn an_assignment_holds_until_it_expires() {
        let mut bucket = Bucket::new(3, 0);
        assert_eq!(passed(&mut bucket, 0, By::Nothing), 3);
        assert_eq!(bucket.report(2 * SECOND), Usage { allowed: 3, denied: 97, elapsed_ns: 2 * SECOND });
        bucket.assign(Strategy::Tokens { max: 20.0, per_second: 10.0 }, 15 * SECOND, 2 * SECOND);
        assert_eq!(passed(&mut bucket, 2 * SECOND, By::Share), 20);
        assert_eq!(passed(&mut bucket, 3 * SECOND, By::Share), 10);
        assert_eq!(bucket.take(3 * SECOND), (By::Share, Err(SECOND / 10)));
        assert_eq!(passed(&mut bucket, 17 * SECOND - 1, By::Share), 20);
        assert_eq!(passed(&mut bucket, 17 * SECOND, By::Nothing), 3);
        // Time that seems to go back refills nothing.
        assert_eq!(passed(&mut bucket, 16 * SECOND, By::Nothing), 0);
    }

    #[test]
    fn a_replacement_keeps_the_ratio_and_a_first_one_is_full() {
        let mut bucket = Bucket::new(0, 0);
        bucket.assign(Strategy::Tokens { max: 20.0, per_second: 1.0 }, 15 * SECOND, 0);
        let taken = (0..15).filter(|_| bucket.take(0).1.is_ok()).count();
        assert_eq!(taken, 15);
        bucket.assign(Strategy::Tokens { max: 40.0, per_second: 1.0 }, 15 * SECOND, 0);
        assert_eq!(passed(&mut bucket, 0, By::Share), 10);
        bucket.assign(Strategy::DenyAll, SECOND, 0);
        assert_eq!(passed(&mut bucket, 0, By::Share), 0);
        bucket.assign(Strategy::AllowAll, SECOND, 0);
        assert_eq!(passed(&mut bucket, 0, By::Share), 100);
        bucket.unassign();
        assert_eq!(passed(&mut bucket, 0, By::Nothing), 0);
    }

    #[test]
    fn what_is_given_back_was_not_admitted() {
        let mut bucket = Bucket::new(0, 0);
        bucket.assign(Strategy::Tokens { max: 1.0, per_second: 0.0 }, SECOND, 0);
        assert_eq!(bucket.take(0).1, Ok(()));
        bucket.give_back();
        assert_eq!(bucket.take(0).1, Ok(()));
        assert_eq!(bucket.take(0).1, Err(LONG_NS));
        assert_eq!(bucket.report(0).allowed, 1);
    }

    #[test]
    fn never_more_than_rate_and_burst() {
        // However often it is replaced by the same.
        let mut bucket = Bucket::new(0, 0);
        let mut admitted = 0;
        for step in 0..10_000 {
            let now = step * SECOND / 1_000;
            if step % 7 == 0 {
                bucket.assign(Strategy::Tokens { max: 10.0, per_second: 40.0 }, 15 * SECOND, now);
            }
            admitted += usize::from(bucket.take(now).1.is_ok());
        }
        assert!((400..=410).contains(&admitted), "{admitted}");
    }
}
