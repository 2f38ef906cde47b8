//! Changing the configuration while requests are under way.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tollgate_proxy::{Addresses, Config};
use tollgate_runtime::Service;
use tollgate_runtime::config::{Env, ServiceConfig as _, Source};
use tollgate_testkit::fake_collector::wait_for;

use crate::harness::{Call, Mesh, PATIENCE, ROUTES, Setup, parse, run_all};

struct Reloading {
    mesh: Mesh,
    file: PathBuf,
    address: std::net::SocketAddr,
    addresses: Addresses,
    service: Service,
    _folder: tempfile::TempDir,
    _running: JoinSet<()>,
}

const LISTENER: &str = "limit_by_address: {per_second: 0}";

async fn reloading() -> Reloading {
    reloading_with(Setup { listener: LISTENER, ..Setup::default() }).await
}

async fn reloading_with(setup: Setup<'_>) -> Reloading {
    let mesh = Mesh::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.yaml");
    let yaml = yaml_of(&mesh, setup);
    std::fs::write(&file, &yaml).unwrap();
    let config = parse(&yaml);
    let service = Service::start("ingress", config.process(), config.telemetry()).unwrap();
    service.configured_by(Source::new(&file, &[], &Env::empty()));
    Reloading::start(mesh, config, service, file, folder).await
}

fn yaml(mesh: &Mesh, routes: &str) -> String {
    yaml_of(mesh, Setup { routes: Some(routes), listener: LISTENER, ..Setup::default() })
}

fn yaml_of(mesh: &Mesh, setup: Setup<'_>) -> String {
    setup.yaml(mesh.authz.address(), mesh.limiter.address(), mesh.app.address())
}

impl Reloading {
    async fn start(
        mesh: Mesh,
        config: Config,
        service: Service,
        file: PathBuf,
        folder: tempfile::TempDir,
    ) -> Self {
        let (addresses, running) = run_all(config, service.clone()).await;
        let address = addresses.of("main").unwrap();
        Self { mesh, file, address, addresses, service, _folder: folder, _running: running }
    }

    async fn status(&self, path: &str) -> u16 {
        Call::new(self.address, "GET", path).send().await.status.as_u16()
    }

    /// What the proxy says of its configuration.
    async fn config(&self) -> Value {
        let answer = Call::new(self.service.process_address().unwrap(), "GET", "/status").send().await;
        serde_json::from_str::<Value>(&answer.body).unwrap()["config"].take()
    }

    /// Waits until a metric says that a reload had this outcome.
    async fn reloaded(&self, outcome: &str) {
        self.reloads(outcome, 1).await;
    }

    /// Waits until so many reloads had this outcome.
    async fn reloads(&self, outcome: &str, count: u64) {
        let label = format!("tollgate_proxy_reloads_total{{outcome=\"{outcome}\"");
        let found = || {
            let metrics = self.service.telemetry().render_metrics().unwrap();
            let line = metrics.lines().find(|line| line.starts_with(&label))?;
            let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
            (value >= count as f64).then_some(())
        };
        wait_for(found).await.unwrap_or_else(|| {
            panic!("no {label} in:\n{}", self.service.telemetry().render_metrics().unwrap())
        });
    }
}

#[tokio::test]
async fn routes_change_without_a_restart() {
    let reloading = reloading().await;
    assert_eq!(reloading.status("/open/x").await, 200);
    assert_eq!(reloading.status("/new/x").await, 404);
    let routes = ROUTES.replace("value: /open", "value: /new");
    std::fs::write(&reloading.file, yaml(&reloading.mesh, &routes)).unwrap();
    reloading.reloaded("applied").await;
    assert_eq!(reloading.status("/new/x").await, 200);
    assert_eq!(reloading.status("/open/x").await, 404);
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let reloading = reloading().await;
    assert_eq!(reloading.status("/open/x").await, 200);
    let routes = ROUTES.replace("cluster: app", "cluster: gone");
    std::fs::write(&reloading.file, yaml(&reloading.mesh, &routes)).unwrap();
    reloading.reloaded("refused").await;
    assert_eq!(reloading.status("/open/x").await, 200);
}

