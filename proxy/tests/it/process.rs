//! A proxy as a process of its own, with sockets that the test has bound for it as systemd would, and clients that keep asking.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use command_fds::{CommandFdExt as _, FdMapping};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Call, PATIENCE};

/// A socket that a process is to inherit.
pub(crate) struct Passed {
    pub(crate) name: &'static str,
    pub(crate) socket: OwnedFd,
}

/// Binds one.
pub(crate) fn socket(name: &'static str) -> (SocketAddr, Passed) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    (socket.local_addr().unwrap(), Passed { name, socket: socket.into() })
}

/// A running proxy, and those that took over from it: all of one process group, which ends with this.
pub(crate) struct Process {
    pub(crate) main: SocketAddr,
    pub(crate) process: SocketAddr,
    pub(crate) folder: TempDir,
    child: Child,
}

impl Process {
    /// Serves `yaml`, which binds `127.0.0.1:0` for its listener `main` and for the process listener.
    pub(crate) async fn start(yaml: &str) -> Self {
        Self::start_with(yaml, vec![], &[]).await
    }

    /// As [`Self::start`], with further sockets and variables.
    pub(crate) async fn start_with(yaml: &str, more: Vec<Passed>, env: &[(&str, &Path)]) -> Self {
        let ((main, first), (process, second)) = (socket("main"), socket("process"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("proxy.yaml"), yaml).unwrap();
        let program = folder.path().join("tollgate-proxy");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tollgate-proxy"), &program).unwrap();
        let sockets = [first, second].into_iter().chain(more).collect();
        let child = spawn(folder.path(), sockets, env);
        let started = Self { main, process, folder, child };
        started.until("it is ready", async || started.is_ready().await).await;
        started
    }

    /// The number of the process that was started first.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("proxy.yaml")
    }

    /// Leads to another executable from now on.
    pub(crate) fn replace_program(&self, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        let (program, new) = (self.folder.path().join("tollgate-proxy"), self.folder.path().join("new"));
        std::fs::write(&new, script).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, program).unwrap();
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let call = Call::new(self.process, "GET", "/ready").try_send();
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer.is_ok_and(|answer| answer.status == 200),
            Err(_) => panic!("a question is not answered\n{}", self.log()),
        }
    }

    pub(crate) async fn metrics(&self) -> String {
        Call::new(self.process, "GET", "/metrics").send().await.body
    }

    /// What it and its successors have logged.
    pub(crate) fn log(&self) -> String {
        log(self.folder.path())
    }

    /// The lines of the log that say this.
    pub(crate) fn said(&self, what: &str) -> Vec<Value> {
        let lines = self.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(what))).collect()
    }

    /// The numbers of those that took over, in their order.
    pub(crate) fn successors(&self) -> Vec<u32> {
        let pid = |line: &Value| u32::try_from(line["pid"].as_u64().unwrap()).unwrap();
        self.said("handed over").iter().map(pid).collect()
    }

    /// Waits until it says this so many times.
    pub(crate) async fn says(&self, what: &str, times: usize) {
        self.until(what, async || self.said(what).len() >= times).await;
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !so().await {
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it has ended; its successors may go on.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill("KILL", &format!("-{}", self.child.id()));
        let _ = self.child.wait();
    }
}

