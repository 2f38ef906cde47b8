//! Quota streams by a client of the test's own: who gets what, when, and what is bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::{BlanketRule, Strategy};
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::BucketAction as Kind;
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_client::RateLimitQuotaServiceClient;
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_usage_reports::BucketQuotaUsage;
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::{
    BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
};
use tollgate_proto::envoy_types::pb::google::protobuf::Duration as WireDuration;
use tollgate_testkit::relay::Relay;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::support::{PATIENCE, Served, eventually};

pub(crate) const LIMITS: &str = r#"
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: second, requests_per_unit: 40, burst: 40, enforcement: quota}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: none, rate_limit: {unit: second, requests_per_unit: 0}}
  - key: plan
    value: gold
    descriptors: [{key: path, rate_limit: {unit: minute, requests_per_unit: 100, enforcement: quota, burst: 10}}]
"#;

/// One stream.
pub(crate) struct Client {
    reports: Option<mpsc::Sender<RateLimitQuotaUsageReports>>,
    answers: Streaming<RateLimitQuotaResponse>,
}

pub(crate) fn usage(bucket: &[(&str, &str)], allowed: u64, denied: u64, seconds: i64) -> BucketQuotaUsage {
    let bucket = bucket.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    BucketQuotaUsage {
        bucket_id: Some(BucketId { bucket }),
        time_elapsed: Some(WireDuration { seconds, nanos: 0 }),
        num_requests_allowed: allowed,
        num_requests_denied: denied,
    }
}

/// Requests a second and the bucket's size.
type Given = (f64, u32);

fn given(strategy: &Strategy) -> Given {
    match strategy {
        Strategy::TokenBucket(bucket) => {
            let seconds = bucket.fill_interval.as_ref().unwrap().seconds as f64;
            (f64::from(bucket.tokens_per_fill.as_ref().unwrap().value) / seconds, bucket.max_tokens)
        }
        Strategy::BlanketRule(rule) if *rule == i32::from(BlanketRule::DenyAll) => (0.0, 0),
        Strategy::BlanketRule(_) => (f64::INFINITY, u32::MAX),
        Strategy::RequestsPerTimeUnit(_) => panic!("Envoy does not understand this one"),
    }
}

impl Client {
    pub(crate) async fn open(served: &Served, name: Option<&str>, first: Vec<BucketQuotaUsage>) -> Self {
        Self::open_on(served.channel(), name, first).await
    }

    async fn open_on(channel: Channel, name: Option<&str>, first: Vec<BucketQuotaUsage>) -> Self {
        let (reports, outgoing) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(name) = name {
            request.metadata_mut().insert("tollgate-client", name.parse().unwrap());
        }
        reports
            .send(RateLimitQuotaUsageReports { domain: "shop".into(), bucket_quota_usages: first })
            .await
            .unwrap();
        let mut service = RateLimitQuotaServiceClient::new(channel);
        let answers = service.stream_rate_limit_quotas(request).await.unwrap().into_inner();
        Self { reports: Some(reports), answers }
    }

    /// Ends its half of the stream, which gives the share back.
    pub(crate) fn end(&mut self) {
        self.reports = None;
    }

    pub(crate) async fn report(&self, usages: Vec<BucketQuotaUsage>) {
        let message = RateLimitQuotaUsageReports { domain: "shop".into(), bucket_quota_usages: usages };
        self.reports.as_ref().unwrap().send(message).await.unwrap();
    }

