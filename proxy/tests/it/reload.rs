//! Changing the configuration while requests are under way.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_runtime::Service;
use tollgate_runtime::config::{Env, Source};
use tollgate_testkit::fake_collector::wait_for;

use crate::harness::{Call, Mesh, ROUTES, Setup, parse, run};

struct Reloading {
    mesh: Mesh,
    file: PathBuf,
    address: std::net::SocketAddr,
    service: Service,
    _folder: tempfile::TempDir,
    _running: JoinSet<()>,
}

async fn reloading() -> Reloading {
    let mesh = Mesh::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.yaml");
    let yaml = yaml(&mesh, ROUTES);
    std::fs::write(&file, &yaml).unwrap();
    let service = Service::for_test("ingress");
    service.configured_by(Source::new(&file, &[], &Env::empty()));
    let (address, running) = run(parse(&yaml), service.clone()).await;
    Reloading { mesh, file, address, service, _folder: folder, _running: running }
}

fn yaml(mesh: &Mesh, routes: &str) -> String {
    let listener = "limit_by_address: {per_second: 0}";
    Setup { routes: Some(routes), listener, ..Setup::default() }.yaml(
        mesh.authz.address(),
        mesh.limiter.address(),
        mesh.app.address(),
    )
}

impl Reloading {
    async fn status(&self, path: &str) -> u16 {
        Call::new(self.address, "GET", path).send().await.status.as_u16()
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
    let (address, running) = run(config, service.clone()).await;
    let (file, _folder) = (folder.path().join("30-office.yaml"), folder);
    let reloading = Reloading { mesh, file, address, service, _folder, _running: running };
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

/// Asks again and again on one connection until told to stop: how many answers came, and what was no 200.
async fn keep_asking(address: std::net::SocketAddr, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(connection.await) });
    let (mut answered, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
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

/// Changes of routes and clusters while eight clients ask.
const RELOADS: u64 = 8;

#[tokio::test]
async fn no_request_fails_while_the_configuration_changes() {
    let reloading = reloading().await;
    assert_eq!(reloading.status("/open/x").await, 200);
    let stop = Arc::<AtomicBool>::default();
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(keep_asking(reloading.address, Arc::clone(&stop)));
    }
    for round in 1..=RELOADS {
        // Another timeout makes another cluster: its connections go with the old one.
        let yaml =
            yaml(&reloading.mesh, &ROUTES.replace("value: /strict", &format!("value: /strict-{round}")))
                .replace("endpoints: {", &format!("connect_timeout: {round}s, endpoints: {{"));
        std::fs::write(&reloading.file, yaml).unwrap();
        reloading.reloads("applied", round).await;
        if round == RELOADS / 2 {
            std::fs::write(&reloading.file, "listeners: [").unwrap();
            reloading.reloads("refused", 1).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for (count, failed) in clients.join_all().await {
        assert!(failed.is_empty(), "{failed:?}");
        answered += count;
    }
    assert!(answered > 100, "{answered}");
}
