//! Where a rollout stands, and what moves it.
//!
//! ```text
//!                 hold over, enough samples, no doubt
//!             .----------------------------------------.
//!             v                                        |
//!  start -> progressing (step 0, 1, …) ----------------'-- last step over --> promoted (all)
//!             |  ^ \                                                            |
//!       pause v  | resume \                                                     | roll back
//!           paused --------'--- evidence, or by hand ---> rolled back (none) <--'
//!                                                              \--- restart ---> progressing (step 0)
//! ```
//!
//! The generation grows with each change; who has seen one believes no smaller one.

use serde::{Deserialize, Serialize};

use crate::analysis::{Analysis, Verdict};
use crate::plan::{Plan, Share};
use crate::window::Window;

/// What a rollout does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes from step to step.
    Progressing,
    /// It stays at its step until somebody resumes it; evidence rolls it back all the same.
    Paused,
    /// All requests go to the canary.
    Promoted,
    /// None do.
    RolledBack,
}

impl State {
    /// The word in telemetry and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Progressing => "progressing",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What somebody may want of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stay at this step.
    Pause,
    /// Go on; the step is held anew.
    Resume,
    /// Go to the next step now; from the last one to all requests.
    Promote,
    /// Give the canary all requests now.
    PromoteFully,
    /// Give it none.
    RollBack,
    /// Begin again at the first step, with nothing known.
    Restart,
}

impl Action {
    /// The word in the history.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::PromoteFully => "promote_fully",
            Self::RollBack => "roll_back",
            Self::Restart => "restart",
        }
    }
}

/// The one record of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was wanted.
    pub plan: Plan,
    /// What it does at the moment.
    pub state: State,
    /// Grows with each change.
    pub generation: u64,
    /// The step that it is at, from 0.
    pub step: usize,
    /// When that step began, in Unix milliseconds.
    pub step_began_ms: i64,
    /// Answers of the canary in this step.
    pub step_samples: u64,
    /// Why it is where it is.
    pub reason: String,
    /// When it was first heard of, in Unix milliseconds.
    pub started_ms: i64,
    /// When it last changed, in Unix milliseconds.
    pub changed_ms: i64,
    /// What is known about the canary.
    pub analysis: Analysis,
}

/// A change of a record, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done: a word of [`Action`], or `step`.
    pub action: &'static str,
    /// What the rollout did before.
    pub from: State,
    /// What it does now.
    pub to: State,
    /// The canary's share from now on.
    pub weight: Share,
    /// Why.
    pub reason: String,
}

/// Why an action cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {} cannot {}", state.as_str(), action.as_str())]
pub struct Refused {
    state: State,
    action: Action,
}

impl Record {
    /// A rollout that nobody has heard of before.
    pub fn new(plan: Plan, now_ms: i64) -> Self {
        Self {
            plan,
            state: State::Progressing,
            generation: 1,
            step: 0,
            step_began_ms: now_ms,
            step_samples: 0,
            reason: "the first proxy has reported".to_owned(),
            started_ms: now_ms,
            changed_ms: now_ms,
            analysis: Analysis::default(),
        }
    }

    /// The canary's share.
    pub fn weight(&self) -> Share {
        match self.state {
            State::Progressing | State::Paused => {
                self.plan.steps.get(self.step).map_or(Share::NONE, |step| step.weight)
            }
            State::Promoted => Share::ALL,
            State::RolledBack => Share::NONE,
        }
    }

    /// Takes what a proxy saw into account, and moves on or back if that is due.
    pub fn observe(&mut self, window: &Window, now_ms: i64) -> Option<Change> {
        // Once it is decided the figures stay those it was decided by.
        if !matches!(self.state, State::Progressing | State::Paused) {
            return None;
        }
        if !window.is_empty() {
            self.analysis.observe(&self.plan, window);
            self.step_samples = self.step_samples.saturating_add(window.canary.all());
        }
        match self.analysis.verdict(&self.plan) {
            Verdict::Bad(finding) => Some(self.change(
                Action::RollBack.as_str(),
                State::RolledBack,
                self.step,
                finding.text,
                now_ms,
            )),
            Verdict::Doubtful(_) => None,
            Verdict::Fine if self.state == State::Progressing && self.is_over(now_ms) => {
                let reason = format!("{} answers in {}", self.step_samples, self.held(now_ms));
                Some(self.advance("step", reason, now_ms))
            }
            Verdict::Fine => None,
        }
    }

