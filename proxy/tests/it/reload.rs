//! Changing the configuration while requests are under way.

use std::path::PathBuf;

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
    Setup { routes: Some(routes), ..Setup::default() }.yaml(
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
        let label = format!("tollgate_proxy_reloads_total{{outcome=\"{outcome}\"");
        let found = || {
            let metrics = self.service.telemetry().render_metrics().unwrap();
            metrics.lines().any(|line| line.starts_with(&label)).then_some(())
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
