//! The two servers, each a process of its own on a core of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tollgate_authz::Store;
use tollgate_authz::policy::documents;
use tollgate_authz::store::Authorship;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;
use tollgate_testkit::fake_collector::FakeCollector;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::signer::Signer;

/// The argument with which this program is the empty service.
pub(crate) const EMPTY: &str = "serve-empty";
pub(crate) const ISSUER: &str = "https://issuer.demo";
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Whether its answers say something.
    pub(crate) must_allow: bool,
    _around: Option<(TempDir, FakeCollector)>,
}

impl Server {
    /// The empty service.
    pub(crate) fn empty() -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let mut child =
            on_core(&program).arg(EMPTY).stdout(Stdio::piped()).spawn().expect("taskset is installed");
        let mut line = String::new();
        let words = child.stdout.take().expect("it was asked for");
        BufReader::new(words).read_line(&mut line).expect("it says its address");
        let address = line.trim().parse().expect("an address");
        Self { child, address, must_allow: false, _around: None }
    }

    /// The authorization service with the demo policy.
    pub(crate) async fn authz(signer: &Signer) -> Self {
        let folder = TempDir::new().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/policy");
        let mut all: Vec<_> = documents::load_dir(&policy)
            .expect("the demo")
            .into_iter()
            .map(|written| written.document)
            .collect();
        let issuer = json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": signer.jwks()});
        all.push(serde_json::from_value(issuer).expect("an issuer"));
        let store = Store::open(&Secret::new(&url), Clock::system()).await.expect("a store");
        store.apply(all, Authorship::new("bench", "set up"), false, false).await.expect("a policy");
        store.close().await;

        let collector = FakeCollector::start().await;
        let free =
            || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let (grpc, http) = (free(), free());
        let file = folder.path().join("authz.yaml");
        let config = json!({
            "listen": {"grpc": grpc, "http": http},
            "database": {"url": url},
            "bootstrap": {"token_file": folder.path().join("token")},
            "process": {"listen": null},
            "telemetry": {"endpoint": format!("http://{}", collector.address()), "log": "warn"},
        });
        std::fs::write(&file, config.to_string()).expect("a file");
        let program = Path::new(env!("CARGO_BIN_EXE_tollgate-authz"));
        let child = on_core(program).arg("--config").arg(&file).spawn().expect("taskset is installed");
        let up = async {
            while tokio::net::TcpStream::connect(grpc).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START_DEADLINE, up).await.expect("it starts in time");
        Self { child, address: grpc, must_allow: true, _around: Some((folder, collector)) }
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let of_thread = |thread: std::fs::DirEntry| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            text.split_whitespace()
                .next()
                .and_then(|nanos| nanos.parse().ok())
                .map_or(Duration::ZERO, Duration::from_nanos)
        };
        tasks.flatten().map(of_thread).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on_core(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", SERVER_CORE]).arg(program);
    command
}

/// Clients and the collector keep off the servers' core.
pub(crate) fn pin_this_process() {
    let id = std::process::id().to_string();
    let pinned =
        Command::new("taskset").args(["-a", "-c", "-p", CLIENT_CORE, &id]).stdout(Stdio::null()).status();
    assert!(pinned.is_ok_and(|status| status.success()), "this needs taskset (util-linux) and two cores");
}

/// Decodes and answers nothing.
struct Empty;

#[tonic::async_trait]
impl Authorization for Empty {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        drop(request.into_inner());
        Ok(Response::new(CheckResponse::default()))
    }
}

/// The empty service, with the same settings as the real one.
#[expect(clippy::print_stdout, reason = "the address goes to whoever started this")]
pub(crate) fn serve_empty() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("bound"));
        tonic::transport::Server::builder()
            .max_concurrent_streams(1024)
            .add_service(AuthorizationServer::new(Empty))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await
            .expect("it serves");
    });
}
