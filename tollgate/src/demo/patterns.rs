//! `tollgate demo patterns`: what the proxy does when things go wrong, shown on applications of this process's own.
//!
//! Each story starts what it needs, does something to it, and says what came of it in numbers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tollgate_proxy::{App, Config};
use tollgate_runtime::config::{Env, load_text};
use tollgate_runtime::{App as _, Service, http_server, net};

use crate::commands::say;

/// An application that can be broken.
struct Target {
    address: SocketAddr,
    state: Arc<Behaviour>,
}

#[derive(Default)]
struct Behaviour {
    /// Every so many requests one fails; 0, none.
    fails_every: AtomicU16,
    delay_ms: AtomicU16,
    seen: AtomicUsize,
    with_credentials: AtomicUsize,
}

/// The stories' stage: applications, and one proxy at a time.
struct Stage {
    service: Service,
    client: reqwest::Client,
}

/// Tells all the stories.
pub async fn run() -> anyhow::Result<()> {
    let stage = Stage { service: Service::for_test("demo-patterns"), client: reqwest::Client::new() };
    let told = async {
        ejection(&stage).await?;
        breaker(&stage).await?;
        canary(&stage).await?;
        mirror(&stage).await?;
        egress(&stage).await
    }
    .await;
    stage.service.stop().await;
    told
}

/// An instance that fails half of its requests is left out, and nobody notices any more.
async fn ejection(stage: &Stage) -> anyhow::Result<()> {
    say("An instance fails every second request:");
    let apps = stage.targets(3)?;
    let proxy = stage
        .proxy(
            &format!(
                "clusters: [{{name: app, endpoints: {{static: [{}]}}, balance: round_robin, outlier_detection: \
                 {{interval: 1s, base_ejection_time: 60s, failure_percentage: {{request_volume: 20}}}}}}]",
                list(&apps)
            ),
            "sidecar",
            "",
        )
        .await?;
    apps[1].state.fails_every.store(2, Ordering::Relaxed);
    let before = stage.burst(proxy, 300, Duration::from_millis(1200)).await;
    let after = stage.burst(proxy, 300, Duration::from_millis(300)).await;
    say(&format!("  at first {before}"));
    say(&format!("  once it is left out {after}"));
    for app in &apps {
        app.state.fails_every.store(1, Ordering::Relaxed);
    }
    let all_fail = stage.burst(proxy, 60, Duration::from_millis(1500)).await;
    for app in &apps {
        app.state.fails_every.store(0, Ordering::Relaxed);
    }
    let healed = stage.burst(proxy, 60, Duration::ZERO).await;
    say(&format!(
        "  when all fail {all_fail}, for leaving out all would help nobody; once they are well {healed}"
    ));
    Ok(())
}

/// More than the breaker lets through is refused at once instead of waiting.
async fn breaker(stage: &Stage) -> anyhow::Result<()> {
    say("A slow application, 40 requests at once, and a breaker at 10:");
    let apps = stage.targets(1)?;
    apps[0].state.delay_ms.store(300, Ordering::Relaxed);
    let clusters = format!(
        "clusters: [{{name: app, endpoints: {{static: [{}]}}, breaker: {{requests: 10}}}}]",
        list(&apps)
    );
    let proxy = stage.proxy(&clusters, "sidecar", "").await?;
    let began = Instant::now();
    let calls = (0..40).map(|_| stage.get(proxy, &[]));
    let answers = futures_util::future::join_all(calls).await;
    let refused = answers.iter().filter(|status| **status == 503).count();
    say(&format!("  {refused} refused with 503, all over after {} ms", began.elapsed().as_millis()));
    Ok(())
}

/// One request in ten goes to the new version, a tenant stays with its own, and testers are let in.
async fn canary(stage: &Stage) -> anyhow::Result<()> {
    say("A canary of 10 %, sticky by tenant, and testers by header:");
    let apps = stage.targets(2)?;
    let clusters = format!(
        "clusters: [{{name: app, endpoints: {{static: ['{}']}}}}, {{name: new, endpoints: {{static: ['{}']}}}}]",
        apps[0].address, apps[1].address
    );
    let route = "sticky: {header: x-tenant}, overrides: [{cluster: new, headers: [{name: x-preview, value: 'true'}]}]";
    let proxy = stage
        .proxy_to("[{cluster: app, weight: 90}, {cluster: new, weight: 10}]", &clusters, "sidecar", route)
        .await?;
    let mut moved = 0;
    for tenant in 0..100 {
        let tenant = format!("t{tenant}");
        let before = apps[1].seen();
        for _ in 0..3 {
            stage.get(proxy, &[("x-tenant", &tenant)]).await;
        }
        moved += usize::from(!matches!(apps[1].seen() - before, 0 | 3));
    }
    say(&format!(
        "  {} of 100 tenants are with the new version, {moved} were torn between the two",
        apps[1].seen() / 3
    ));
    let before = apps[1].seen();
    for _ in 0..5 {
        stage.get(proxy, &[("x-tenant", "t0"), ("x-preview", "true")]).await;
    }
    say(&format!("  {} of 5 requests with x-preview got there", apps[1].seen() - before));
    Ok(())
}

