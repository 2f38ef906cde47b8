//! From the delay to the share of requests that is refused.
//!
//! When it begins is CoDel's rule (RFC 8289): the shortest delay of an interval, not its average, is above the target, so
//! that a burst or a pause of the machine refuses nobody. How far it goes is PIE's (RFC 8033): the share follows both how
//! far the delay is from the target and where it is going.
//!
//! The share is slow, so that it is even. What is quicker than it, a pause of the machine or the end of one, is the queue's:
//! a long one is refused as a whole, and of a short one nobody ([`Queue`]).

use std::time::Duration;

/// The delay is above the target for so long before anything is refused.
const INTERVAL: Duration = Duration::from_millis(200);
/// The gains are for steps of this length.
const STEP: Duration = Duration::from_millis(20);
/// A longer one counts as this.
const LONGEST: Duration = Duration::from_millis(60);
/// What a target's length of delay adds to the share in a step.
const INTEGRAL: f64 = 0.01;
/// What a target's length of change adds.
const PROPORTIONAL: f64 = 0.05;
/// Farther from the target than so many targets is all the same: a longer queue is [`Queue::Long`].
const FARTHEST: f64 = 2.0;
/// Somebody is always served: otherwise nothing would be learned.
const MOST: f64 = 0.98;

/// How much waits, seen by who comes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// The processor is about to have nothing to do: nobody is refused.
    Short,
    /// The share is refused.
    Right,
    /// More than the share would clear soon: everybody is refused until the probe has come round.
    Long,
}

impl Queue {
    /// The one in which the last probe has waited for `last`, and the one under way waits for `overdue`.
    pub(super) fn of(last: Duration, overdue: Duration, target: Duration) -> Self {
        if overdue > target * 3 {
            Self::Long
        } else if last.max(overdue) < target / 2 {
            Self::Short
        } else {
            Self::Right
        }
    }
}

/// The share, and what it follows.
#[derive(Debug, Default)]
pub(super) struct Control {
    ratio: f64,
    error: f64,
    above_for: Duration,
}

impl Control {
    /// The share now, from 0 to 1.
    pub(super) fn ratio(&self) -> f64 {
        self.ratio
    }