pub(crate) fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Starts `folder/tollgate-proxy` with `folder/proxy.yaml` as systemd would.
pub(crate) fn spawn(folder: &Path, sockets: Vec<Passed>, env: &[(&str, &Path)]) -> Child {
    let names: Vec<&str> = sockets.iter().map(|one| one.name).collect();
    // Only the process itself knows its number.
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(folder.join("tollgate-proxy"));
    command.arg("--config").arg(folder.join("proxy.yaml")).args(["--log-format", "json"]);
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.envs(env.iter().copied());
    let log = File::options().append(true).create(true).open(folder.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let mappings = sockets.into_iter().zip(3..);
    let mappings = mappings.map(|(one, child_fd)| FdMapping { parent_fd: one.socket, child_fd }).collect();
    command.fd_mappings(mappings).unwrap();
    command.spawn().unwrap()
}

pub(crate) fn signal(name: &str, pid: u32) {
    kill(name, &pid.to_string());
}

fn kill(signal: &str, whom: &str) {
    let _ = Command::new("kill").args([&format!("-{signal}"), "--", whom]).stderr(Stdio::null()).status();
}

/// Whether a process has ended; who ends without a parent that cares may leave its number behind for a while.
pub(crate) fn is_gone(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Clients that ask at a rate until they are dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

/// Where a client's next connection goes.
pub(crate) type Choose = Arc<dyn Fn() -> SocketAddr + Send + Sync>;

impl Load {
    /// So many requests a second in all: most by clients that keep their connections, some each on a new one, and some
    /// over HTTP/2.
    pub(crate) fn start(choose: &Choose, clients: u32, rate: u32) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut asking = JoinSet::new();
        let every = Duration::from_secs(1) * clients / rate;
        for number in 0..clients {
            let (choose, stop, answered) = (Arc::clone(choose), Arc::clone(&stop), Arc::clone(&answered));
            asking.spawn(async move {
                match number % 8 {
                    6 => keep_coming(choose, stop, answered, every).await,
                    7 => keep_calling(choose, stop, answered, every).await,
                    _ => keep_asking(choose, stop, answered, every).await,
                }
            });
        }
        Self { stop, answered, clients: asking }
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were answered, and what went wrong.
    pub(crate) async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = tokio::time::timeout(PATIENCE, self.clients.join_all()).await;
        let failed = clients.expect("a request is not answered").concat();
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

fn request(uri: String) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

/// Reads an answer; tells whether it was the last of its connection.
async fn read(answer: Response<Incoming>) -> Result<bool, String> {
    let last = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    let status = answer.status();
    answer.into_body().collect().await.map_err(|error| format!("its body: {error}"))?;
    if status == 200 { Ok(last) } else { Err(status.to_string()) }
}

/// One connection until it is told to take another. It never asks a second time.
async fn keep_asking(
    choose: Choose,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    every: Duration,
) -> Vec<String> {
    let mut ticks = tokio::time::interval(every);
    let (mut failed, mut driving) = (Vec::new(), JoinSet::new());
    let named = Request::get("/open/x").header("host", "h").body(Empty::<Bytes>::new()).unwrap();
    'connections: while !stop.load(Ordering::Relaxed) {
        let io = match TcpStream::connect(choose()).await {
            Ok(stream) => TokioIo::new(stream),
            Err(error) => {
                failed.push(format!("no connection: {error}"));
                continue;
            }
        };
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        driving.spawn(async move { drop(connection.await) });
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let asked = match sender.send_request(named.clone()).await {
                Ok(answer) => read(answer).await,
                Err(error) => Err(format!("{error:?}")),
            };
            match asked {
                Ok(last) => {
                    answered.fetch_add(1, Ordering::Relaxed);
                    if last {
                        continue 'connections;
                    }
                }
                Err(error) => {
                    failed.push(error);
                    continue 'connections;
                }
            }
        }
    }
    failed
}

/// A connection for each request.
async fn keep_coming(
    choose: Choose,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    every: Duration,
) -> Vec<String> {
    let mut ticks = tokio::time::interval(every);
    let mut failed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        match Call::new(choose(), "GET", "/open/x").try_send().await {
            Ok(answer) if answer.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => failed.push(answer.status.to_string()),
            Err(error) => failed.push(format!("on a new connection: {error:?}")),
        }
    }
    failed
}

/// HTTP/2, by a client that keeps to GOAWAY. What the server took in is never asked again.
async fn keep_calling(
    choose: Choose,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    every: Duration,
) -> Vec<String> {
    let mut ticks = tokio::time::interval(every);
    let mut failed = Vec::new();
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = loop {
            match client.request(request(format!("http://{}/open/x", choose()))).await {
                Ok(answer) => break read(answer).await.map(drop),
                // It crossed a GOAWAY, so nobody has seen it: to be asked again on another connection (RFC 9113, 6.8).
                Err(error) if format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)") => {}
                Err(error) => break Err(format!("over HTTP/2: {error:?}")),
            }
        };
        match asked {
            Ok(()) => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => failed.push(error),
        }
    }
    failed
}
