//! `tollgate.rollout.v1.Rollouts`: what proxies saw of canaries, in; where their rollouts stand, out.
//!
//! Reports that come while others are being kept wait and are kept together, so that a fleet costs a transaction a
//! rollout at a time, however many proxies it has.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use tollgate_proto::rollout as wire;
use tollgate_proto::rollout::rollouts_server::{Rollouts as Wire, RolloutsServer};
use tollgate_rollout::{ArmCounts, Latency, Plan, Record, Share, State, Step, Window};
use tollgate_runtime::tasks::Stopping;
use tonic::{Request, Response, Status};

use super::enforcer::{Asker, MayNotAsk};
use crate::authorize::Authorizer;
use crate::metrics::Metrics;
use crate::store::{Heard, RolloutError, RolloutReport, Store};

/// What the service is called.
pub const NAME: &str = tollgate_proto::rollout::rollouts_server::SERVICE_NAME;
/// A report of a hundred rollouts, each with two full histograms.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Rollouts in one report.
const MAX_IN_A_REPORT: usize = 100;
/// Bytes of the name of a proxy.
const MAX_PROXY_BYTES: usize = 200;
/// Reports that wait to be kept; what comes beyond is sent again.
const MAX_WAITING: usize = 1024;
/// Reports that are kept together.
const MAX_TOGETHER: usize = 256;

/// The service.
#[derive(Debug, Clone)]
pub struct RolloutsWire {
    authorizer: Authorizer,
    waiting: mpsc::Sender<Job>,
}

/// Keeps reports, one after the other.
#[derive(Debug)]
pub struct Keeper {
    store: Store,
    metrics: Metrics,
    waiting: mpsc::Receiver<Job>,
}

/// One rollout of one report.
#[derive(Debug)]
struct Job {
    plan: Plan,
    report: RolloutReport,
    answer: oneshot::Sender<Result<wire::Standing, Unkept>>,
}

/// Why a report was not kept.
#[derive(Debug, Clone)]
enum Unkept {
    /// It is no use to send it again soon.
    Refused(String),
    /// It is.
    Failed,
}

impl RolloutsWire {
    /// The service, and what has to run for it.
    pub fn new(authorizer: Authorizer, store: Store, metrics: Metrics) -> (Self, Keeper) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        (Self { authorizer, waiting: sender }, Keeper { store, metrics, waiting })
    }

    /// As a gRPC service.
    pub fn into_service(self) -> RolloutsServer<Self> {
        RolloutsServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn hand_in(
        &self,
        asker: &Asker,
        proxy: &str,
        told: wire::RolloutReport,
    ) -> Result<oneshot::Receiver<Result<wire::Standing, Unkept>>, Unkept> {
        let refused = |why: String| Unkept::Refused(why);
        let plan = told.plan.map(plan_of).ok_or_else(|| refused("there is no plan".to_owned()))?;
        plan.check().map_err(|error| refused(error.to_string()))?;
        asker.may_ask_about(&plan.service).map_err(|why: MayNotAsk| refused(why.to_string()))?;
        let window = told.window.map(window_of).unwrap_or_default();
        if !window.is_plausible() {
            return Err(refused("no proxy can have counted this".to_owned()));
        }
        let sequence = if window.is_empty() { 0 } else { told.sequence.min(i64::MAX.unsigned_abs()) };
        let (answer, answered) = oneshot::channel();
        let report = RolloutReport { proxy: format!("{}/{proxy}", asker.name()), sequence, window };
        self.waiting.try_send(Job { plan, report, answer }).map_err(|_full| Unkept::Failed)?;
        Ok(answered)
    }
}

#[tonic::async_trait]
impl Wire for RolloutsWire {
    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let asker = Asker::of(&request, &self.authorizer.cell().load(), self.authorizer.now())?;
        let wire::ReportRequest { proxy, rollouts } = request.into_inner();
        if proxy.is_empty() || proxy.len() > MAX_PROXY_BYTES {
            return Err(Status::invalid_argument("proxy: a name of 1 to 200 bytes"));
        }
        if rollouts.len() > MAX_IN_A_REPORT {
            return Err(Status::invalid_argument("rollouts: more than 100"));
        }
        let handed_in: Vec<_> = rollouts.into_iter().map(|told| self.hand_in(&asker, &proxy, told)).collect();
        let mut standings = Vec::with_capacity(handed_in.len());
        for one in handed_in {
            let answered = match one {
                Ok(answered) => answered.await.unwrap_or(Err(Unkept::Failed)),
                Err(unkept) => Err(unkept),
            };
            standings.push(match answered {
                Ok(standing) => standing,
                Err(Unkept::Refused(refused)) => wire::Standing { refused, ..Default::default() },
                Err(Unkept::Failed) => {
                    return Err(Status::unavailable("the report was not kept; send it again"));
                }
            });
        }
        Ok(Response::new(wire::ReportResponse { rollouts: standings }))
    }
}