    /// The share from now on: `delay` was the shortest over `period`, and what is waited for is `ours` or somebody else's work.
    pub(super) fn update(&mut self, delay: Duration, target: Duration, period: Duration, ours: bool) -> f64 {
        if delay > target && ours {
            // However long it was, one measurement is not many: it may have been a pause of the machine.
            self.above_for += period.min(LONGEST);
        } else if self.ratio == 0.0 {
            self.above_for = Duration::ZERO;
        }
        let error = (delay.as_secs_f64() / target.as_secs_f64() - 1.0).min(FARTHEST);
        if self.above_for >= INTERVAL {
            let steps = period.min(LONGEST).as_secs_f64() / STEP.as_secs_f64();
            let change = PROPORTIONAL * (error - self.error) + INTEGRAL * error * steps;
            let change = if ours { change } else { change.min(-INTEGRAL) };
            self.ratio = (self.ratio + change).clamp(0.0, MOST);
        }
        self.error = error;
        self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OverloadConfig;

    const TARGET: Duration = OverloadConfig::TARGET_DELAY;
    const MILLI: Duration = Duration::from_millis(1);

    /// What a request takes that is served.
    const SERVED: Duration = Duration::from_micros(100);
    const REFUSED: Duration = Duration::from_micros(10);
    const CLIENTS: usize = 4_000;
    const BETWEEN_PROBES: Duration = MILLI.saturating_mul(5);

    /// A server that does one thing after the other, with clients that each wait for their answer, and a probe among them.
    #[derive(Default)]
    struct Server {
        now: Duration,
        control: Control,
        sum: f64,
        delay: Duration,
    }

    impl Server {
        /// Lets `load` times what it can serve come for a while; says which part of what it can serve it served, and the
        /// longest and the last delay.
        fn run(&mut self, load: f64, time: Duration) -> (f64, Duration, Duration) {
            let (began, mut measured, mut longest, mut served) = (self.now, self.now, Duration::ZERO, 0);
            let (mut next, mut waiting) = (self.now, 0);
            let (mut due, mut before_probe) = (self.now, None);
            while self.now < began + time {
                while next <= self.now && waiting < CLIENTS {
                    waiting += 1;
                    next += SERVED.div_f64(load);
                }
                // Its clients come when they can.
                next = next.max(self.now);
                if due <= self.now && before_probe.is_none() {
                    before_probe = Some(waiting);
                }
                if before_probe == Some(0) {
                    self.delay = self.now - due;
                    longest = longest.max(self.delay);
                    (due, before_probe) = (self.now + BETWEEN_PROBES, None);
                    if self.now - measured >= STEP {
                        self.control.update(self.delay, TARGET, self.now - measured, true);
                        measured = self.now;
                    }
                }
                if waiting == 0 {
                    self.now = next.min(due);
                    continue;
                }
                waiting -= 1;
                before_probe = before_probe.map(|before| before - 1);
                if self.refuses(due) {
                    self.now += REFUSED;
                } else {
                    self.now += SERVED;
                    served += 1;
                }
            }
            (f64::from(served) * SERVED.as_secs_f64() / time.as_secs_f64(), longest, self.delay)
        }

        fn refuses(&mut self, due: Duration) -> bool {
            if self.control.ratio() == 0.0 {
                return false;
            }
            match Queue::of(self.delay, self.now.saturating_sub(due), TARGET) {
                Queue::Short => false,
                Queue::Long => true,
                Queue::Right => {
                    self.sum += self.control.ratio();
                    let whole = self.sum.floor();
                    self.sum -= whole;
                    whole > 0.0
                }
            }
        }
    }

    #[test]
    fn at_any_load_most_of_what_can_be_served_is_and_the_queue_stays_short() {
        // All of the rest goes into refusals.
        for (load, least) in [(1.1, 0.98), (1.5, 0.94), (2.0, 0.88), (5.0, 0.55)] {
            let mut server = Server::default();
            server.run(load, Duration::from_secs(3));
            let (served, longest, _) = server.run(load, Duration::from_secs(5));
            assert!(served > least, "{served} at {load}");
            assert!(longest < TARGET * 3, "{longest:?} at {load}");
        }
    }

    #[test]
    fn when_the_load_is_gone_nobody_is_refused_any_more() {
        let mut server = Server::default();
        server.run(3.0, Duration::from_secs(3));
        assert!(server.control.ratio() > 0.5);
        server.run(0.5, Duration::from_secs(2));
        assert_eq!(server.control.ratio(), 0.0);
        let (served, _, last) = server.run(0.9, Duration::from_secs(1));
        assert!(served > 0.89 && last < MILLI * 2, "{served} {last:?}");
    }

    #[test]
    fn a_burst_and_a_pause_of_the_machine_refuse_nobody() {
        let mut control = Control::default();
        for _ in 0..100 {
            for _ in 0..8 {
                assert_eq!(control.update(TARGET * 10, TARGET, STEP, true), 0.0);
            }
            assert_eq!(control.update(MILLI, TARGET, STEP, true), 0.0);
            let pause = Duration::from_millis(700);
            assert_eq!(control.update(pause, TARGET, pause, true), 0.0);
            assert_eq!(control.update(MILLI, TARGET, STEP, true), 0.0);
        }
    }

    #[test]
    fn one_is_always_let_in() {
        let mut control = Control::default();
        for _ in 0..10_000 {
            control.update(Duration::from_secs(10), TARGET, STEP, true);
        }
        assert!(control.ratio() <= MOST);
        // When it turns out that others are what is waited for, it ends.
        for _ in 0..1_000 {
            control.update(Duration::from_secs(10), TARGET, STEP, false);
        }
        assert_eq!(control.ratio(), 0.0);
    }
}