#[tokio::test]
async fn a_folder_of_files_is_followed_file_by_file() {
    let mesh = Mesh::start().await;
    let folder = tempfile::tempdir().unwrap();
    let route = |name: &str| {
        format!(
            "routes:\n  - {{name: {name}, matches: [{{path: {{type: PathPrefix, value: /{name}}}}}], authz: off, \
             backends: [{{cluster: app}}]}}\n"
        )
    };
    std::fs::write(folder.path().join("10-proxy.yaml"), yaml(&mesh, ROUTES)).unwrap();
    std::fs::write(folder.path().join("20-shop.yaml"), route("shop")).unwrap();
    let source = Source::new(folder.path(), &[], &Env::empty());
    let config = source.load().unwrap().config;
    let service = Service::for_test("ingress");
    service.configured_by(source);
    let file = folder.path().join("30-office.yaml");
    let reloading = Reloading::start(mesh, config, service, file, folder).await;
    assert_eq!([reloading.status("/shop").await, reloading.status("/open/x").await], [200, 200]);
    assert_eq!(reloading.status("/office").await, 404);
    // A file that comes, one that is wrong, and one that goes.
    std::fs::write(&reloading.file, route("office")).unwrap();
    reloading.reloaded("applied").await;
    assert_eq!([reloading.status("/office").await, reloading.status("/shop").await], [200, 200]);
    std::fs::write(&reloading.file, route("office").replace("cluster: app", "cluster: gone")).unwrap();
    reloading.reloaded("refused").await;
    assert_eq!(reloading.status("/office").await, 200);
    std::fs::remove_file(&reloading.file).unwrap();
    reloading.reloads("applied", 2).await;
    assert_eq!([reloading.status("/office").await, reloading.status("/shop").await], [404, 200]);
}

#[tokio::test]
async fn connections_to_an_unchanged_cluster_are_kept() {
    let reloading = reloading().await;
    assert_eq!(reloading.status("/open/x").await, 200);
    let before = reloading.mesh.app.connections();
    let routes = ROUTES.replace("value: /open", "value: /new");
    std::fs::write(&reloading.file, yaml(&reloading.mesh, &routes)).unwrap();
    reloading.reloaded("applied").await;
    assert_eq!(reloading.status("/new/x").await, 200);
    assert_eq!(reloading.mesh.app.connections(), before);
}

impl Reloading {
    /// Another configuration of the listener, the `number`th that is applied.
    async fn listens(&self, listener: &str, number: u64) {
        let yaml = yaml_of(&self.mesh, Setup { listener, ..Setup::default() });
        std::fs::write(&self.file, yaml).unwrap();
        self.reloads("applied", number).await;
    }

    /// A connection from an address of this machine, on which something was answered; none if it is closed instead.
    async fn enters(&self, from: &str) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        // It may be closed by now.
        let _ = stream.write_all(b"GET /open/x HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut heard = [0; 12];
        stream.read_exact(&mut heard).await.ok()?;
        assert_eq!(&heard, b"HTTP/1.1 200");
        Some(stream)
    }
}

#[tokio::test]
async fn open_connections_of_an_address_count_after_a_change() {
    let limits = |most: usize, rest: &str| format!("limits: {{connections_per_address: {most}{rest}}}");
    let listener = limits(2, "");
    let reloading = reloading_with(Setup { listener: &listener, ..Setup::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(reloading.enters("127.0.0.1").await.unwrap());
    }
    assert!(reloading.enters("127.0.0.1").await.is_none());
    reloading.listens(&limits(2, ", header_bytes: 32768"), 1).await;
    assert!(reloading.enters("127.0.0.1").await.is_none(), "the two are there still");
    held.push(reloading.enters("127.0.0.2").await.unwrap());
    reloading.listens(&limits(3, ""), 2).await;
    held.push(reloading.enters("127.0.0.1").await.unwrap());
    assert!(reloading.enters("127.0.0.1").await.is_none());
    // Who comes while there is no limit counts once there is one again.
    reloading.listens(&limits(0, ""), 3).await;
    held.push(reloading.enters("127.0.0.1").await.unwrap());
    reloading.listens(&limits(4, ""), 4).await;
    assert!(reloading.enters("127.0.0.1").await.is_none());
}

#[tokio::test]
async fn open_connections_fill_the_room_after_a_change() {
    let limits = |most: usize, rest: &str| format!("limits: {{max_connections: {most}{rest}}}");
    let listener = limits(2, "");
    let reloading = reloading_with(Setup { listener: &listener, ..Setup::default() }).await;
    let held = [reloading.enters("127.0.0.1").await, reloading.enters("127.0.0.1").await];
    reloading.listens(&limits(2, ", header_bytes: 32768"), 1).await;
    let mut waiting = Box::pin(reloading.enters("127.0.0.1"));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "it was served beyond the limit");
    // Who waits is let in as soon as more may be.
    reloading.listens(&limits(3, ""), 2).await;
    let third = tokio::time::timeout(PATIENCE, waiting).await.expect("there is more room");
    reloading.listens(&limits(1, ""), 3).await;
    let mut waiting = Box::pin(reloading.enters("127.0.0.1"));
    drop(held);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "one is there still");
    drop(third);
    let last = tokio::time::timeout(PATIENCE, waiting).await.expect("somebody has left");
    assert!(last.is_some());
}