    /// What keeps the rollout from its next step; none where nothing is to be waited for.
    pub fn waits_for(&self, now_ms: i64) -> Option<String> {
        match self.state {
            State::Promoted | State::RolledBack => return None,
            State::Paused => return Some("somebody to resume it".to_owned()),
            State::Progressing => {}
        }
        if let Verdict::Doubtful(finding) | Verdict::Bad(finding) = self.analysis.verdict(&self.plan) {
            return Some(format!("a doubt to go away: {}", finding.text));
        }
        let Some(hold) = self.plan.steps.get(self.step).and_then(|step| step.hold_ms) else {
            return Some("somebody to promote it".to_owned());
        };
        if self.step_samples < self.plan.min_samples {
            return Some(format!("{} answers of {}", self.plan.min_samples, self.plan.canary));
        }
        let left = hold.saturating_sub(self.held_ms(now_ms));
        (left > 0).then(|| format!("the end of the step, in {} s", left.div_ceil(1000)))
    }

    /// Does what somebody wants; none where it is so already.
    pub fn act(&mut self, action: Action, reason: String, now_ms: i64) -> Result<Option<Change>, Refused> {
        let refused = Refused { state: self.state, action };
        let open = matches!(self.state, State::Progressing | State::Paused);
        let to = match action {
            Action::Pause => State::Paused,
            Action::Resume => State::Progressing,
            Action::PromoteFully => State::Promoted,
            Action::RollBack => State::RolledBack,
            Action::Promote if open => return Ok(Some(self.advance(action.as_str(), reason, now_ms))),
            Action::Promote if self.state == State::Promoted => return Ok(None),
            Action::Promote => return Err(refused),
            Action::Restart => {
                self.analysis = Analysis::default();
                return Ok(Some(self.change(action.as_str(), State::Progressing, 0, reason, now_ms)));
            }
        };
        if to == self.state {
            return Ok(None);
        }
        // What is rolled back is not raised but from its beginning; what has all requests can only lose them.
        let gives_up = self.state == State::Promoted && action == Action::RollBack;
        if !open && !gives_up {
            return Err(refused);
        }
        Ok(Some(self.change(action.as_str(), to, self.step, reason, now_ms)))
    }

    fn is_over(&self, now_ms: i64) -> bool {
        let hold = self.plan.steps.get(self.step).and_then(|step| step.hold_ms);
        hold.is_some_and(|hold| self.held_ms(now_ms) >= hold) && self.step_samples >= self.plan.min_samples
    }

    /// Clocks of replicas differ, and may be set back.
    fn held_ms(&self, now_ms: i64) -> u64 {
        u64::try_from(now_ms.saturating_sub(self.step_began_ms)).unwrap_or(0)
    }

    fn held(&self, now_ms: i64) -> String {
        format!("{:.1} s", self.held_ms(now_ms) as f64 / 1000.0)
    }

    fn advance(&mut self, action: &'static str, reason: String, now_ms: i64) -> Change {
        let next = self.step + 1;
        if next < self.plan.steps.len() {
            self.change(action, self.state, next, reason, now_ms)
        } else {
            self.change(action, State::Promoted, self.step, reason, now_ms)
        }
    }

