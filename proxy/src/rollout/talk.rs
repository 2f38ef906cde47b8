//! Telling the authorization service what was counted, and doing as it says.
//!
//! One task a rollout. Each window is closed within one share of the canary, since versions are compared within a
//! window: it ends when the share changes, and otherwise with the interval, later where one version had no requests.
//! A window that is not answered is sent again as it is, and those after it wait. What was counted last is told before the
//! proxy ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_identity::tls::GrpcChannel;
use tollgate_proto::rollout::rollouts_client::RolloutsClient;
use tollgate_proto::rollout::{self as wire, ReportRequest, RolloutReport, Standing};
use tollgate_rollout::{ArmCounts, Plan, Share, State, Told, Window};

use super::Inner;
use super::waiting::Waiting;

/// Intervals after which a window ends though one version had no requests in it.
const LONGEST: u32 = 5;
/// How long an answer may take at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last reports wait for one another, unless they have a reason to come sooner.
const AGAIN: Duration = Duration::from_millis(500);
/// How often it is tried to tell the last of it.
const LAST_TRIES: u32 = 3;

pub(super) struct Talk {
    inner: Arc<Inner>,
    channel: GrpcChannel,
    ending: CancellationToken,
    /// By which the service knows this proxy, this time it runs.
    name: String,
    /// What was counted since the last window ended.
    open: Window,
    /// The canary's share since then.
    share: Share,
    /// Intervals since then.
    ticks: u32,
    waiting: Waiting,
    /// Whether the last thing said in the log was that nobody answers.
    complained: bool,
}

impl Talk {
    pub(super) fn new(inner: Arc<Inner>, channel: GrpcChannel, ending: CancellationToken) -> Self {
        let name = format!("{}-{}", inner.reporter.service.telemetry().name(), uuid::Uuid::new_v4());
        Self {
            inner,
            channel,
            ending,
            name,
            open: Window::default(),
            share: Share::NONE,
            ticks: 0,
            waiting: Waiting::default(),
            complained: false,
        }
    }

    /// Talks until the proxy stops or the configuration has no more use for it.
    pub(super) async fn run(mut self) {
        let stopping = self.inner.reporter.service.tasks().stopping();
        let ending = self.ending.clone();
        let talking = async {
            loop {
                self.count();
                self.tell().await;
                // Proxies that began together shall not all report at once for ever.
                tokio::time::sleep(self.inner.config.report_interval.mul_f64(rand::random_range(0.9..1.1)))
                    .await;
            }
        };
        let is_stopping = tokio::select! {
            () = stopping.wait() => true,
            // No request knows of it any more.
            () = ending.cancelled_owned() => false,
            () = talking => false,
        };
        self.tell_the_rest(is_stopping).await;
    }