#[tokio::test]
async fn a_transparent_listener_is_known_by_the_port_that_it_has() {
    let two = format!(
        "role: ingress, {LISTENER}}}, {{name: captured, bind: '127.0.0.1:0', role: sidecar, transparent: true"
    );
    let reloading = reloading_with(Setup { listener: &two, ..Setup::default() }).await;
    assert_eq!(reloading.status("/open/x").await, 200);
    let captured = reloading.addresses.of("captured").unwrap();
    let astray = format!(", {{name: astray, endpoints: {{static: ['{captured}']}}}}");
    let route = "{name: astray, matches: [{path: {type: Exact, value: /astray}}], authz: off, backends: [{cluster: astray}]}";
    let routes = ROUTES.replacen("routes:", &format!("routes:\n  - {route}"), 1);
    let setup = Setup { listener: &two, clusters: &astray, routes: Some(&routes), ..Setup::default() };
    std::fs::write(&reloading.file, yaml_of(&reloading.mesh, setup)).unwrap();
    reloading.reloaded("applied").await;
    let answer = Call::new(reloading.address, "GET", "/astray").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason()), (502, "upstream_connect".to_owned()));
}

/// Changes of routes and clusters, and requests a second meanwhile from so many clients; more in `make soak`.
const RELOADS: u64 = if cfg!(feature = "soak") { 100 } else { 8 };
const RATE: u32 = if cfg!(feature = "soak") { 5_000 } else { 400 };
const CLIENTS: u32 = if cfg!(feature = "soak") { 50 } else { 8 };

/// Asks at a rate, on one connection, until told to stop: how many answers came, and what was no 200.
async fn keep_asking(address: std::net::SocketAddr, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(connection.await) });
    // What was late is made up for.
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * CLIENTS / RATE);
    let (mut answered, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let request = Request::get("/open/x").header("host", "h").body(Empty::<Bytes>::new()).unwrap();
        match sender.send_request(request).await {
            Ok(answer) if answer.status() == 200 => match answer.into_body().collect().await {
                Ok(_) => answered += 1,
                Err(error) => failed.push(error.to_string()),
            },
            Ok(answer) => failed.push(answer.status().to_string()),
            Err(error) => {
                failed.push(error.to_string());
                break;
            }
        }
    }
    (answered, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_configuration_changes() {
    // On a slow machine a request may take its time.
    let routes = ROUTES.replace("timeout: 500ms", "timeout: 20s");
    let setup = Setup { routes: Some(&routes), listener: LISTENER, ..Setup::default() };
    let reloading = reloading_with(setup).await;
    assert_eq!(reloading.status("/open/x").await, 200);
    let stop = Arc::<AtomicBool>::default();
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        clients.spawn(keep_asking(reloading.address, Arc::clone(&stop)));
    }
    let mut refused = 0;
    for round in 1..=RELOADS {
        // Another timeout makes another cluster: its connections go with the old one.
        let good =
            yaml(&reloading.mesh, &routes.replace("value: /strict", &format!("value: /strict-{round}")))
                .replace("endpoints: {", &format!("connect_timeout: {round}s, endpoints: {{"));
        std::fs::write(&reloading.file, &good).unwrap();
        reloading.reloads("applied", round).await;
        reloading.mesh.app.forget();
        if round % (RELOADS / 4) != 0 {
            continue;
        }
        let before = reloading.config().await;
        assert_eq!(before["last_error"], Value::Null);
        for (bad, why) in [
            (
                good.replace("cluster: app", "cluster: gone"),
                "there is no cluster `gone`; expected one of: app",
            ),
            (good.replace("timeout: 20s", "timeouts: 20s"), "unknown field `timeouts`"),
        ] {
            refused += 1;
            std::fs::write(&reloading.file, bad).unwrap();
            reloading.reloads("refused", refused).await;
            let after = reloading.config().await;
            assert_eq!([&after["revision"], &after["applied"]], [&before["revision"], &before["applied"]]);
            let error = after["last_error"].as_str().unwrap();
            assert!(error.contains(why) && error.contains("proxy.yaml:"), "{error}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for (count, failed) in clients.join_all().await {
        assert!(failed.is_empty(), "{failed:?}");
        answered += count;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{RELOADS} changes and {refused} bad ones in {seconds:.1} s: {answered} answers of 200, {:.0} a second of {RATE}",
        answered as f64 / seconds
    );
    assert!(answered > 100, "{answered}");
}