    fn change(
        &mut self,
        action: &'static str,
        to: State,
        step: usize,
        reason: String,
        now_ms: i64,
    ) -> Change {
        let from = std::mem::replace(&mut self.state, to);
        self.step = step;
        self.generation += 1;
        self.step_began_ms = now_ms;
        self.step_samples = 0;
        self.changed_ms = now_ms;
        self.reason.clone_from(&reason);
        Change { action, from, to, weight: self.weight(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;
    use crate::window::ArmCounts;

    fn window(baseline: (u64, u64), canary: (u64, u64)) -> Window {
        let arm = |(ok, failed)| ArmCounts { ok, failed, latency: Vec::new() };
        Window { baseline: arm(baseline), canary: arm(canary) }
    }

    fn good(canary: u64) -> Window {
        window((canary * 9, 0), (canary, 0))
    }

    #[test]
    fn a_step_ends_when_its_time_is_over_and_enough_was_seen() {
        let mut record = Record::new(plan(), 0);
        assert_eq!((record.weight().as_millionths(), record.generation), (100_000, 1));
        // Enough was seen, but not for long enough.
        assert_eq!(record.observe(&good(100), 59_999), None);
        assert_eq!(record.waits_for(59_000).as_deref(), Some("the end of the step, in 1 s"));
        let change = record.observe(&Window::default(), 60_000).unwrap();
        assert_eq!(
            (change.action, change.to, change.weight.as_millionths()),
            ("step", State::Progressing, 500_000)
        );
        // This step has no end of its own.
        assert_eq!(record.observe(&good(5_000), 10_000_000), None);
        assert_eq!(record.waits_for(10_000_000).as_deref(), Some("somebody to promote it"));
        let change = record.act(Action::Promote, "looks good".into(), 10_000_001).unwrap().unwrap();
        assert_eq!((change.to, change.weight), (State::Promoted, Share::ALL));
        assert_eq!(record.generation, 3);
        // Long enough, but too little seen.
        let mut record = Record::new(plan(), 0);
        assert_eq!(record.observe(&good(99), 600_000), None);
        assert_eq!(record.waits_for(600_000).as_deref(), Some("100 answers of v1-1"));
        assert!(record.observe(&good(1), 600_000).is_some());
    }

    #[test]
    fn a_bad_canary_is_rolled_back_paused_or_not_and_says_why() {
        for pause in [false, true] {
            let mut record = Record::new(plan(), 0);
            if pause {
                record.act(Action::Pause, String::new(), 1).unwrap().unwrap();
            }
            let change = (0..10).find_map(|n| record.observe(&window((900, 0), (95, 5)), n)).unwrap();
            assert_eq!((change.to, change.weight), (State::RolledBack, Share::NONE));
            assert!(
                change
                    .reason
                    .starts_with("the canary fails 5.00 % of its last requests, the baseline 0.00 %")
            );
            let figures = record.analysis.clone();
            // What comes late changes nothing.
            assert_eq!(record.observe(&good(1_000), 1_000_000), None);
            assert_eq!((record.weight(), record.analysis), (Share::NONE, figures));
        }
    }

    #[test]
    fn a_doubt_holds_a_step_and_goes_away() {
        let mut record = Record::new(plan(), 0);
        assert_eq!(record.observe(&good(1_000), 0), None);
        // Not enough to roll back, too much to go on.
        let mut worse = 0;
        while !matches!(record.analysis.verdict(&record.plan), Verdict::Doubtful(_)) {
            worse += 1;
            assert!(worse < 50 && record.observe(&window((90, 0), (9, 1)), 1).is_none());
        }
        assert_eq!(record.observe(&Window::default(), 60_000), None);
        assert!(record.waits_for(60_000).unwrap().starts_with("a doubt to go away: the canary fails"));
        let ended = (0..100).find_map(|n| record.observe(&good(100), 60_001 + n)).unwrap();
        assert_eq!(ended.action, "step");
    }

    #[test]
    fn what_somebody_wants_is_done_where_it_can_be() {
        use Action::{Pause, Promote, PromoteFully, Restart, Resume, RollBack};
        let path = |actions: &[Action]| {
            let mut record = Record::new(plan(), 0);
            let mut last = Ok(None);
            for action in actions {
                last = record.act(*action, "why".into(), 1);
            }
            (
                last.map(|change| change.is_some()).map_err(|refused| refused.to_string()),
                record.state,
                record.step,
            )
        };
        for (actions, done, state, step) in [
            (&[Pause][..], Ok(true), State::Paused, 0),
            (&[Pause, Pause], Ok(false), State::Paused, 0),
            (&[Pause, Promote], Ok(true), State::Paused, 1),
            (&[Pause, Resume], Ok(true), State::Progressing, 0),
            (&[Promote, Promote], Ok(true), State::Promoted, 1),
            (&[PromoteFully], Ok(true), State::Promoted, 0),
            (&[PromoteFully, Promote], Ok(false), State::Promoted, 0),
            (&[PromoteFully, RollBack], Ok(true), State::RolledBack, 0),
            (
                &[PromoteFully, Pause],
                Err("a rollout that is promoted cannot pause".into()),
                State::Promoted,
                0,
            ),
            (
                &[RollBack, Resume],
                Err("a rollout that is rolled_back cannot resume".into()),
                State::RolledBack,
                0,
            ),
            (
                &[RollBack, Promote],
                Err("a rollout that is rolled_back cannot promote".into()),
                State::RolledBack,
                0,
            ),
            (&[Promote, RollBack, Restart], Ok(true), State::Progressing, 0),
        ] {
            assert_eq!(path(actions), (done, state, step), "{actions:?}");
        }
    }

    #[test]
    fn a_record_reads_back_the_same() {
        let mut record = Record::new(plan(), 5);
        record.observe(&good(7), 6);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