    /// Tells what was counted since the last report, and until no request can come any more and those under way have
    /// ended: nobody else ever would. A proxy that stops still hears who is connected, and whoever has been let in may
    /// not have come as far as a version. Not only once all have ended: one that does not is cut off with the proxy, and
    /// this with it. A report that failed or was cut off is sent again as it is; the service counts each window once.
    async fn tell_the_rest(&mut self, is_stopping: bool) {
        let inner = Arc::clone(&self.inner);
        let doors = &inner.reporter.doors;
        let mut tries = 0;
        loop {
            // In this order, and before what was counted is taken: what is seen to have ended is in it.
            let is_closed = !is_stopping || doors.is_empty();
            let is_over = is_closed && inner.under_way.load(Ordering::Acquire) == 0;
            self.take();
            self.end_window();
            if !self.waiting.is_empty() {
                self.tell().await;
            }
            if is_over {
                tries += 1;
                if self.waiting.is_empty() || tries == LAST_TRIES {
                    return;
                }
            }
            tokio::select! {
                () = inner.quiet.notified(), if !is_over => {}
                () = doors.wait(), if !is_closed => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }

    fn take(&mut self) {
        self.open.add(&self.inner.counts.take());
    }

    /// Takes what was counted, and ends the window if it is time.
    fn count(&mut self) {
        self.take();
        self.ticks += 1;
        let has_both = self.open.baseline.all() > 0 && self.open.canary.all() > 0;
        if has_both || self.ticks >= LONGEST {
            self.end_window();
        }
        self.look_alone();
    }

    fn end_window(&mut self) {
        self.ticks = 0;
        let (share, window) = (self.share, std::mem::take(&mut self.open));
        if window.is_empty() {
            return;
        }
        let now = self.now();
        let stopped = self.inner.follower.lock().observe(&window, now).map(|finding| finding.text.clone());
        if let Some(why) = stopped {
            let (rollout, service) = (&self.inner.plan.name, &self.inner.plan.service);
            tracing::warn!(
                rollout,
                service,
                why,
                "cut off from the rollout's record, this proxy stops its canary: {why}"
            );
            self.follow();
        }
        if let Some(lost) = self.waiting.push(share, window) {
            let (rollout, service) = (&self.inner.plan.name, &self.inner.plan.service);
            let requests = lost.baseline.all().saturating_add(lost.canary.all());
            tracing::warn!(
                rollout,
                service,
                requests,
                "a rollout's counts of {requests} requests are lost: nobody has heard them for too long"
            );
        }
    }

    /// Requests go by the follower's share from now on.
    fn follow(&mut self) {
        let weight = self.inner.follower.lock().weight();
        let before = self.inner.share.swap(weight.as_millionths(), Ordering::Relaxed);
        self.inner.reporter.metrics.rollout_weight(&self.inner.plan, weight);
        if before == weight.as_millionths() {
            return;
        }
        let known = self.inner.follower.lock().known().copied();
        let (rollout, service) = (&self.inner.plan.name, &self.inner.plan.service);
        let (canary, state) = (&self.inner.plan.canary, known.map_or("unknown", |told| told.state.as_str()));
        let generation = known.map_or(0, |told| told.generation);
        let before = Share::millionths(before);
        tracing::info!(
            rollout,
            service,
            canary,
            state,
            generation,
            "{canary} gets {weight} of the requests instead of {before}"
        );
        // What was counted belongs to the share before.
        self.take();
        self.end_window();
        self.share = weight;
    }

    /// Tells all that waits, or asks where the rollout stands, until nothing waits or nobody answers.
    async fn tell(&mut self) {
        loop {
            let (sequence, window) = self.waiting.first().unwrap_or_default();
            let asked = self.now();
            let answered = self.report(sequence, window).await;
            let was_heard = match answered {
                Ok(standing) => self.hear(&standing, asked),
                Err(problem) => {
                    self.complain(&problem);
                    false
                }
            };
            if !was_heard {
                self.look_alone();
                return;
            }
            self.waiting.was_told(sequence);
            if self.waiting.is_empty() {
                return;
            }
        }
    }

    async fn report(&self, sequence: u64, window: Window) -> Result<Standing, String> {
        let told = RolloutReport {
            plan: Some(plan_of(&self.inner.plan)),
            sequence,
            window: Some(wire::Window { baseline: arm(window.baseline), canary: arm(window.canary) }),
        };
        let request = ReportRequest { proxy: self.name.clone(), rollouts: vec![told] };
        let mut client = RolloutsClient::new(self.channel.channel());
        let patience = PATIENCE.min(self.inner.config.alone_after);
        match tokio::time::timeout(patience, client.report(request)).await {
            Ok(Ok(answer)) => {
                let standing = answer.into_inner().rollouts.pop().ok_or("the answer is empty")?;
                if standing.refused.is_empty() { Ok(standing) } else { Err(standing.refused) }
            }
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Answers whether it was an answer at all.
    fn hear(&mut self, standing: &Standing, asked: Duration) -> bool {
        let state = match standing.state() {
            wire::State::Unspecified => {
                self.complain("a state that is not known");
                return false;
            }
            wire::State::Progressing => State::Progressing,
            wire::State::Paused => State::Paused,
            wire::State::Promoted => State::Promoted,
            wire::State::RolledBack => State::RolledBack,
        };
        let told = Told {
            generation: standing.generation,
            state,
            step: standing.step as usize,
            weight: Share::millionths(standing.weight_millionths),
        };
        let now = self.now();
        let believed = self.inner.follower.lock().hear(told, asked, now);
        if believed && self.complained {
            self.complained = false;
            let (rollout, service) = (&self.inner.plan.name, &self.inner.plan.service);
            tracing::info!(rollout, service, "the rollout's record is heard of again");
        }
        self.follow();
        true
    }

    fn complain(&mut self, problem: &str) {
        let (rollout, service) = (&self.inner.plan.name, &self.inner.plan.service);
        // Said once, however often it is tried again.
        if self.complained {
            tracing::debug!(rollout, service, problem, "the rollout's record is not heard of");
        } else {
            tracing::warn!(
                rollout,
                service,
                problem,
                "the rollout's record is not heard of; its canary keeps its share here and may only lose it"
            );
        }
        self.complained = true;
    }

    fn look_alone(&self) {
        let alone = self.inner.follower.lock().is_alone(self.now());
        self.inner.reporter.metrics.rollout_cut_off(&self.inner.plan, alone);
    }
}

fn arm(counts: ArmCounts) -> Option<wire::Arm> {
    Some(wire::Arm { ok: counts.ok, failed: counts.failed, latency: counts.latency })
}

fn plan_of(plan: &Plan) -> wire::Plan {
    let step = |step: &tollgate_rollout::Step| wire::Step {
        weight_millionths: step.weight.as_millionths(),
        hold_ms: step.hold_ms,
    };
    wire::Plan {
        service: plan.service.clone(),
        name: plan.name.clone(),
        baseline: plan.baseline.clone(),
        canary: plan.canary.clone(),
        steps: plan.steps.iter().map(step).collect(),
        min_samples: plan.min_samples,
        false_alarm_millionths: plan.false_alarm.as_millionths(),
        tolerance_millionths: plan.tolerance.as_millionths(),
        latency: plan.latency.as_ref().map(|latency| wire::Latency {
            quantile_millionths: latency.quantile.as_millionths(),
            max_ratio_thousandths: latency.max_ratio_thousandths,
            slack_ms: latency.slack_ms,
        }),
    }
}
