//! The story of a canary that fails: its rollout is begun anew, watched until it is rolled back, and begun anew again.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::Value;
use tollgate_authz::store::{ActTerms, Authorship, Store};
use tollgate_rollout::Action;

use super::Told;
use super::stage::{Answer, Stage, until};
use crate::demo::behaviour::Wanted;

/// The rollout's namespace and name.
const ROLLOUT: (&str, &str) = ("insurance", "policies-1-1");
/// Who says so takes part in it.
const HEADER: (&str, &str) = ("x-rollout", "true");
/// Each subject has a limit of its own, which this stays below.
const SUBJECTS: [&str; 3] = ["reader", "editor", "adjuster"];
const PAUSE: Duration = Duration::from_millis(80);
const PATIENCE: Duration = Duration::from_secs(30);
/// What comes after the roll-back, from each subject.
const AFTER: usize = 10;

/// What was seen until it was rolled back, if it was, and after that.
struct Seen {
    asked: usize,
    failed: usize,
    took: Duration,
    rolled_back: Option<Value>,
    /// By the old version, and by anything else.
    after: (usize, usize),
}

pub(super) async fn tell(stage: &Stage, store: &Store) -> anyhow::Result<Told> {
    let broken = Wanted { fails_every: Some(2), ..Wanted::default() };
    let well = Wanted { fails_every: Some(0), ..Wanted::default() };
    begin_anew(stage, store).await?;
    stage.behave(stage.map.canary, broken).await?;
    let seen = fail(stage).await;
    stage.behave(stage.map.canary, well).await?;
    let kept = store.rollout(ROLLOUT.0, ROLLOUT.1).await?.context("the rollout is gone")?.record;
    begin_anew(stage, store).await?;
    let seen = seen?;
    let (baseline, canary) = (kept.analysis.baseline, kept.analysis.canary);
    let outcome = match &seen.rolled_back {
        Some(_) => format!(
            "rolled back after {} requests in {:.1} s: {}",
            seen.asked,
            seen.took.as_secs_f64(),
            kept.reason
        ),
        None => format!("not rolled back by {} requests", seen.asked),
    };
    let (old, other) = seen.after;
    Ok(Told {
        did: format!(
            "made every second request of 1.1 fail, which gets 30 % of what says `{}: {}`",
            HEADER.0, HEADER.1
        ),
        expected: "the rollout is rolled back by itself, and 1.1 gets nothing any more",
        saw: format!(
            "{outcome} ({} of {} failed by 1.1, {} of {} by 1.0, {} seen by clients); then {old} of {} answered by 1.0; \
             begun anew",
            canary.failed,
            canary.all(),
            baseline.failed,
            baseline.all(),
            seen.failed,
            old + other
        ),
        seen: seen.rolled_back.is_some()
            && canary.failed > 0
            && baseline.failed == 0
            && old > 0
            && other == 0,
    })
}

/// Begins the rollout again, wherever an earlier story left it, and waits until the ingress follows.
async fn begin_anew(stage: &Stage, store: &Store) -> anyhow::Result<()> {
    // The ingress makes it when it first reports.
    let made = async || store.rollout(ROLLOUT.0, ROLLOUT.1).await.ok().flatten();
    until(PATIENCE, made).await.with_context(|| format!("no rollout {}/{}", ROLLOUT.0, ROLLOUT.1))?;
    let by = Authorship::new("tollgate demo", "the demo begins anew");
    let acted = store.act_on_rollout(ROLLOUT, Action::Restart, ActTerms::default(), &by).await?;
    let generation = acted.rollout.record.generation;
    let follows = async || rollout(stage).await.filter(|one| one["generation"].as_u64() >= Some(generation));
    until(PATIENCE, follows).await.context("the ingress does not follow its rollout")?;
    Ok(())
}

/// Sends requests until the rollout is rolled back, and some after that.
async fn fail(stage: &Stage) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let mut seen = Seen { asked: 0, failed: 0, took: Duration::ZERO, rolled_back: None, after: (0, 0) };
    while seen.rolled_back.is_none() && began.elapsed() < PATIENCE {
        for answer in round(stage).await? {
            seen.asked += 1;
            seen.failed += usize::from(!answer.is_ok());
        }
        seen.rolled_back = rollout(stage).await.filter(|one| one["state"] == "rolled_back");
    }
    seen.took = began.elapsed();
    for _ in 0..AFTER {
        for answer in round(stage).await? {
            let count = if answer.version() == "1.0" { &mut seen.after.0 } else { &mut seen.after.1 };
            *count += 1;
        }
    }
    Ok(seen)
}

/// A request of each subject.
async fn round(stage: &Stage) -> anyhow::Result<Vec<Answer>> {
    let answers = join_all(SUBJECTS.map(|subject| stage.enter(subject, &[HEADER]))).await;
    tokio::time::sleep(PAUSE).await;
    answers.into_iter().collect()
}

/// The rollout as the ingress has it.
async fn rollout(stage: &Stage) -> Option<Value> {
    let status = stage.status("ingress").await.ok()?;
    let mut all = status["rollouts"].as_array()?.iter();
    all.find(|one| one["name"] == ROLLOUT.1).cloned()
}