    /// Reads until something is said about the bucket of this entry that `wanted` is true of.
    async fn told(&mut self, value: &str, wanted: impl Fn(Given) -> bool) -> Given {
        let reading = async {
            loop {
                for action in self.answers.message().await.unwrap().unwrap().bucket_action {
                    let bucket: HashMap<_, _> = action.bucket_id.unwrap().bucket;
                    let Some(Kind::QuotaAssignmentAction(assigned)) = action.bucket_action else { continue };
                    assert_eq!(assigned.assignment_time_to_live.unwrap().seconds, 15);
                    let now = given(&assigned.rate_limit_strategy.unwrap().strategy.unwrap());
                    if bucket.values().any(|found| found == value) && wanted(now) {
                        return now;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the assignment comes")
    }
}

async fn served() -> Served {
    Served::with_limits(LIMITS).await
}

/// A connection of its own, which the test can cut. Dropping a stream would not do: the service may see the end of the
/// client's half first, and that gives the share back.
async fn through(relay: &Relay) -> Channel {
    Channel::from_shared(format!("http://{}", relay.address())).unwrap().connect().await.unwrap()
}

fn about(expected: f64) -> impl Fn(Given) -> bool {
    move |(per_second, _)| (per_second - expected).abs() <= expected * 0.1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_gets_all_and_the_second_half_of_it_at_once() {
    let served = served().await;
    let mut one = Client::open(&served, None, vec![usage(&[("user", "u")], 1, 0, 0)]).await;
    let first = one.told("u", about(40.0)).await;
    assert!((1..=40).contains(&first.1), "{first:?}");
    let mut other = Client::open(&served, None, vec![usage(&[("user", "u")], 1, 0, 0)]).await;
    let left = one.told("u", about(20.0)).await;
    served.clock.advance(Duration::from_secs(1));
    let got = other.told("u", about(20.0)).await;
    assert!(left.1 + got.1 <= 40, "{left:?} {got:?}");

    // Ending its half of the stream gives the share back.
    other.end();
    one.told("u", about(40.0)).await;
}

/// In the machine's time, which on a busy machine says little: it is printed, and what is asserted is that it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_given_back_is_soon_the_others() {
    let served = Served::with_real_clock(LIMITS, |_| ()).await;
    let first = || vec![usage(&[("user", "u")], 1, 0, 0)];
    let mut one = Client::open(&served, None, first()).await;
    one.told("u", about(40.0)).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        let mut other = Client::open(&served, None, first()).await;
        one.told("u", about(20.0)).await;
        other.told("u", about(20.0)).await;
        let given_back = Instant::now();
        other.end();
        one.told("u", about(40.0)).await;
        took.push(given_back.elapsed());
    }
    println!("a share that was given back was the other's after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_keeps_its_share_until_it_expires() {
    let served = served().await;
    let mut one = Client::open(&served, None, vec![usage(&[("user", "u")], 1, 0, 0)]).await;
    one.told("u", about(40.0)).await;
    let relay = Relay::to(served.address()).await;
    let first = vec![usage(&[("user", "u")], 1, 0, 0)];
    let mut other = Client::open_on(through(&relay).await, None, first).await;
    served.clock.advance(Duration::from_secs(1));
    one.told("u", about(20.0)).await;
    other.told("u", about(20.0)).await;
    relay.cut();
    eventually("the service sees that the stream is broken", || async { served.quota_streams() == 1 }).await;
    served.clock.advance(Duration::from_secs(5));
    one.report(vec![usage(&[("user", "u")], 100, 400, 5)]).await;
    one.told("u", about(20.0)).await;
    served.clock.advance(Duration::from_secs(12));
    one.told("u", about(40.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_name_finds_its_share_again() {
    let served = served().await;
    let first = || vec![usage(&[("user", "u")], 1, 0, 0)];
    let mut other = Client::open(&served, None, first()).await;
    other.told("u", about(40.0)).await;
    let relay = Relay::to(served.address()).await;
    let mut named = Client::open_on(through(&relay).await, Some("edge-1"), first()).await;
    served.clock.advance(Duration::from_secs(1));
    other.told("u", about(20.0)).await;
    named.told("u", about(20.0)).await;
    relay.cut();
    eventually("the service sees that the stream is broken", || async { served.quota_streams() == 1 }).await;
    // No time passes, so the lost share has not expired: what the new stream is told at once is that very one.
    let mut again = Client::open(&served, Some("edge-1"), first()).await;
    again.told("u", about(20.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_match_as_descriptors_do() {
    let served = served().await;
    let first = vec![
        usage(&[("path", "/a"), ("plan", "gold")], 1, 0, 0),
        usage(&[("free", "f")], 1, 0, 0),
        usage(&[("none", "n")], 1, 0, 0),
        usage(&[("unknown", "x")], 1, 0, 0),
    ];
    let mut client = Client::open(&served, None, first).await;
    let mut seen = HashMap::new();
    while seen.len() < 3 {
        for action in client.answers.message().await.unwrap().unwrap().bucket_action {
            let Some(Kind::QuotaAssignmentAction(assigned)) = action.bucket_action else { continue };
            let mut bucket: Vec<_> = action.bucket_id.unwrap().bucket.into_keys().collect();
            bucket.sort();
            seen.insert(bucket.join(","), given(&assigned.rate_limit_strategy.unwrap().strategy.unwrap()));
        }
    }
    assert!(about(100.0 / 60.0)(seen["path,plan"]) && seen["path,plan"].1 <= 10, "{seen:?}");
    assert_eq!((seen["free"].0, seen["none"].0), (f64::INFINITY, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_buckets_and_more_are_bounded() {
    let served = served().await;
    let values: Vec<_> = (0..10_050).map(|n| format!("u-{n}")).collect();
    let usages = values.iter().map(|value| usage(&[("user", value)], 1, 0, 0)).collect();
    let mut client = Client::open(&served, None, usages).await;
    let mut told = 0;
    while told < 10_000 {
        told += client.answers.message().await.unwrap().unwrap().bucket_action.len();
    }
    let text = served.service.telemetry().render_metrics().unwrap();
    let unassigned =
        text.lines().find(|line| line.starts_with("tollgate_ratelimit_quota_unassigned")).unwrap();
    assert!(unassigned.ends_with(" 50"), "{unassigned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_costs_no_memory_and_no_other() {
    let served = served().await;
    let many = || (0..2_000).map(|n| usage(&[("user", &format!("u-{n}"))], 1, 0, 0)).collect::<Vec<_>>();
    let slow = Client::open(&served, None, many()).await;
    for _ in 0..20 {
        slow.report(many()).await;
    }
    let mut quick = Client::open(&served, None, vec![usage(&[("user", "other")], 1, 0, 0)]).await;
    quick.told("other", about(40.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off_however_much_it_reports() {
    let served = Served::with(LIMITS, |config| config.quota.ttl = Duration::from_secs(5)).await;
    let endpoint = Channel::from_shared(format!("http://{}", served.address())).unwrap();
    // A few assignments fill it.
    let channel = endpoint.initial_stream_window_size(4_096).connect().await.unwrap();
    let many = || (0..500).map(|n| usage(&[("user", &format!("u-{n}"))], 1, 0, 0)).collect::<Vec<_>>();
    let slow = Client::open_on(channel, None, many()).await;
    let reports = slow.reports.clone().unwrap();
    eventually("it is cut off", || async {
        let more = RateLimitQuotaUsageReports { domain: "shop".into(), bucket_quota_usages: many() };
        // There may be no room, or nobody who reads it any more.
        let _ = reports.try_send(more);
        tokio::time::sleep(Duration::from_millis(50)).await;
        served.quota_streams() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_is_told_and_a_removed_one_abandoned() {
    let served = served().await;
    let mut client = Client::open(&served, None, vec![usage(&[("user", "u")], 1, 0, 0)]).await;
    client.told("u", about(40.0)).await;
    served.write("limits.yaml", &LIMITS.replace("requests_per_unit: 40", "requests_per_unit: 20"));
    client.told("u", about(20.0)).await;
    served.write("limits.yaml", "domain: shop");
    let abandoned = async {
        loop {
            let answer = client.answers.message().await.unwrap().unwrap();
            if answer.bucket_action.iter().any(|a| matches!(a.bucket_action, Some(Kind::AbandonAction(_)))) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, abandoned).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_one_limit_through_redis() {
    let server = tollgate_testkit::redis::RedisServer::start();
    let served = || {
        let url = server.url();
        Served::with_real_clock(LIMITS, move |config| {
            config.counters.redis.url = Some(tollgate_runtime::config::Secret::new(url));
            config.counters.redis.timeout = Duration::from_millis(500);
        })
    };
    let (one, other) = (served().await, served().await);
    let first = || vec![usage(&[("user", "u")], 1, 0, 0)];
    let mut here = Client::open(&one, None, first()).await;
    here.told("u", about(40.0)).await;
    let mut there = Client::open(&other, None, first()).await;
    let left = here.told("u", about(20.0)).await;
    let got = there.told("u", about(20.0)).await;
    assert!(left.0 + got.0 <= 40.0, "{left:?} {got:?}");
    // A replica that stops in good order leaves its part to the other.
    other.service.stop().await;
    here.told("u", about(40.0)).await;
    while there.answers.message().await.is_ok_and(|message| message.is_some()) {}
}
