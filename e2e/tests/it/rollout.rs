//! Canaries that move by themselves: proxies, the authorization service with its database, two versions of an
//! application, all on real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate_e2e::PATIENCE;
use tollgate_runtime::config::{Env, Secret, ServiceConfig as _, load_text};
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::relay::Relay;

/// The rate and the time of the promise: five percent of errors at a tenth of 500 requests a second, in 30 seconds.
const RATE: u32 = 500;
const MOST: u64 = 30 * RATE as u64;

/// An authorization service without policy: nobody asks it about requests here.
struct Authz {
    grpc: SocketAddr,
    http: SocketAddr,
    token: String,
    service: Service,
    _folder: TempDir,
}

impl Authz {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut config = tollgate_authz::Config::default();
        config.listen.grpc = ([127, 0, 0, 1], 0).into();
        config.listen.http = ([127, 0, 0, 1], 0).into();
        config.database.url = Secret::new(format!("sqlite://{}", folder.path().join("authz.db").display()));
        config.bootstrap.token_file = folder.path().join("bootstrap-admin.token");
        let service = Service::for_test("authz");
        let app = tollgate_authz::App::build(config.clone(), service.clone()).await.unwrap();
        let (grpc, http) = (app.addresses().grpc, app.addresses().http);
        drop(service.tasks().spawn("app", app.run()));
        service.readiness().ready().await;
        let bootstrap = std::fs::read_to_string(&config.bootstrap.token_file).unwrap();
        let request =
            reqwest::Client::new().post(format!("http://{http}/v1/bootstrap")).bearer_auth(bootstrap.trim());
        let made: Value =
            request.json(&serde_json::json!({"name": "root"})).send().await.unwrap().json().await.unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        Self { grpc, http, token, service, _folder: folder }
    }

    /// The record, or what is done to it: `pause`, `promote`, …
    async fn rollout(&self, act: &str) -> Value {
        let url = format!("http://{}/v1/namespaces/shop/rollouts/new", self.http);
        let client = reqwest::Client::new();
        let request = if act.is_empty() { client.get(url) } else { client.post(format!("{url}/{act}")) };
        let answer = request.bearer_auth(&self.token).send().await.unwrap();
        assert!(act.is_empty() || answer.status().is_success(), "{act}: {}", answer.status());
        answer.json().await.unwrap()
    }
}

struct Proxy {
    address: SocketAddr,
    service: Service,
}

impl Proxy {
    async fn start(authz: SocketAddr, apps: &[EchoApp; 2], rollout: &str) -> Self {
        Self::start_with(authz, apps, &format!("report_interval: 250ms, alone_after: 2s, {rollout}")).await
    }

    async fn start_with(authz: SocketAddr, apps: &[EchoApp; 2], rollout: &str) -> Self {
        let text = format!(
            "listeners: [{{name: main, bind: '127.0.0.1:0', role: sidecar}}]
process: {{listen: '127.0.0.1:0'}}
# Tests share the processor with what they test; what is refused for that reaches no version.
overload: {{mode: off}}
authz: {{address: 'http://{authz}'}}
routes:
  - name: all
    service: shop/orders
    matches: [{{path: {{type: PathPrefix, value: /}}}}]
    authz: off
    timeout: 10s
    backends: [{{cluster: old}}, {{cluster: new}}]
    rollout: {{name: new, canary: new, {rollout}}}
clusters:
  # Whether the canary is bad is the rollout's question here.
  - {{name: old, endpoints: {{static: ['{}']}}, outlier_detection: {{enabled: false}}}}
  - {{name: new, endpoints: {{static: ['{}']}}, outlier_detection: {{enabled: false}}}}
",
            apps[0].address(),
            apps[1].address()
        );
        let config: tollgate_proxy::Config =
            load_text(Path::new("proxy.yaml"), &text, &[], &Env::empty()).unwrap();
        let service = Service::start("proxy", config.process(), config.telemetry()).unwrap();
        let built = tollgate_proxy::App::build(config, service.clone()).await.unwrap();
        let address = built.addresses().of("main").unwrap();
        drop(service.tasks().spawn("app", built.run()));
        Self { address, service }
    }

    /// How its rollout does, as its process listener tells.
    async fn rollout(&self) -> Value {
        let url = format!("http://{}/status", self.service.process_address().unwrap());
        let status: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        status["rollouts"][0].clone()
    }

    async fn weight(&self) -> f64 {
        self.rollout().await["weight"].as_f64().unwrap()
    }

