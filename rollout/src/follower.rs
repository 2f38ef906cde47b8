//! What a proxy makes of a rollout: it follows the record while it hears of it, and alone it may only lower.
//!
//! * Before it has heard anything the canary gets nothing.
//! * An answer of a smaller generation than the last, or one that took too long, is old: it may lower, never raise.
//! * Without an answer for `alone_after` the proxy is cut off: it keeps the share it has, and its own counts, by the same
//!   test as the record's, may bring it to none. The next answer in time takes over again.

use std::time::Duration;

use crate::analysis::{Analysis, Finding, Verdict};
use crate::plan::{Plan, Share};
use crate::record::State;
use crate::window::Window;

/// What the authorization service says about a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The record's generation.
    pub generation: u64,
    /// What the rollout does.
    pub state: State,
    /// Its step.
    pub step: usize,
    /// The canary's share.
    pub weight: Share,
}

/// One proxy's part in a rollout. Times are of one clock of the proxy's that never goes back.
#[derive(Debug, Clone)]
pub struct Follower {
    plan: Plan,
    alone_after: Duration,
    known: Option<Told>,
    /// When that which is known was asked for.
    known_at: Duration,
    weight: Share,
    /// What this proxy alone has seen.
    own: Analysis,
    stopped: Option<Finding>,
}

impl Follower {
    /// Knows nothing yet.
    pub fn new(plan: Plan, alone_after: Duration) -> Self {
        Self {
            plan,
            alone_after,
            known: None,
            known_at: Duration::ZERO,
            weight: Share::NONE,
            own: Analysis::default(),
            stopped: None,
        }
    }

    /// The canary's share.
    pub fn weight(&self) -> Share {
        self.weight
    }

    /// What was last believed of the record.
    pub fn known(&self) -> Option<&Told> {
        self.known.as_ref()
    }

    /// Why this proxy has stopped the canary by itself, if it has.
    pub fn stopped(&self) -> Option<&Finding> {
        self.stopped.as_ref()
    }

    /// Whether nothing was heard for too long.
    pub fn is_alone(&self, now: Duration) -> bool {
        self.known.is_none() || now.saturating_sub(self.known_at) > self.alone_after
    }

    /// An answer to what was asked at `asked`. Answers whether it is believed.
    pub fn hear(&mut self, told: Told, asked: Duration, now: Duration) -> bool {
        let is_older = self.known.is_some_and(|known| told.generation < known.generation);
        if is_older || now.saturating_sub(asked) > self.alone_after || asked < self.known_at {
            self.weight = self.weight.min(told.weight);
            return false;
        }
        // Begun again: what was seen of the attempt before is not held against this one.
        let is_new = self.known.is_none_or(|known| told.generation != known.generation);
        if is_new && told.state == State::Progressing && told.step == 0 {
            self.own = Analysis::default();
        }
        self.known = Some(told);
        self.known_at = asked;
        self.weight = told.weight;
        self.stopped = None;
        true
    }

    /// What this proxy saw itself. Answers why it stops the canary, if it does so now.
    pub fn observe(&mut self, window: &Window, now: Duration) -> Option<&Finding> {
        self.own.observe(&self.plan, window);
        if !self.is_alone(now) || self.weight == Share::NONE || self.stopped.is_some() {
            return None;
        }
        let Verdict::Bad(finding) = self.own.verdict(&self.plan) else { return None };
        self.weight = Share::NONE;
        self.stopped = Some(finding);
        self.stopped.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::tests::plan;
    use crate::window::ArmCounts;

    const ALONE_AFTER: Duration = Duration::from_secs(10);

    fn told(generation: u64, percent: u32) -> Told {
        let state = if percent == 0 { State::RolledBack } else { State::Progressing };
        Told { generation, state, step: 1, weight: Share::millionths(percent * 10_000) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn bad() -> Window {
        let arm = |ok, failed| ArmCounts { ok, failed, latency: Vec::new() };
        Window { baseline: arm(900, 0), canary: arm(80, 20) }
    }

    #[test]
    fn what_nobody_has_said_gets_nothing() {
        let follower = Follower::new(plan(), ALONE_AFTER);
        assert_eq!(follower.weight(), Share::NONE);
        assert!(follower.is_alone(Duration::ZERO));
    }

    #[test]
    fn an_old_answer_may_lower_and_never_raise() {
        let mut follower = Follower::new(plan(), ALONE_AFTER);
        assert!(follower.hear(told(5, 10), seconds(0), seconds(1)));
        assert!(!follower.hear(told(4, 50), seconds(2), seconds(3)));
        assert_eq!(follower.weight(), told(0, 10).weight);
        assert!(!follower.hear(told(4, 1), seconds(4), seconds(5)));
        assert_eq!(follower.weight(), told(0, 1).weight);
        assert!(follower.hear(told(5, 10), seconds(6), seconds(7)));
        // One that was under way for longer than a proxy waits to be alone.
        assert!(!follower.hear(told(6, 50), seconds(8), seconds(19)));
        assert_eq!(follower.weight(), told(0, 10).weight);
        assert!(follower.hear(told(6, 50), seconds(20), seconds(21)));
        assert_eq!(follower.weight(), told(0, 50).weight);
    }

    #[test]
    fn alone_its_own_counts_stop_the_canary_until_the_record_is_heard_again() {
        let mut follower = Follower::new(plan(), ALONE_AFTER);
        follower.hear(told(2, 10), seconds(0), seconds(0));
        // While it hears of the record it leaves the judgement to it.
        assert_eq!(follower.observe(&bad(), seconds(5)), None);
        assert_eq!(follower.weight(), told(0, 10).weight);
        assert!(!follower.is_alone(seconds(10)) && follower.is_alone(seconds(11)));
        let finding = follower.observe(&bad(), seconds(11)).unwrap();
        assert_eq!(finding.cause, "failures");
        assert_eq!(follower.weight(), Share::NONE);
        assert_eq!(follower.observe(&bad(), seconds(12)), None);
        assert!(follower.hear(told(2, 10), seconds(13), seconds(13)));
        assert_eq!((follower.weight(), follower.stopped()), (told(0, 10).weight, None));
    }

    proptest! {
        /// Whatever comes in whatever order: the share grows by nothing but an answer in time of no older generation.
        #[test]
        fn nothing_but_news_raises(events in prop::collection::vec(
            (0_u64..6, 0_u32..100, 0_u64..30, 0_u64..20, any::<bool>()), 1..60)) {
            let mut follower = Follower::new(plan(), ALONE_AFTER);
            let (mut now, mut newest) = (0, 0);
            for (generation, percent, later, took, hears) in events {
                now += later;
                let before = follower.weight();
                if hears {
                    let asked = now;
                    now += took;
                    let believed = follower.hear(told(generation, percent), seconds(asked), seconds(now));
                    let is_news = generation >= newest && took <= 10;
                    prop_assert_eq!(believed, is_news);
                    if believed {
                        newest = generation;
                    } else {
                        prop_assert!(follower.weight() <= before);
                    }
                } else {
                    follower.observe(&bad(), seconds(now));
                    prop_assert!(follower.weight() <= before);
                }
            }
        }
    }
}
