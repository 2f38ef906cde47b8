//! What a proxy tells the record of a rollout about its canary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_proto::rollout::rollouts_server::{Rollouts, RolloutsServer};
use tollgate_proto::rollout::{Arm, ReportRequest, ReportResponse, Standing, State, Window};
use tollgate_runtime::Service;
use tollgate_runtime::config::ServiceConfig as _;
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::fake_collector::wait_for;
use tollgate_testkit::grpc::Server;
use tonic::{Request, Response, Status};

use crate::harness::{Call, PATIENCE, parse, run};

/// A record that keeps what it is told, and lets half of the requests go to the canary.
#[derive(Debug, Clone, Default)]
struct Record {
    windows: Arc<Mutex<BTreeMap<u64, Window>>>,
}

#[tonic::async_trait]
impl Rollouts for Record {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let told = request.into_inner().rollouts;
        let mut windows = self.windows.lock();
        windows.extend(told.iter().filter_map(|told| Some((told.sequence, told.window.clone()?))));
        let standing = Standing {
            generation: 1,
            state: State::Progressing.into(),
            weight_millionths: 500_000,
            ..Standing::default()
        };
        Ok(Response::new(ReportResponse { rollouts: vec![standing; told.len()] }))
    }
}

impl Record {
    /// Requests of both versions that were good, failed, and took a time.
    fn counted(&self) -> (u64, u64, u64) {
        let windows = self.windows.lock();
        let arms: Vec<&Arm> =
            windows.values().flat_map(|window| [&window.baseline, &window.canary]).flatten().collect();
        let sum = |count: fn(&Arm) -> u64| arms.iter().map(|arm| count(arm)).sum();
        (sum(|arm| arm.ok), sum(|arm| arm.failed), sum(|arm| arm.latency.iter().sum()))
    }
}

struct Mesh {
    record: Record,
    app: EchoApp,
    address: SocketAddr,
    service: Service,
    running: JoinSet<()>,
    _server: Server,
}

impl Mesh {
    /// Its route waits so long for an answer.
    async fn start(timeout: &str) -> Self {
        let (record, app) = (Record::default(), EchoApp::start().await);
        let server = Server::start(RolloutsServer::new(record.clone())).await;
        let (authz, app_at) = (server.address(), app.address());
        let config = parse(&format!(
            "name: proxy
process: {{listen: '127.0.0.1:0', shutdown_grace: 60s}}
authz: {{address: 'http://{authz}'}}
listeners: [{{name: main, bind: '127.0.0.1:0', role: sidecar}}]
routes:
  - name: all
    service: shop/orders
    matches: [{{path: {{type: PathPrefix, value: /}}}}]
    authz: off
    timeout: {timeout}
    backends: [{{cluster: old}}, {{cluster: new}}]
    rollout:
      name: new
      canary: new
      steps: [{{weight: 50, hold: 1h}}]
      report_interval: 200ms
      alone_after: 10m
clusters:
  - {{name: old, endpoints: {{static: ['{app_at}']}}, outlier_detection: {{enabled: false}}}}
  - {{name: new, endpoints: {{static: ['{app_at}']}}, outlier_detection: {{enabled: false}}}}
"
        ));
        let service = Service::start(config.instance_name(), config.process(), config.telemetry()).unwrap();
        let (address, running) = run(config, service.clone()).await;
        Self { record, app, address, service, running, _server: server }
    }

    async fn until_counted(&self, expected: (u64, u64, u64)) {
        let found = wait_for(|| (self.record.counted() == expected).then_some(())).await;
        found.unwrap_or_else(|| panic!("{:?} were counted", self.record.counted()));
    }
}

#[tokio::test]
async fn a_caller_who_does_not_wait_tells_nothing_about_the_canary() {
    let mesh = Mesh::start("300ms").await;
    mesh.app.behave("hold");
    let call = |timeout: &'static str| {
        let call = Call::new(mesh.address, "POST", "/test.Service/Call");
        call.header("content-type", "application/grpc").header("grpc-timeout", timeout).send()
    };
    for timeout in ["1n", "1n", "20m", "20m"] {
        assert_eq!(call(timeout).await.header("grpc-status"), Some("4"), "{timeout}");
    }
    // The route waits less long than this caller: that is the upstream's doing.
    assert_eq!(call("1H").await.header("grpc-status"), Some("4"));
    mesh.app.behave("");
    assert_eq!(Call::new(mesh.address, "GET", "/").send().await.status, 200);
    mesh.until_counted((1, 1, 6)).await;
}

#[tokio::test]
async fn what_ends_while_a_proxy_stops_is_told_though_something_else_goes_on() {
    let mut mesh = Mesh::start("60s").await;
    let mut endless = TcpStream::connect(mesh.address).await.unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nx-behave: drip\r\n\r\n").await.unwrap();
    endless.read_u8().await.unwrap();
    mesh.app.behave("hold");
    let mut last = TcpStream::connect(mesh.address).await.unwrap();
    last.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    wait_for(|| (mesh.app.seen().len() == 2).then_some(())).await.expect("both are under way");
    let mut stopping = JoinSet::new();
    let service = mesh.service.clone();
    stopping.spawn(async move { service.stop().await });
    let gone = async {
        while TcpStream::connect(mesh.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it stops to listen");
    mesh.app.behave("");
    let mut heard = String::new();
    last.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    mesh.until_counted((1, 0, 1)).await;
    assert!(stopping.try_join_next().is_none(), "the other one goes on");
    drop(endless);
    stopping.join_next().await.unwrap().unwrap();
    while mesh.running.join_next().await.is_some() {}
}
