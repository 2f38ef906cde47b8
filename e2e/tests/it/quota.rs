//! Proxies of ours and a real rate-limit service: divided limits, and connections.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_e2e::PATIENCE;
use tollgate_runtime::config::{Env, load_text};
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::ports::free_address;
use tollgate_testkit::relay::Relay;

const LIMITS: &str = "
domain: shop
descriptors:
  - {key: partner, rate_limit: {unit: second, requests_per_unit: 40, burst: 40, enforcement: quota}}
  - {key: remote_address, rate_limit: {unit: day, requests_per_unit: 3}}
";
const RATE: f64 = 40.0;
const BURST: f64 = 40.0;
/// What a proxy lets pass while it has no share, a second and at once.
const ALONE: f64 = 5.0;
/// How long a share lives that is not renewed.
const ASSIGNED: Duration = Duration::from_secs(15);

/// A rate-limit service with these limits, on a given port or any.
struct Limits {
    address: SocketAddr,
    service: Service,
    _folder: tempfile::TempDir,
}

impl Limits {
    async fn start(listen: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("shop.yaml"), LIMITS).unwrap();
        let mut config = tollgate_ratelimit::Config::with_folder(folder.path());
        config.listen = listen.parse().unwrap();
        let service = Service::for_test("ratelimit");
        let app = tollgate_ratelimit::App::build(config, service.clone()).await.unwrap();
        let address = app.addresses().grpc;
        drop(service.tasks().spawn("app", app.run()));
        Self { address, service, _folder: folder }
    }
}

/// A proxy that asks it.
struct Proxy {
    address: SocketAddr,
    service: Service,
}

impl Proxy {
    async fn start(limits: SocketAddr, app: SocketAddr, listener: &str) -> Self {
        let text = format!(
            "listeners: [{{name: main, bind: '127.0.0.1:0', role: sidecar {listener}}}]
# Tests share the processor with what they test.
overload: {{mode: off}}
rate_limit:
  {{address: 'http://{limits}', domain: shop, timeout: 2s, quota: {{report_interval: 500ms, unassigned_per_second: {ALONE}}}}}
routes:
  - name: all
    matches: [{{path: {{type: PathPrefix, value: /}}}}]
    authz: off
    backends: [{{cluster: app}}]
    quota: [[{{key: partner, value: '{{request.header.x-partner}}'}}]]
clusters: [{{name: app, endpoints: {{static: ['{app}']}}}}]
"
        );
        let config = load_text(Path::new("proxy.yaml"), &text, &[], &Env::empty()).unwrap();
        let service = Service::for_test("proxy");
        let built = tollgate_proxy::App::build(config, service.clone()).await.unwrap();
        let address = built.addresses().of("main").unwrap();
        drop(service.tasks().spawn("app", built.run()));
        Self { address, service }
    }

    fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.service.telemetry().render_metrics().unwrap();
        let is_it = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Sends so many requests a second until it is dropped, and counts what passed.
struct Load {
    sent: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
    going: Arc<AtomicBool>,
}

impl Load {
    fn on(proxy: &Proxy, per_second: u32) -> Self {
        let (sent, passed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let going = Arc::new(AtomicBool::new(true));
        let (sending, counting, run) = (Arc::clone(&sent), Arc::clone(&passed), Arc::clone(&going));
        let url = format!("http://{}/", proxy.address);
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
            while run.load(Ordering::Relaxed) {
                ticks.tick().await;
                sending.fetch_add(1, Ordering::Relaxed);
                let Ok(answer) = client.get(&url).header("x-partner", "p").send().await else { continue };
                counting.fetch_add(u64::from(answer.status() == 200), Ordering::Relaxed);
            }
        });
        Self { sent, passed, going }
    }

    fn sent(&self) -> f64 {
        self.sent.load(Ordering::Relaxed) as f64
    }

    fn passed(&self) -> f64 {
        self.passed.load(Ordering::Relaxed) as f64
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.going.store(false, Ordering::Relaxed);
    }
}

/// What a load did in the time since it was last looked at.
#[derive(Debug)]
struct Window {
    at: Instant,
    /// What there was at that time, in all.
    before: (f64, f64),
    sent: f64,
    passed: f64,
    took: Duration,
}

impl Window {
    fn of(load: &Load) -> Self {
        let before = (load.sent(), load.passed());
        Self { at: Instant::now(), before, sent: 0.0, passed: 0.0, took: Duration::ZERO }
    }

    fn next(&mut self, load: &Load) -> &Self {
        let next = Self::of(load);
        let (sent, passed) = (next.before.0 - self.before.0, next.before.1 - self.before.1);
        *self = Self { sent, passed, took: next.at - self.at, ..next };
        self
    }