impl Keeper {
    /// Keeps what comes until the service stops.
    pub async fn run(mut self, stopping: Stopping) {
        loop {
            let first = tokio::select! {
                () = stopping.cancelled() => return,
                first = self.waiting.recv() => first,
            };
            let Some(first) = first else { return };
            let mut together = vec![first];
            while together.len() < MAX_TOGETHER
                && let Ok(next) = self.waiting.try_recv()
            {
                together.push(next);
            }
            let mut by_plan = BTreeMap::<String, Vec<Job>>::new();
            for job in together {
                by_plan.entry(format!("{} {}", job.plan.service, job.plan.id())).or_default().push(job);
            }
            for jobs in by_plan.into_values() {
                self.keep(jobs).await;
            }
        }
    }

    async fn keep(&self, jobs: Vec<Job>) {
        let Some(plan) = jobs.first().map(|job| job.plan.clone()) else { return };
        let (reports, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.report, job.answer)).unzip();
        let answer = match self.store.report_rollout(&plan, &reports).await {
            Ok(heard) => {
                self.tell(&plan, &heard);
                Ok(standing(&heard.record))
            }
            Err(error @ RolloutError::TooMany) => {
                self.metrics.rollout_reports("refused", reports.len());
                tracing::warn!(rollout = plan.name, service = plan.service, %error, "rollout refused");
                Err(Unkept::Refused(error.to_string()))
            }
            Err(error) => {
                self.metrics.rollout_reports("failed", reports.len());
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::error!(rollout = plan.name, error, "a rollout's reports were not kept");
                Err(Unkept::Failed)
            }
        };
        for waiting in answers {
            // Who does not wait any more sends it again.
            let _ = waiting.send(answer.clone());
        }
    }

    fn tell(&self, plan: &Plan, heard: &Heard) {
        self.metrics.rollout_reports("counted", heard.counted);
        self.metrics.rollout_reports("repeated", heard.repeated);
        self.metrics.rollout_reports("crowded", heard.crowded);
        for (generation, change) in &heard.changes {
            self.metrics.rollout_changed(change.action, change.to);
            let (rollout, service, weight) = (&plan.name, &plan.service, change.weight.to_string());
            let (to, reason) = (change.to.as_str(), &change.reason);
            if change.to == State::RolledBack {
                tracing::warn!(
                    rollout,
                    service,
                    generation,
                    to,
                    weight,
                    reason,
                    "canary rolled back: {reason}"
                );
            } else {
                tracing::info!(
                    rollout,
                    service,
                    generation,
                    to,
                    weight,
                    reason,
                    "rollout at {weight}: {reason}"
                );
            }
        }
    }
}

fn standing(record: &Record) -> wire::Standing {
    let state = match record.state {
        State::Progressing => wire::State::Progressing,
        State::Paused => wire::State::Paused,
        State::Promoted => wire::State::Promoted,
        State::RolledBack => wire::State::RolledBack,
    };
    wire::Standing {
        refused: String::new(),
        generation: record.generation,
        state: state.into(),
        step: u32::try_from(record.step).unwrap_or(u32::MAX),
        weight_millionths: record.weight().as_millionths(),
    }
}

fn plan_of(plan: wire::Plan) -> Plan {
    Plan {
        service: plan.service,
        name: plan.name,
        baseline: plan.baseline,
        canary: plan.canary,
        steps: plan
            .steps
            .into_iter()
            .map(|step| Step { weight: Share::millionths(step.weight_millionths), hold_ms: step.hold_ms })
            .collect(),
        min_samples: plan.min_samples,
        false_alarm: Share::millionths(plan.false_alarm_millionths),
        tolerance: Share::millionths(plan.tolerance_millionths),
        latency: plan.latency.map(|latency| Latency {
            quantile: Share::millionths(latency.quantile_millionths),
            max_ratio_thousandths: latency.max_ratio_thousandths,
            slack_ms: latency.slack_ms,
        }),
    }
}

fn window_of(window: wire::Window) -> Window {
    let arm = |arm: Option<wire::Arm>| {
        arm.map(|arm| ArmCounts { ok: arm.ok, failed: arm.failed, latency: arm.latency }).unwrap_or_default()
    };
    Window { baseline: arm(window.baseline), canary: arm(window.canary) }
}
