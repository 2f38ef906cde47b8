//! What a proxy tells the record of a rollout about its canary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// So many windows more it does not take.
    refuses: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Rollouts for Record {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let told = request.into_inner().rollouts;
        let one_less = |left: usize| left.checked_sub(1);
        if told.iter().any(|told| told.sequence > 0)
            && self.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
        {
            return Err(Status::unavailable("the report was not kept; send it again"));
        }
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
    /// Its route has these keys as well.
    async fn start(route: &str) -> Self {
        let (record, app) = (Record::default(), EchoApp::start().await);
        let server = Server::start(RolloutsServer::new(record.clone())).await;
        let (authz, app_at) = (server.address(), app.address());
        let config = parse(&format!(
            "name: proxy
process: {{listen: '127.0.0.1:0', shutdown_grace: 60s}}
# Tests share the processor with what they test; what is refused for that reaches no version.
overload: {{mode: off}}
authz: {{address: 'http://{authz}'}}
listeners: [{{name: main, bind: '127.0.0.1:0', role: sidecar}}]
routes:
  - name: all
    service: shop/orders
    matches: [{{path: {{type: PathPrefix, value: /}}}}]
    authz: off
    {route}
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

    /// Tells it to stop, and waits until it listens no more.
    async fn begin_to_stop(&self) -> JoinSet<()> {
        let (service, mut stopping) = (self.service.clone(), JoinSet::new());
        stopping.spawn(async move { service.stop().await });
        let gone = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it stops to listen");
        stopping
    }

    async fn until_counted(&self, expected: (u64, u64, u64)) {
        let found = wait_for(|| (self.record.counted() == expected).then_some(())).await;
        found.unwrap_or_else(|| panic!("{:?} were counted", self.record.counted()));
    }
}

#[tokio::test]
async fn a_caller_who_does_not_wait_tells_nothing_about_the_canary() {
    let mesh = Mesh::start("timeout: 300ms").await;
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

/// Asks, with further lines of the head.
async fn ask(mesh: &Mesh, lines: &str) -> TcpStream {
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: h\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The answer that has come when the connection is closed.
async fn answer(mut stream: TcpStream) -> String {
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    heard
}

/// A request ends while the proxy stops, and the record does not take so many of the reports of it. Another request may
/// go on meanwhile.
async fn ends_while_it_stops(goes_on: bool, refused: usize) {
    let mut mesh = Mesh::start("timeout: 60s").await;
    let mut endless = None;
    if goes_on {
        let mut stream = ask(&mesh, "x-behave: drip\r\n").await;
        stream.read_u8().await.unwrap();
        endless = Some(stream);
    }
    mesh.app.behave("hold");
    let last = ask(&mesh, "").await;
    let asked = 1 + usize::from(goes_on);
    wait_for(|| (mesh.app.seen().len() == asked).then_some(())).await.expect("they are under way");
    let mut stopping = mesh.begin_to_stop().await;
    mesh.record.refuses.store(refused, Ordering::SeqCst);
    mesh.app.behave("");
    let heard = answer(last).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    mesh.until_counted((1, 0, 1)).await;
    assert_eq!(mesh.record.refuses.load(Ordering::SeqCst), 0);
    if goes_on {
        assert!(stopping.try_join_next().is_none(), "the other one goes on");
    }
    drop(endless);
    stopping.join_next().await.unwrap().unwrap();
    while mesh.running.join_next().await.is_some() {}
}

#[tokio::test]
async fn what_ends_while_a_proxy_stops_is_told_though_something_else_goes_on() {
    ends_while_it_stops(true, 0).await;
}

#[tokio::test]
async fn a_report_that_fails_while_a_proxy_stops_is_sent_again() {
    // As long as something goes on, and a few times after that.
    tokio::join!(ends_while_it_stops(true, 5), ends_while_it_stops(false, 2));
}

#[tokio::test]
async fn a_request_that_had_no_version_yet_when_the_proxy_was_to_stop_is_counted() {
    let mut mesh = Mesh::start("fault: {delay: {percent: 100, duration: 1s}}").await;
    let late = ask(&mesh, "").await;
    let mut stopping = mesh.begin_to_stop().await;
    let heard = answer(late).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    mesh.until_counted((1, 0, 1)).await;
    stopping.join_next().await.unwrap().unwrap();
    while mesh.running.join_next().await.is_some() {}
}