    /// What passed in a second.
    fn rate(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.passed / self.took.as_secs_f64() }
    }
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_proxies_share_a_limit_by_demand_and_a_drained_one_leaves_its_share_at_once() {
    let (limits, app) = (Limits::start("127.0.0.1:0").await, EchoApp::start().await);
    let (one, other) = (
        Proxy::start(limits.address, app.address(), "").await,
        Proxy::start(limits.address, app.address(), "").await,
    );
    let began = Instant::now();
    let (little, much) = (Load::on(&one, 5), Load::on(&other, 100));
    seconds(3.0).await;
    let (mut few, mut many) = (Window::of(&little), Window::of(&much));
    let mut shared = false;
    while !shared && began.elapsed() < PATIENCE {
        seconds(3.0).await;
        let (little, much) = (few.next(&little), many.next(&much));
        shared = little.passed >= 0.9 * little.sent && (31.5..=38.5).contains(&much.rate());
    }
    assert!(shared, "5 a second never passed beside 35: {few:?}, {many:?}");
    let bound = RATE * began.elapsed().as_secs_f64() + BURST + 2.0 * ALONE;
    assert!(little.passed() + much.passed() <= bound * 1.1, "{} of {bound}", little.passed() + much.passed());
    let bound_told = one.metric("tollgate_ratelimit_quota_over_admission_bound", &["limit=\"partner\""]);
    assert_eq!(bound_told, ALONE);
    let beyond = [&one, &other].map(|proxy| {
        proxy.metric("tollgate_ratelimit_quota_decisions", &["by=\"unassigned\"", "decision=\"allow\""])
    });
    assert!(beyond.iter().all(|&beyond| beyond >= 1.0), "{beyond:?}");

    // The one that wanted most is drained: a third proxy finds its share free, long before it would have expired.
    drop(much);
    other.service.stop().await;
    let drained = Instant::now();
    let third = Proxy::start(limits.address, app.address(), "").await;
    let load = Load::on(&third, 100);
    seconds(1.0).await;
    let mut window = Window::of(&load);
    while window.rate() < 25.0 && drained.elapsed() < ASSIGNED / 2 {
        seconds(2.0).await;
        window.next(&load);
    }
    assert!(window.rate() >= 25.0, "{window:?}: of 35 a second, {:?} after a drain", drained.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_lives_on_its_share_and_a_restarted_service_is_found_again() {
    let address = free_address().to_string();
    let (limits, app) = (Limits::start(&address).await, EchoApp::start().await);
    let relay = Relay::to(limits.address).await;
    let proxy = Proxy::start(relay.address(), app.address(), "").await;
    let began = Instant::now();
    let load = Load::on(&proxy, 100);
    seconds(2.0).await;
    relay.cut();
    let mut alone = Window::of(&load);
    seconds(ASSIGNED.as_secs_f64() / 4.0).await;
    alone.next(&load);
    assert!((30.0..=50.0).contains(&alone.rate()), "{alone:?} on the share it had");
    limits.service.stop().await;
    let again = Limits::start(&address).await;
    relay.mend();
    seconds(4.0).await;
    let bound = RATE * began.elapsed().as_secs_f64() + BURST + ALONE;
    assert!(load.passed() <= bound * 1.1, "{} of {bound}", load.passed());
    assert!(load.passed() >= bound * 0.5, "{} of {bound}", load.passed());
    again.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_only_the_stated_rate_passes() {
    let app = EchoApp::start().await;
    let nowhere = free_address();
    let proxy = Proxy::start(nowhere, app.address(), "").await;
    let began = Instant::now();
    let load = Load::on(&proxy, 100);
    seconds(2.0).await;
    let bound = ALONE * began.elapsed().as_secs_f64() + ALONE + 1.0;
    assert!((ALONE..=bound).contains(&load.passed()), "{} of {bound}", load.passed());
    // One that comes just when a token does may pass, but not one after the other.
    let client = reqwest::Client::new();
    let mut refused = None;
    while refused.is_none() && began.elapsed() < PATIENCE {
        let request = client.get(format!("http://{}/", proxy.address)).header("x-partner", "p");
        refused = Some(request.send().await.unwrap()).filter(|answer| answer.status() == 429);
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.headers()["x-ratelimit-remaining"], "0");
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_a_real_service() {
    let (limits, app) = (Limits::start("127.0.0.1:0").await, EchoApp::start().await);
    let listener = ", connection_limit: {descriptors: [[{key: remote_address, value: '{client.address}'}]]}";
    let proxy = Proxy::start(limits.address, app.address(), listener).await;
    let two = "GET /a HTTP/1.1\r\nhost: h\r\n\r\nGET /b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let mut answered = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        // One that is refused is closed, perhaps before it is written to.
        let _ = stream.write_all(two.as_bytes()).await;
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap();
        answered.push(String::from_utf8_lossy(&heard).matches("HTTP/1.1 200").count());
    }
    assert_eq!(answered, [2, 2, 2, 0, 0, 0]);
}
