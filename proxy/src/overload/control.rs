//! From the delay to the share of requests that is refused.
//!
//! When it begins is CoDel's rule (RFC 8289): the shortest delay of an interval, not its average, is above the target, so
//! that a burst or a pause of the machine refuses nobody. How far it goes is PIE's (RFC 8033): the share follows both how
//! far the delay is from the target and where it is going.
//!
//! The share is slow, so that it is even. What is quicker than it, a pause of the machine or the end of one, is the queue's:
//! of a long one as many are refused as may be, and of a short one nobody ([`Queue`]).

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
/// Requests that take so long are few enough for a guess.
const SLOW: Duration = Duration::from_millis(1);

/// How much waits, seen by who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Who comes begins almost at once: nobody is refused.
    Short,
    /// The share is refused.
    Right,
    /// More than the share would clear soon: as many are refused as may be.
    Long,
}

impl Queue {
    /// The one in which who comes now waits for `wait`, and a look at all that is ready took a `round`.
    pub(super) fn of(round: Duration, wait: Duration, target: Duration) -> Self {
        if wait > target * 3 {
            Self::Long
        } else if wait.max(round) < target / 2 {
            Self::Short
        } else {
            Self::Right
        }
    }
}

/// From one turn to the next: what it was `before`, corrected by who waited for the turns of so many. As many waiters are so
/// long a queue.
///
/// One pause of the machine is not how fast it is: it changes by a factor of two at most, once it is [`SLOW`].
pub(super) fn per_turn(before: Duration, waited: Duration, ahead: u32) -> Duration {
    match waited.checked_div(ahead) {
        None => before,
        Some(measured) => measured.clamp(before / 2, SLOW.max(before * 2)),
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

    /// The share from now on, at `most` so much: `delay` was the shortest over `period`, and what is waited for is `ours` or
    /// somebody else's work.
    pub(super) fn update(
        &mut self,
        delay: Duration,
        target: Duration,
        period: Duration,
        ours: bool,
        most: f64,
    ) -> f64 {
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
            self.ratio = (self.ratio + change).clamp(0.0, most);
        }
        self.error = error;
        self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OverloadConfig;
    use crate::overload::costs::{Costs, Work};

    const TARGET: Duration = OverloadConfig::TARGET_DELAY;
    const MILLI: Duration = Duration::from_millis(1);

    const MOST: f64 = 0.98;
    const BETWEEN_PROBES: Duration = MILLI.saturating_mul(5);

    /// A server that does one thing after the other, with clients that each wait for their answer, and a probe among them: it
    /// decides about all that have come, and then serves some of those that wait.
    struct Server {
        clients: u32,
        /// What a request takes that is served.
        served: Duration,
        refused: Duration,
        now: Duration,
        costs: Costs,
        control: Control,
        sum: f64,
        per_turn: Duration,
        round: Duration,
        delay: Duration,
    }

    impl Server {
        fn new(clients: u32, served: u64, refused: u64) -> Self {
            Self {
                clients,
                served: Duration::from_micros(served),
                refused: Duration::from_micros(refused),
                now: Duration::ZERO,
                costs: Costs::default(),
                control: Control::default(),
                sum: 0.0,
                per_turn: Duration::ZERO,
                round: Duration::ZERO,
                delay: Duration::ZERO,
            }
        }

        /// Lets `load` times what it can serve come for a while; says which part of what it can serve it served, and the
        /// longest and the last delay.
        fn run(&mut self, load: f64, time: Duration) -> (f64, Duration, Duration) {
            let (began, mut measured, mut longest, mut served) = (self.now, self.now, Duration::ZERO, 0);
            let (mut next, mut waiting) = (self.now, 0);
            let (mut idle, mut served_before, mut refused, mut refused_before) = (Duration::ZERO, 0, 0, 0);
            let (mut due, mut probe) = (self.now, None);
            let mut serves = 0;
            while self.now < began + time {
                if serves == 0 {
                    let (round, mut come) = (self.now, 0);
                    while next <= round && waiting + come < self.clients {
                        next += self.served.div_f64(load);
                        come += 1;
                    }
                    // Its clients come when they can.
                    next = next.max(round);
                    for _ in 0..come {
                        let overdue = self.now.saturating_sub(due);
                        if self.refuses(overdue.max(self.per_turn * waiting)) {
                            self.now += self.refused;
                            refused += 1;
                        } else {
                            waiting += 1;
                        }
                    }
                    serves = 1 + waiting / 8;
                }
                if due <= self.now && probe.is_none() {
                    probe = Some((self.now, waiting, waiting));
                    self.round = self.now - due;
                }
                if let Some((since, ahead, 0)) = probe {
                    self.delay = self.round.max(self.now - since);
                    self.per_turn = per_turn(self.per_turn, self.now - since, ahead);
                    longest = longest.max(self.delay);
                    (due, probe) = (self.now + BETWEEN_PROBES, None);
                    if self.now - measured >= STEP {
                        let used = (self.now - measured).saturating_sub(std::mem::take(&mut idle));
                        self.costs.update(Work {
                            used,
                            served: served - served_before,
                            refused: refused - refused_before,
                            of_refusal: (refused > refused_before).then_some(self.refused),
                        });
                        (served_before, refused_before) = (served, refused);
                        let most = self.costs.most();
                        self.control.update(self.delay, TARGET, self.now - measured, true, most);
                        measured = self.now;
                    }
                }
                if waiting == 0 {
                    let until = next.min(due).max(self.now);
                    idle += until - self.now;
                    self.now = until;
                    serves = 0;
                    continue;
                }
                (waiting, serves) = (waiting - 1, serves - 1);
                probe = probe.map(|(since, ahead, left)| (since, ahead, left - 1));
                self.now += self.served;
                served += 1;
            }
            (f64::from(served) * self.served.as_secs_f64() / time.as_secs_f64(), longest, self.delay)
        }

        fn refuses(&mut self, wait: Duration) -> bool {
            if self.control.ratio() == 0.0 {
                return false;
            }
            self.sum += match Queue::of(self.round, wait, TARGET) {
                Queue::Short => 0.0,
                Queue::Right => self.control.ratio(),
                Queue::Long => self.costs.most(),
            };
            let whole = self.sum.floor();
            self.sum -= whole;
            whole > 0.0
        }
    }

    #[test]
    fn at_any_load_most_of_what_can_be_served_is_and_the_queue_stays_short() {
        // All of the rest goes into refusals.
        for (load, least) in [(1.1, 0.98), (1.5, 0.94), (2.0, 0.88), (5.0, 0.55)] {
            let mut server = Server::new(4_000, 100, 10);
            server.run(load, Duration::from_secs(5));
            let (served, longest, _) = server.run(load, Duration::from_secs(5));
            assert!(served > least, "{served} at {load}");
            assert!(longest < TARGET * 3, "{longest:?} at {load}");
        }
    }

    #[test]
    fn clients_that_ask_again_at_once_take_half_of_the_time_with_it_at_most() {
        const AT_ONCE: f64 = 1e6;
        for (clients, served, refused) in
            [(400, 15, 12), (400, 40, 12), (400, 800, 42), (4_000, 100, 10), (4_000, 15, 12)]
        {
            let mut server = Server::new(clients, served, refused);
            server.run(0.5, Duration::from_secs(1));
            server.run(AT_ONCE, Duration::from_secs(3));
            let (part, ..) = server.run(AT_ONCE, Duration::from_secs(5));
            assert!(part > 0.45, "{part} of {clients} clients, {served} and {refused} us");
        }
    }

    #[test]
    fn requests_that_become_dearer_or_cheaper_meanwhile_do_not_make_the_queue_long() {
        for (before, after, load, least) in
            [(100_u32, 300_u32, 1.5, 0.6), (300, 100, 4.5, 0.77), (100, 200, 1.6, 0.6)]
        {
            let mut server = Server::new(4_000, before.into(), 30);
            server.run(0.5, Duration::from_secs(1));
            server.run(load, Duration::from_secs(5));
            server.served = Duration::from_micros(after.into());
            let load = load * f64::from(after) / f64::from(before);
            server.run(load, Duration::from_secs(3));
            let (served, longest, _) = server.run(load, Duration::from_secs(5));
            assert!(served > least, "{served} from {before} to {after} us");
            assert!(longest < TARGET * 3, "{longest:?} from {before} to {after} us");
        }
    }

    #[test]
    fn how_long_a_turn_takes_is_what_those_who_waited_found_and_no_pause_makes_much_of_it() {
        assert_eq!(per_turn(Duration::ZERO, MILLI * 6, 10), MILLI.mul_f64(0.6));
        assert_eq!(per_turn(Duration::ZERO, MILLI * 900, 1), MILLI);
        assert_eq!(per_turn(MILLI * 2, MILLI * 9, 3), MILLI * 3);
        assert_eq!(per_turn(MILLI * 2, MILLI * 900, 3), MILLI * 4);
        assert_eq!(per_turn(MILLI * 2, MILLI, 100), MILLI);
        assert_eq!(per_turn(MILLI * 2, MILLI * 9, 0), MILLI * 2);
    }

    #[test]
    fn when_the_load_is_gone_nobody_is_refused_any_more() {
        let mut server = Server::new(4_000, 100, 10);
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
                assert_eq!(control.update(TARGET * 10, TARGET, STEP, true, MOST), 0.0);
            }
            assert_eq!(control.update(MILLI, TARGET, STEP, true, MOST), 0.0);
            let pause = Duration::from_millis(700);
            assert_eq!(control.update(pause, TARGET, pause, true, MOST), 0.0);
            assert_eq!(control.update(MILLI, TARGET, STEP, true, MOST), 0.0);
        }
    }

    #[test]
    fn one_is_always_let_in() {
        let mut control = Control::default();
        for _ in 0..10_000 {
            control.update(Duration::from_secs(10), TARGET, STEP, true, MOST);
        }
        assert!(control.ratio() <= MOST);
        // When it turns out that others are what is waited for, it ends.
        for _ in 0..1_000 {
            control.update(Duration::from_secs(10), TARGET, STEP, false, MOST);
        }
        assert_eq!(control.ratio(), 0.0);
    }
}