    /// Waits until its rollout is so.
    async fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let rollout = self.rollout().await;
            if done(&rollout) {
                return rollout;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}: {rollout:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Requests at no more than a rate, from several clients, until it is stopped or so many are sent. Each of them is
/// answered by a version, or the test fails.
struct Load {
    sent: Arc<AtomicU64>,
    going: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    fn on(proxies: &[&Proxy], per_second: u32, most: u64) -> Self {
        const CLIENTS: u32 = 8;
        let (sent, going) = (Arc::<AtomicU64>::default(), Arc::new(AtomicBool::new(true)));
        let mut clients = JoinSet::new();
        for n in 0..CLIENTS {
            let url = format!("http://{}/", proxies[n as usize % proxies.len()].address);
            let (sent, going) = (Arc::clone(&sent), Arc::clone(&going));
            clients.spawn(async move {
                let client = reqwest::Client::new();
                let mut ticks = tokio::time::interval(Duration::from_secs(1) * CLIENTS / per_second);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                let one_more = |sent| (sent < most).then_some(sent + 1);
                while going.load(Ordering::Relaxed)
                    && sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
                {
                    ticks.tick().await;
                    ask(&client, &url).await;
                }
            });
        }
        Self { sent, going, clients }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until all that were to be sent are answered.
    async fn ends(self) {
        tokio::time::timeout(10 * PATIENCE, self.clients.join_all()).await.expect("all are answered");
    }

    /// Sends no more, and waits until those that were sent are answered.
    async fn stop(self) {
        self.going.store(false, Ordering::Relaxed);
        self.ends().await;
    }
}

/// Asks, and hears the answer to its end: who goes away before it tells nothing about the version.
async fn ask(client: &reqwest::Client, url: &str) -> StatusCode {
    let answer = client.get(url).send().await.unwrap_or_else(|error| panic!("no answer: {error:?}"));
    let status = answer.status();
    let body = answer.text().await.unwrap_or_else(|error| panic!("{status}, then: {error:?}"));
    assert!(body.contains("\"service\":\"policies\""), "answered by no version: {status} {body}");
    status
}

async fn apps() -> [EchoApp; 2] {
    [EchoApp::start().await, EchoApp::start().await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_with_five_percent_errors_at_a_tenth_of_500_rps_is_rolled_back_within_30_seconds_of_requests()
 {
    let (authz, apps) = (Authz::start().await, apps().await);
    apps[1].behave("nth:20");
    let steps = "steps: [{weight: 10, hold: 1h}]";
    let (one, other) =
        (Proxy::start(authz.grpc, &apps, steps).await, Proxy::start(authz.grpc, &apps, steps).await);
    for proxy in [&one, &other] {
        proxy.until("its first share", |rollout| rollout["weight"] == 10.0).await;
    }
    let load = Load::on(&[&one, &other], RATE, MOST);
    let began = Instant::now();
    // Until both follow: what counts is how many requests that takes.
    while one.weight().await > 0.0 || other.weight().await > 0.0 {
        assert!(
            load.sent() < MOST,
            "{} requests and no roll-back: {:#}",
            load.sent(),
            authz.rollout("").await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("rolled back after {} requests, {:?}", load.sent(), began.elapsed());
    let record = authz.rollout("").await;
    assert_eq!((&record["state"], &record["weight"]), (&Value::from("rolled_back"), &Value::from(0.0)));
    assert!(record["reason"].as_str().unwrap().starts_with("the canary fails "), "{record:#}");
    // No request more goes there, but those that were under way.
    load.stop().await;
    let before = apps[1].seen().len();
    let client = reqwest::Client::new();
    for _ in 0..50 {
        let answer = client.get(format!("http://{}/", one.address)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(apps[1].seen().len(), before);
    for service in [one.service, other.service, authz.service] {
        service.stop().await;
    }
}

/// Sends so many requests through a proxy whose canary is a version like the other; answers how the rollout stands.
async fn like_the_other(requests: u64) -> Value {
    let (authz, apps) = (Authz::start().await, apps().await);
    let proxy = Proxy::start(authz.grpc, &apps, "steps: [{weight: 10, hold: 1h}]").await;
    proxy.until("its first share", |rollout| rollout["weight"] == 10.0).await;
    Load::on(&[&proxy], 5_000, requests).ends().await;
    let began = Instant::now();
    let record = loop {
        let record = authz.rollout("").await;
        let answers =
            record["answers"]["canary"].as_u64().unwrap() + record["answers"]["baseline"].as_u64().unwrap();
        if answers >= requests || record["state"] != "progressing" {
            break record;
        }
        assert!(began.elapsed() < PATIENCE, "{answers} of {requests} were counted: {record:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    proxy.service.stop().await;
    authz.service.stop().await;
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_like_the_other_is_not_rolled_back_and_every_request_is_counted() {
    let (requests, repeats) = if cfg!(feature = "soak") { (10_000, 20) } else { (2_000, 1) };
    for repeat in 0..repeats {
        let record = like_the_other(requests).await;
        assert_eq!(record["state"], "progressing", "{repeat}: {record:#}");
        let answers = &record["answers"];
        assert_eq!(
            (&answers["canary_failed"], &answers["baseline_failed"]),
            (&Value::from(0), &Value::from(0))
        );
        let (canary, baseline) = (answers["canary"].as_u64().unwrap(), answers["baseline"].as_u64().unwrap());
        assert_eq!(canary + baseline, requests, "{record:#}");
        assert!((requests / 14..=requests / 7).contains(&canary), "a tenth, about: {canary}");
        println!("{repeat}: {}", record["analysis"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_stops_tells_what_it_has_seen() {
    let (authz, apps) = (Authz::start().await, apps().await);
    // It does not report again by itself.
    let proxy = Proxy::start_with(
        authz.grpc,
        &apps,
        "steps: [{weight: 10, hold: 1h}], report_interval: 1h, alone_after: 2h",
    )
    .await;
    proxy.until("its first share", |rollout| rollout["weight"] == 10.0).await;
    let url: Arc<str> = format!("http://{}/", proxy.address).into();
    let client = reqwest::Client::new();
    for _ in 0..50 {
        assert_eq!(ask(&client, &url).await, 200);
    }
    // Some are under way when it is told to stop, and end after that.
    for app in &apps {
        app.behave("hold");
    }
    let mut under_way = JoinSet::new();
    for _ in 0..10 {
        let (client, url) = (client.clone(), Arc::clone(&url));
        under_way.spawn(async move { ask(&client, &url).await });
    }
    tollgate_e2e::eventually("ten under way", async || {
        apps.iter().map(|app| app.seen().len()).sum::<usize>() == 60
    })
    .await;
    let service = proxy.service.clone();
    let stopped = tokio::spawn(async move { service.stop().await });
    tollgate_e2e::eventually("it to stop listening", async || {
        tokio::net::TcpStream::connect(proxy.address).await.is_err()
    })
    .await;
    for app in &apps {
        app.behave("");
    }
    assert_eq!(under_way.join_all().await, [StatusCode::OK; 10]);
    stopped.await.unwrap();
    let answers = authz.rollout("").await["answers"].clone();
    assert_eq!(
        answers["canary"].as_u64().unwrap() + answers["baseline"].as_u64().unwrap(),
        60,
        "{answers:#}"
    );
    authz.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_canary_goes_from_step_to_step_waits_and_is_promoted_by_the_api() {
    let (authz, apps) = (Authz::start().await, apps().await);
    let steps = "min_samples: 20, steps: [{weight: 20, hold: 300ms}, {weight: 60}]";
    let proxy = Proxy::start(authz.grpc, &apps, steps).await;
    let load = Load::on(&[&proxy], 200, u64::MAX);
    proxy.until("the second step", |rollout| rollout["weight"] == 60.0).await;
    let record = authz.rollout("").await;
    assert_eq!(record["waits_for"], "somebody to promote it", "{record:#}");
    assert_eq!(authz.rollout("pause").await["state"], "paused");
    proxy.until("the pause", |rollout| rollout["state"] == "paused" && rollout["weight"] == 60.0).await;
    assert_eq!(authz.rollout("promote").await["state"], "promoted");
    proxy
        .until("the promotion", |rollout| rollout["state"] == "promoted" && rollout["weight"] == 100.0)
        .await;
    load.stop().await;
    let before = apps[0].seen().len();
    for _ in 0..20 {
        assert_eq!(reqwest::get(format!("http://{}/", proxy.address)).await.unwrap().status(), 200);
    }
    assert_eq!(apps[0].seen().len(), before, "all go to the canary");
    proxy.service.stop().await;
    authz.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_cut_off_may_only_lower_its_canary() {
    let (authz, apps) = (Authz::start().await, apps().await);
    let relay = Relay::to(authz.grpc).await;
    let steps = "min_samples: 20, steps: [{weight: 20}, {weight: 60}]";
    let proxy = Proxy::start(relay.address(), &apps, steps).await;
    proxy.until("the first step", |rollout| rollout["weight"] == 20.0).await;
    relay.cut();
    // The record goes on; this proxy does not hear of it, and its canary does well.
    assert_eq!(authz.rollout("promote").await["weight"], 60.0);
    let load = Load::on(&[&proxy], 200, u64::MAX);
    proxy.until("to be cut off", |rollout| rollout["cut_off"] == true).await;
    let enough = load.sent() + 200;
    while load.sent() < enough {
        assert_eq!(proxy.weight().await, 20.0, "it keeps what it had");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Now the canary does badly, and nobody is there to say so.
    apps[1].behave("flaky:503");
    let stopped = proxy.until("its own roll-back", |rollout| rollout["weight"] == 0.0).await;
    assert!(stopped["stopped"].as_str().unwrap().starts_with("the canary fails "), "{stopped:#}");
    assert_eq!((&stopped["cut_off"], &stopped["state"]), (&Value::from(true), &Value::from("progressing")));
    assert_eq!(authz.rollout("").await["state"], "progressing", "nobody has told it");
    // Back, it tells what it saw, and the record is rolled back by that.
    relay.mend();
    proxy
        .until("the record's roll-back", |rollout| {
            rollout["state"] == "rolled_back" && rollout["weight"] == 0.0
        })
        .await;
    let record = authz.rollout("").await;
    assert!(record["reason"].as_str().unwrap().starts_with("the canary fails "), "{record:#}");
    load.stop().await;
    // A proxy that comes while nobody answers gives the canary nothing.
    relay.cut();
    let late = Proxy::start(relay.address(), &apps, steps).await;
    assert_eq!((late.weight().await, late.rollout().await["state"].clone()), (0.0, Value::from("unknown")));
    for service in [proxy.service, late.service, authz.service] {
        service.stop().await;
    }
}
