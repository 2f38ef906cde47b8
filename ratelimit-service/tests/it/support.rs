//! A served app and a client that speaks as Envoy's generated code does.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_ratelimit::{App, Config};
use tollgate_runtime::clock::{Clock, ManualClock};
use tollgate_runtime::{App as _, Service};
use tonic::transport::Channel;

/// A moment at the start of a minute, an hour and a day.
pub(crate) const START_SECONDS: u64 = 86_400 * 20_000;

/// The service, served on a port of its own, its clock in the test's hand.
pub(crate) struct Served {
    pub(crate) service: Service,
    pub(crate) clock: ManualClock,
    pub(crate) folder: tempfile::TempDir,
    client: RateLimitServiceClient<Channel>,
    channel: Channel,
    /// Ends when the service has stopped.
    pub(crate) app: tokio::task::JoinHandle<Option<anyhow::Result<()>>>,
    address: SocketAddr,
    http: Option<SocketAddr>,
}

impl Served {
    /// With one limits file.
    pub(crate) async fn with_limits(text: &str) -> Self {
        Self::with(text, |_| ()).await
    }

    /// With one limits file and a changed configuration.
    pub(crate) async fn with(text: &str, change: impl FnOnce(&mut Config)) -> Self {
        let (clock, hand) = Clock::manual(START_SECONDS * 1_000_000_000);
        Self::at(clock, hand, text, change).await
    }

    /// As [`Self::with`], in the machine's time; the hand moves nothing.
    pub(crate) async fn with_real_clock(text: &str, change: impl FnOnce(&mut Config)) -> Self {
        let (_, hand) = Clock::manual(0);
        Self::at(Clock::system(), hand, text, change).await
    }

    async fn at(clock: Clock, hand: ManualClock, text: &str, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("limits.yaml"), text).unwrap();
        let mut config = Config::with_folder(folder.path());
        config.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let service = Service::for_test_at("ratelimit", clock);
        let app = App::build(config, service.clone()).await.unwrap();
        let (address, http) = (app.addresses().grpc, app.addresses().http);
        let app = service.tasks().spawn("test-app", app.run());
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let client = RateLimitServiceClient::new(channel.clone());
        Self { service, clock: hand, folder, client, channel, app, address, http }
    }

    /// Its HTTP door, which the test must have asked for.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http.unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> RateLimitServiceClient<Channel> {
        self.client.clone()
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn ask(&self, request: RateLimitRequest) -> RateLimitResponse {
        self.client().should_rate_limit(request).await.unwrap().into_inner()
    }

    /// Asks for one descriptor of one entry; whether it may pass.
    pub(crate) async fn passes(&self, domain: &str, key: &str, value: &str) -> bool {
        let answer = self.ask(request(domain, vec![descriptor(&[(key, value)])])).await;
        assert_ne!(answer.overall_code(), Code::Unknown);
        answer.overall_code() == Code::Ok
    }

    /// How many of this many calls, all at once, may pass.
    pub(crate) async fn passing_of(&self, calls: usize, value: &str) -> usize {
        let all = (0..calls).map(|_| self.passes("test", "key", value));
        futures_util::future::join_all(all).await.into_iter().filter(|passed| *passed).count()
    }

    /// What a metric without labels says; 0 before it says anything.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.service.telemetry().render_metrics().unwrap();
        let of = |line: &str| line.starts_with(name).then(|| line.rsplit(' ').next()?.parse().ok()).flatten();
        text.lines().find_map(of).unwrap_or_default()
    }

    /// Quota streams that are open.
    pub(crate) fn quota_streams(&self) -> u64 {
        self.metric("tollgate_ratelimit_quota_streams") as u64
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        replace_by_rename(&self.folder.path().join(name), text);
    }
}

pub(crate) fn replace_by_rename(file: &Path, text: &str) {
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

pub(crate) fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entries =
        entries.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() }).collect();
    RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }
}

pub(crate) fn request(domain: &str, descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest { domain: domain.into(), descriptors, hits_addend: 0 }
}

/// A limits file for the domain `test`: so many a day for each value of `key`.
pub(crate) fn per_day(requests: u32) -> String {
    format!(
        "domain: test\ndescriptors:\n  - key: key\n    rate_limit: {{unit: day, requests_per_unit: {requests}}}\n"
    )
}

/// How long anything is waited for; far more than it takes, since the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`, but not for ever.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "this did not come true within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
