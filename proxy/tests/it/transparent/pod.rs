//! A pod with a transparent sidecar, and what is outside of it, in two network namespaces.
//!
//! ```text
//! outside  10.77.0.1, fd77::1   <--veth-->   pod  10.77.0.2, fd77::2
//!          203.0.113.9, fd99::9 (strangers)       apps as root, the sidecar as 1337
//! ```

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tollgate_testkit::fake_collector::{FakeCollector, attribute};

use super::namespace::Namespace;
use crate::harness::{Answer, BoxError, Call, PATIENCE, Tls};
use crate::pki::{PROXY, Pki};

/// The sidecar's user.
pub(super) const SIDECAR: u32 = 1337;
const STATUS: &str = "127.0.0.1:7110";

/// Both namespaces, the sidecar and its collector.
pub(super) struct Pod {
    // First, so that it is gone before its namespace is.
    sidecar: Option<Child>,
    pub(super) inside: Namespace,
    pub(super) outside: Namespace,
    pub(super) pki: Pki,
    pub(super) collector: FakeCollector,
    /// Others than root may read what is in here.
    folder: TempDir,
}

impl Pod {
    /// Without a sidecar and without rules.
    pub(super) fn new() -> Self {
        let (inside, outside) = (Namespace::new(), Namespace::new());
        outside.run(&format!("ip link add out type veth peer name in netns {}", inside.id()));
        for (namespace, link, addresses) in [
            (&outside, "out", ["10.77.0.1/24", "fd77::1/64"]),
            (&inside, "in", ["10.77.0.2/24", "fd77::2/64"]),
        ] {
            namespace.run(&format!("ip link set {link} up"));
            namespace.run(&format!("ip addr add {} dev {link}", addresses[0]));
            namespace.run(&format!("ip -6 addr add {} dev {link} nodad", addresses[1]));
        }
        outside.run("ip addr add 203.0.113.9/32 dev lo");
        outside.run("ip -6 addr add fd99::9/128 dev lo nodad");
        inside.run("ip route add default via 10.77.0.1");
        inside.run("ip -6 route add default via fd77::1");
        let collector = inside.within(FakeCollector::start());
        let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
        for path in [folder.path(), &pki.path("")] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Where it was built, others than root may have no way to.
        std::fs::copy(env!("CARGO_BIN_EXE_tollgate-proxy"), folder.path().join("tollgate-proxy")).unwrap();
        Self { sidecar: None, inside, outside, pki, collector, folder }
    }

    fn binary(&self) -> PathBuf {
        self.folder.path().join("tollgate-proxy")
    }

    /// `tollgate-proxy init-iptables` with these arguments, inside, as `user`.
    pub(super) fn init_iptables(&self, user: u32, args: &[&str]) -> Output {
        let mut command = self.inside.command_as(user, &self.binary().display().to_string());
        command.arg("init-iptables").args(args).output().unwrap()
    }

