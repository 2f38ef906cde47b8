//! The stream to the rate-limit service: use goes out, assignments come in.
//!
//! One task. It reports new buckets at once and all of them at an interval; when the stream breaks it opens another
//! after a wait, and until then assignments live on to their end. When the proxy stops it reports once more and
//! closes its half, which gives the shares back at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_identity::tls::GrpcChannel;
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::RateLimitUnit;
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::{BlanketRule, Strategy as Wire};
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::{
    BucketAction as Kind, QuotaAssignmentAction,
};
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_client::RateLimitQuotaServiceClient;
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_usage_reports::BucketQuotaUsage;
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::{
    BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
};
use tollgate_proto::envoy_types::pb::google::protobuf::Duration as WireDuration;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::Inner;
use super::bucket::{Strategy, Usage};
use super::table::Entries;

/// Buckets named in one message.
const USAGES_PER_MESSAGE: usize = 1_000;
/// Messages that wait to be sent: a report of all buckets.
const OUTGOING: usize = 16;
/// Bytes one message of the service may have.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// How long the service may take for the last report of a proxy that stops.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long opening a stream, and each report, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait before a broken stream is opened again doubles from the first to the second.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// An assignment without a time to live, and the longest one.
const LONGEST_LIFE_NS: u64 = 3_600_000_000_000;

/// One proxy's conversation with the service, over as many streams as it takes.
pub(super) struct Conversation {
    inner: Arc<Inner>,
    /// By which the service knows this proxy on another stream.
    name: String,
    channel: GrpcChannel,
    ending: CancellationToken,
}

/// How a stream ended.
enum Ended {
    /// By this proxy's will: shares are given back.
    InGoodOrder,
    Broken(String),
}

struct Open {
    reports: mpsc::Sender<RateLimitQuotaUsageReports>,
    answers: Streaming<RateLimitQuotaResponse>,
}

impl Conversation {
    pub(super) fn new(inner: Arc<Inner>, channel: GrpcChannel, ending: CancellationToken) -> Self {
        let name = format!("{}-{}", inner.reporter.service.telemetry().name(), uuid::Uuid::new_v4());
        Self { inner, name, channel, ending }
    }