/// Copies reach the new version without credentials, and nobody waits for them.
async fn mirror(stage: &Stage) -> anyhow::Result<()> {
    say("Every request copied to a version that takes half a second:");
    let apps = stage.targets(2)?;
    apps[1].state.delay_ms.store(500, Ordering::Relaxed);
    let clusters = format!(
        "clusters: [{{name: app, endpoints: {{static: ['{}']}}}}, {{name: new, endpoints: {{static: ['{}']}}}}]",
        apps[0].address, apps[1].address
    );
    let proxy =
        stage.proxy(&clusters, "sidecar", "request_mirror: {cluster: new, max_in_flight: 100}").await?;
    let began = Instant::now();
    for _ in 0..20 {
        stage.get(proxy, &[("authorization", "Bearer secret")]).await;
    }
    let took = began.elapsed() / 20;
    let waited = Instant::now();
    while apps[1].seen() < 20 && waited.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let credentials = apps[1].state.with_credentials.load(Ordering::Relaxed);
    say(&format!(
        "  {} ms a request, {} copies arrived, {credentials} of them with a token",
        took.as_millis(),
        apps[1].seen()
    ));
    Ok(())
}

/// What is not registered is refused by its name.
async fn egress(stage: &Stage) -> anyhow::Result<()> {
    say("The way out, with one partner registered:");
    let apps = stage.targets(1)?;
    let clusters = format!("clusters: [{{name: app, endpoints: {{static: [{}]}}}}]", list(&apps));
    let proxy = stage.proxy(&clusters, "egress", "hostnames: [partner.test]").await?;
    for host in ["partner.test", "evil.test"] {
        let status = stage.get(proxy, &[("host", host)]).await;
        say(&format!("  {host}: {status}"));
    }
    Ok(())
}

/// What came of many requests.
struct Outcome {
    sent: usize,
    failed: usize,
    slowest_of_hundred: Duration,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, failed, slowest_of_hundred } = self;
        write!(f, "{failed} of {sent} requests fail, p99 {:.1} ms", slowest_of_hundred.as_secs_f64() * 1000.0)
    }
}

impl Stage {
    fn targets(&self, count: usize) -> anyhow::Result<Vec<Target>> {
        (0..count).map(|_| self.target()).collect()
    }

    fn target(&self) -> anyhow::Result<Target> {
        let listener = net::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "demo application")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Behaviour::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let tasks = self.service.tasks().clone();
        self.service
            .tasks()
            .spawn("demo-target", async move { http_server::serve(&tasks, listener, router).await });
        Ok(Target { address, state })
    }

    async fn proxy(&self, clusters: &str, role: &str, route: &str) -> anyhow::Result<SocketAddr> {
        self.proxy_to("[{cluster: app}]", clusters, role, route).await
    }

    async fn proxy_to(
        &self,
        backends: &str,
        clusters: &str,
        role: &str,
        route: &str,
    ) -> anyhow::Result<SocketAddr> {
        let yaml = format!(
            "listeners: [{{name: main, bind: '127.0.0.1:0', role: {role}}}]\n\
             routes: [{{name: story, matches: [{{}}], authz: off, timeout: 5s, backends: {backends}, {route}}}]\n\
             {clusters}\n"
        );
        let config: Config = load_text(Path::new("story"), &yaml, &[], &Env::empty())?;
        let app = App::build(config, self.service.clone()).await?;
        let address =
            app.addresses().of("main").unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        self.service.tasks().spawn("demo-proxy", app.run());
        Ok(address)
    }

    /// The status of one answer; 0, none came.
    async fn get(&self, proxy: SocketAddr, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.client.get(format!("http://{proxy}/story"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(_) => 0,
        }
    }

    /// At least so many requests, for at least so long.
    async fn burst(&self, proxy: SocketAddr, least: usize, least_time: Duration) -> Outcome {
        let began = Instant::now();
        let (mut failed, mut times) = (0, Vec::new());
        while times.len() < least || began.elapsed() < least_time {
            let sent = Instant::now();
            failed += usize::from(self.get(proxy, &[]).await != 200);
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        let slowest_of_hundred = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        Outcome { sent: times.len(), failed, slowest_of_hundred }
    }
}

impl Target {
    fn seen(&self) -> usize {
        self.state.seen.load(Ordering::Relaxed)
    }
}

async fn answer(State(state): State<Arc<Behaviour>>, headers: HeaderMap) -> StatusCode {
    let number = state.seen.fetch_add(1, Ordering::Relaxed);
    if headers.contains_key("authorization") {
        state.with_credentials.fetch_add(1, Ordering::Relaxed);
    }
    let delay = state.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay.into())).await;
    }
    let every = usize::from(state.fails_every.load(Ordering::Relaxed));
    if every > 0 && number.is_multiple_of(every) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

fn list(apps: &[Target]) -> String {
    apps.iter().map(|app| format!("'{}'", app.address)).collect::<Vec<_>>().join(", ")
}
