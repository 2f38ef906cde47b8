//! From the delay to the share of requests that is refused.
//!
//! When it begins is CoDel's rule (RFC 8289): the shortest delay of an interval, not its average, is above the target, so
//! that a burst or a pause of the machine refuses nobody. How far it goes is PIE's (RFC 8033): the share follows both how
//! far the delay is from the target and where it is going.

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
/// Delays beyond so many targets are all the same.
const FARTHEST: f64 = 4.0;
/// Somebody is always served: otherwise nothing would be learned.
const MOST: f64 = 0.98;

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

    const TARGET: Duration = Duration::from_millis(5);
    const MILLI: Duration = Duration::from_millis(1);

    /// A server that can do 100 requests in a millisecond and refuse 1,000, with 4,000 clients that each wait for their answer.
    #[derive(Default)]
    struct Server {
        waiting: f64,
        served: f64,
        control: Control,
    }

    impl Server {
        /// Lets `load` times what it can serve come for a while; says which part of what it can serve it served, and the
        /// longest and the last delay.
        fn run(&mut self, load: f64, time: Duration) -> (f64, Duration, Duration) {
            let (mut longest, mut last) = (Duration::ZERO, Duration::ZERO);
            let (mut passed, mut of_period) = (Duration::ZERO, Duration::ZERO);
            self.served = 0.0;
            while passed < time {
                let ratio = self.control.ratio();
                let can = 100.0 / (1.0 - ratio + ratio * 0.1);
                self.waiting = (self.waiting + load * 100.0).min(4_000.0);
                let done = self.waiting.min(can);
                self.waiting -= done;
                self.served += done * (1.0 - ratio);
                passed += MILLI;
                of_period += MILLI;
                last = MILLI.mul_f64(self.waiting / can);
                // It is known when the probe has waited for it.
                if of_period >= (STEP).max(last * 2) {
                    self.control.update(last, TARGET, of_period, true);
                    longest = longest.max(last);
                    of_period = Duration::ZERO;
                }
            }
            (self.served / (100.0 * time.as_secs_f64() * 1e3), longest, last)
        }
    }

    #[test]
    fn at_any_load_most_of_what_can_be_served_is_and_the_queue_stays_short() {
        for (load, least) in [(1.1, 0.95), (1.5, 0.9), (2.0, 0.85), (5.0, 0.5)] {
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
        server.run(0.5, Duration::from_secs(5));
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