    /// Talks until the proxy stops or the configuration has no more use for it.
    pub(super) async fn run(self) {
        let stopping = self.inner.reporter.service.tasks().stopping();
        let ending = self.ending.clone();
        let ended = async move {
            tokio::select! {
                () = stopping.wait() => {}
                () = ending.cancelled_owned() => {}
            }
        };
        let mut ended = std::pin::pin!(ended);
        // Without a bucket there is nothing to say.
        tokio::select! {
            () = &mut ended => return,
            () = self.inner.news.notified() => {}
        }
        let mut wait = FIRST_WAIT;
        let mut was_open = true;
        loop {
            let began = Instant::now();
            let Ended::Broken(problem) = self.talk(ended.as_mut()).await else { return };
            if began.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            // Said once, however often it is tried again.
            if was_open || began.elapsed() > LONGEST_WAIT {
                tracing::warn!(
                    address = self.inner.config.address,
                    problem,
                    "the quota stream is broken; shares live on to their end"
                );
            }
            was_open = false;
            let jitter = wait.mul_f64(rand::random_range(0.5..1.0));
            tokio::select! {
                () = &mut ended => return self.close_unheard(),
                () = tokio::time::sleep(jitter) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn close_unheard(&self) {
        self.inner.table.lock().close(self.inner.now_ns());
    }

    async fn talk(&self, mut ended: std::pin::Pin<&mut impl Future<Output = ()>>) -> Ended {
        let opening = tokio::time::timeout(PATIENCE, self.open());
        let mut open = tokio::select! {
            () = &mut ended => {
                self.close_unheard();
                return Ended::InGoodOrder;
            }
            opened = opening => match opened {
                Ok(Ok(open)) => open,
                Ok(Err(status)) => return Ended::Broken(status.to_string()),
                Err(_) => return Ended::Broken("it cannot be opened in time".to_owned()),
            },
        };
        let every = self.inner.config.quota.report_interval;
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let usages = tokio::select! {
                () = &mut ended => return self.end(open).await,
                answer = open.answers.message() => {
                    match answer {
                        Ok(Some(answer)) => self.apply(answer),
                        Ok(None) => return Ended::Broken("the service ended it".to_owned()),
                        Err(status) => return Ended::Broken(status.to_string()),
                    }
                    continue;
                }
                _ = ticks.tick() => self.inner.table.lock().report_all(self.inner.now_ns()),
                () = self.inner.news.notified() => self.inner.table.lock().report_new(self.inner.now_ns()),
            };
            self.inner.reporter.metrics.quota_buckets(self.inner.table.lock().len());
            if let Err(problem) = self.send(&open.reports, usages).await {
                return Ended::Broken(problem.to_owned());
            }
        }
    }

    async fn open(&self) -> Result<Open, tonic::Status> {
        let (reports, outgoing) = mpsc::channel(OUTGOING);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Ok(name) = self.name.parse() {
            request.metadata_mut().insert("tollgate-client", name);
        }
        // A service may answer nothing, its headers included, before it has heard something.
        let usages = self.inner.table.lock().report_all(self.inner.now_ns());
        if self.send(&reports, usages).await.is_err() {
            return Err(tonic::Status::unavailable("the first report cannot be sent"));
        }
        let client = RateLimitQuotaServiceClient::new(self.channel.channel());
        let mut client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answers = client.stream_rate_limit_quotas(request).await?.into_inner();
        Ok(Open { reports, answers })
    }

    /// The domain is in every message, as Envoy has it.
    async fn send(
        &self,
        reports: &mpsc::Sender<RateLimitQuotaUsageReports>,
        usages: Vec<(Entries, Usage)>,
    ) -> Result<(), &'static str> {
        for part in usages.chunks(USAGES_PER_MESSAGE) {
            let message = RateLimitQuotaUsageReports {
                domain: self.inner.config.domain.clone(),
                bucket_quota_usages: part.iter().map(usage).collect(),
            };
            match tokio::time::timeout(PATIENCE, reports.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err("the service hears nothing more"),
                Err(_) => return Err("the service takes no reports"),
            }
        }
        Ok(())
    }

    /// Reports a last time, ends this half of the stream, and waits for the service to end its own.
    async fn end(&self, open: Open) -> Ended {
        let Open { reports, mut answers } = open;
        let last = self.inner.table.lock().close(self.inner.now_ns());
        let saying = async {
            let _ = self.send(&reports, last).await;
            drop(reports);
            while answers.message().await.is_ok_and(|answer| answer.is_some()) {}
        };
        let _ = tokio::time::timeout(LAST_WORDS, saying).await;
        Ended::InGoodOrder
    }

    fn apply(&self, answer: RateLimitQuotaResponse) {
        let now_ns = self.inner.now_ns();
        let mut table = self.inner.table.lock();
        for action in answer.bucket_action {
            let Some(id) = action.bucket_id else { continue };
            let mut entries: Entries = id.bucket.into_iter().collect();
            entries.sort_unstable();
            match action.bucket_action {
                Some(Kind::QuotaAssignmentAction(assigned)) => {
                    if let Some((strategy, life_ns)) = read(&assigned) {
                        table.assign(&entries, strategy, life_ns, now_ns);
                    }
                }
                Some(Kind::AbandonAction(_)) => table.abandon(&entries),
                None => {}
            }
        }
    }
}

fn usage((entries, usage): &(Entries, Usage)) -> BucketQuotaUsage {
    let seconds = usage.elapsed_ns / 1_000_000_000;
    BucketQuotaUsage {
        bucket_id: Some(BucketId { bucket: entries.iter().cloned().collect() }),
        time_elapsed: Some(WireDuration {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanos: i32::try_from(usage.elapsed_ns % 1_000_000_000).unwrap_or(0),
        }),
        num_requests_allowed: usage.allowed,
        num_requests_denied: usage.denied,
    }
}

/// What is assigned, and for how long; none where it says nothing that can be done.
fn read(assigned: &QuotaAssignmentAction) -> Option<(Strategy, u64)> {
    let life_ns = assigned.assignment_time_to_live.as_ref().map_or(LONGEST_LIFE_NS, nanos);
    let strategy = match assigned.rate_limit_strategy.as_ref()?.strategy.as_ref()? {
        Wire::BlanketRule(rule) if *rule == i32::from(BlanketRule::AllowAll) => Strategy::AllowAll,
        Wire::BlanketRule(_) => Strategy::DenyAll,
        Wire::TokenBucket(bucket) => {
            let tokens = bucket.tokens_per_fill.as_ref().map_or(1, |tokens| tokens.value);
            let interval = bucket.fill_interval.as_ref().map_or(0, nanos);
            if interval == 0 {
                return None;
            }
            let per_second = f64::from(tokens) * 1e9 / interval as f64;
            Strategy::Tokens { max: f64::from(bucket.max_tokens), per_second }
        }
        Wire::RequestsPerTimeUnit(rate) => {
            let seconds = seconds_of(rate.time_unit)?;
            let requests = rate.requests_per_time_unit as f64;
            Strategy::Tokens { max: requests, per_second: requests / seconds }
        }
    };
    Some((strategy, life_ns.min(LONGEST_LIFE_NS)))
}

fn seconds_of(unit: i32) -> Option<f64> {
    Some(match RateLimitUnit::try_from(unit).ok()? {
        RateLimitUnit::Unknown => return None,
        RateLimitUnit::Second => 1.0,
        RateLimitUnit::Minute => 60.0,
        RateLimitUnit::Hour => 3_600.0,
        RateLimitUnit::Day => 86_400.0,
        RateLimitUnit::Month => 30.0 * 86_400.0,
        RateLimitUnit::Year => 365.0 * 86_400.0,
    })
}

fn nanos(wire: &WireDuration) -> u64 {
    let seconds = u64::try_from(wire.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(wire.nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use tollgate_proto::envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::RequestsPerTimeUnit;
    use tollgate_proto::envoy_types::pb::envoy::r#type::v3::{RateLimitStrategy, TokenBucket};
    use tollgate_proto::envoy_types::pb::google::protobuf::UInt32Value;

    use super::*;

    fn assigned(strategy: Option<Wire>, ttl: Option<i64>) -> QuotaAssignmentAction {
        QuotaAssignmentAction {
            assignment_time_to_live: ttl.map(|seconds| WireDuration { seconds, nanos: 0 }),
            rate_limit_strategy: Some(RateLimitStrategy { strategy }),
        }
    }

    #[test]
    fn every_strategy_is_understood() {
        let tokens = |per_fill: Option<u32>, seconds: i64| {
            Wire::TokenBucket(TokenBucket {
                max_tokens: 10,
                tokens_per_fill: per_fill.map(|value| UInt32Value { value }),
                fill_interval: Some(WireDuration { seconds, nanos: 0 }),
            })
        };
        let per_unit = |unit| {
            Wire::RequestsPerTimeUnit(RequestsPerTimeUnit { requests_per_time_unit: 60, time_unit: unit })
        };
        let second = 1_000_000_000;
        let table = [
            (
                Some(tokens(Some(20), 2)),
                Some(15),
                Some((Strategy::Tokens { max: 10.0, per_second: 10.0 }, 15 * second)),
            ),
            (
                Some(tokens(None, 2)),
                Some(15),
                Some((Strategy::Tokens { max: 10.0, per_second: 0.5 }, 15 * second)),
            ),
            (Some(tokens(Some(1), 0)), Some(15), None),
            (Some(Wire::BlanketRule(0)), None, Some((Strategy::AllowAll, LONGEST_LIFE_NS))),
            (Some(Wire::BlanketRule(1)), Some(-1), Some((Strategy::DenyAll, 0))),
            (Some(per_unit(2)), Some(1), Some((Strategy::Tokens { max: 60.0, per_second: 1.0 }, second))),
            (Some(per_unit(0)), Some(1), None),
            (None, Some(1), None),
        ];
        for (strategy, ttl, expected) in table {
            assert_eq!(read(&assigned(strategy, ttl)), expected, "{strategy:?}");
        }
    }
}