    /// Applies the rules, with these arguments beside.
    pub(super) fn redirect(&self, args: &[&str]) {
        let output = self.init_iptables(0, &[&["--apply"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the sidecar as `user`, and waits until it is ready.
    pub(super) fn start(&mut self, user: u32, yaml: &str) {
        let top = format!(
            "name: sidecar\nprocess: {{listen: '{STATUS}'}}\ntelemetry: {{endpoint: 'http://{}'}}\n{}",
            self.collector.address(),
            self.pki.identity("proxy", PROXY),
        );
        let (file, log) = (self.folder.path().join("proxy.yaml"), self.folder.path().join("log"));
        std::fs::write(&file, top + yaml).unwrap();
        let mut command = self.inside.command_as(user, &self.binary().display().to_string());
        command.arg("--config").arg(&file).stdin(Stdio::null());
        command.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null());
        self.sidecar = Some(command.spawn().unwrap());
        let began = Instant::now();
        loop {
            let ready = self.inside.within(Call::new(STATUS.parse().unwrap(), "GET", "/ready").try_send());
            if ready.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.sidecar.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{ended:?}\n{}", read(&log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the sidecar tells of itself.
    pub(super) fn status(&self) -> Value {
        let answer = self.inside.within(Call::new(STATUS.parse().unwrap(), "GET", "/status").send());
        serde_json::from_str(&answer.body).unwrap()
    }

    /// How often a destination was refused that nobody has registered.
    pub(super) fn refused(&self, destination: &str) -> u64 {
        let status = self.status();
        let mut strangers = status["unregistered"].as_array().unwrap().iter();
        let one = strangers.find(|one| one["destination"] == destination);
        one.map_or(0, |one| one["refused"].as_u64().unwrap())
    }

    /// What metrics say.
    pub(super) fn metrics(&self) -> String {
        self.inside.within(Call::new(STATUS.parse().unwrap(), "GET", "/metrics").send()).body
    }

    /// The app asks `to` for a host.
    pub(super) fn app_asks(&self, to: &str, host: &str) -> Answer {
        self.inside.within(Call::new(to.parse().unwrap(), "GET", "/").header("host", host).send())
    }

    /// Somebody outside asks over TLS.
    pub(super) fn outside_asks(&self, to: &str, tls: &Tls) -> Result<Answer, BoxError> {
        self.outside.within(Call::new(to.parse().unwrap(), "GET", "/").over(tls).try_send())
    }

    /// Where requests for a host were going, in order.
    pub(super) async fn dialled(&self, host: &str) -> Vec<String> {
        let records = self.collector.access_records(1).await;
        let text = |record, key| attribute(record, key).unwrap_or_default();
        let for_host = records.iter().filter(|record| text(record, "server.address") == host);
        let mut dialled: Vec<_> = for_host
            .map(|one| format!("{}:{}", text(one, "network.local.address"), text(one, "network.local.port")))
            .collect();
        dialled.sort();
        dialled
    }

    /// Reasons and destinations of so many records, in order.
    pub(super) async fn records(&self, count: usize) -> Vec<(String, String)> {
        let records = self.collector.access_records(count).await;
        let text = |record, key| attribute(record, key).unwrap_or_default();
        let one = |record| {
            let port = text(record, "server.port");
            let address = text(record, "server.address");
            let destination = if port.is_empty() { address } else { format!("{address}:{port}") };
            (text(record, "tollgate.reason"), destination)
        };
        let mut records: Vec<_> = records.iter().map(one).collect();
        records.sort();
        records
    }
}

impl Drop for Pod {
    #[expect(clippy::print_stderr, reason = "a test that fails tells what the other process has said")]
    fn drop(&mut self) {
        if let Some(sidecar) = &mut self.sidecar {
            let _ = sidecar.kill();
            let _ = sidecar.wait();
            if std::thread::panicking() {
                eprintln!("the sidecar said:\n{}", read(&self.folder.path().join("log")));
            }
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Says back what it hears, and counts its connections.
#[derive(Debug)]
pub(super) struct Echo {
    accepted: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Echo {
    pub(super) async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address.parse::<SocketAddr>().unwrap()).await.unwrap();
        let accepted = Arc::<AtomicUsize>::default();
        let (count, mut serving) = (Arc::clone(&accepted), JoinSet::new());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Self { accepted, _serving: serving }
    }

    pub(super) fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Opens a connection, says something, and hears what comes until the other side closes or as much has come.
pub(super) async fn say(to: &str, words: &[u8]) -> Vec<u8> {
    hear(TcpStream::connect(to.parse::<SocketAddr>().unwrap()).await.unwrap(), words).await
}

pub(super) async fn hear(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let talking = async {
        let _ = stream.write_all(words).await;
        let _ = stream.flush().await;
        while heard.len() < words.len().max(1) && stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0)
        {
        }
    };
    tokio::time::timeout(PATIENCE, talking).await.expect("it is said back, or the connection ends");
    heard
}
