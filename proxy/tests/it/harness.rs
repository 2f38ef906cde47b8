//! A proxy between fakes, and clients for it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tollgate_proxy::{Addresses, App, Config};
use tollgate_runtime::config::{Env, ServiceConfig as _, load_text};
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::fake_authz::FakeAuthz;
use tollgate_testkit::fake_collector::FakeCollector;
use tollgate_testkit::fake_ratelimit::FakeRateLimit;

/// The routes that most tests use.
pub(crate) const ROUTES: &str = r#"
routes:
  - name: healthz
    matches: [{path: {type: Exact, value: /healthz}}]
    authz: off
    direct_response: {status: 200, body: "ok\n", when_ready: [self]}
  - name: policies
    service: insurance/policies
    matches: [{path: {type: Exact, value: /policies}}, {path: {type: PathTemplate, value: "/policies/{id}"}}]
    backends: [{cluster: app}]
    timeout: 500ms
    descriptors: [[{key: subject, value: "{token.subject}"}]]
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
    timeout: 500ms
  - name: patient
    matches: [{path: {type: PathPrefix, value: /patient}}]
    authz: off
    backends: [{cluster: app}]
  - name: forgiving
    matches: [{path: {type: PathPrefix, value: /forgiving}}]
    authz: {on_error: allow}
    backends: [{cluster: app}]
  - name: strict
    matches: [{path: {type: PathPrefix, value: /strict}}]
    authz: off
    backends: [{cluster: app}]
    rate_limit: {on_error: deny}
    descriptors: [[{key: route, value: "{route.name}"}]]
"#;

/// How long a test waits for what should come by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running proxy with everything around it.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) authz: FakeAuthz,
    pub(crate) limiter: FakeRateLimit,
    pub(crate) app: EchoApp,
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
    running: JoinSet<()>,
}

/// What differs from test to test.
#[derive(Debug, Default)]
pub(crate) struct Setup<'s> {
    /// Keys of the listener, as a YAML flow map without its braces.
    pub(crate) listener: &'s str,
    /// Keys of the cluster `app`.
    pub(crate) cluster: &'s str,
    /// More clusters, as YAML flow maps, each with a comma before it.
    pub(crate) clusters: &'s str,
    /// In place of the echo app.
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) collector: Option<SocketAddr>,
    /// In place of [`ROUTES`].
    pub(crate) routes: Option<&'s str>,
    pub(crate) trust_traceparent: bool,
    /// Further keys of `edge`, each with a comma before it.
    pub(crate) edge: &'s str,
    /// Further top keys, each a whole line.
    pub(crate) top: &'s str,
    /// Further keys of `process`, each with a comma before it.
    pub(crate) process: &'s str,
}

impl Setup<'_> {
    pub(crate) fn yaml(&self, authz: SocketAddr, limiter: SocketAddr, app: SocketAddr) -> String {
        let collector = self.collector.map(|at| format!("telemetry: {{endpoint: 'http://{at}'}}\n"));
        // Tests share the processor with what they test, and with each other.
        let overload = if self.top.contains("overload:") { "" } else { "overload: {mode: off}\n" };
        let role = if self.listener.contains("role:") { "" } else { "role: ingress," };
        format!(
            "name: ingress\n{}{}{overload}process: {{listen: '127.0.0.1:0', shutdown_grace: 5s{}}}\nedge: {{trust_traceparent: {}{}}}\n\
             authz: {{address: 'http://{authz}', timeout: 300ms}}\n\
             rate_limit: {{address: 'http://{limiter}', domain: insurance, timeout: 300ms}}\n\
             listeners: [{{name: main, bind: '127.0.0.1:0', {role} {}}}]\n\
             clusters: [{{name: app, endpoints: {{static: ['{}']}}, {}}}{}]\n{}",
            collector.unwrap_or_default(),
            self.top,
            self.process,
            self.trust_traceparent,
            self.edge,
            self.listener,
            self.upstream.unwrap_or(app),
            self.cluster,
            self.clusters,
            self.routes.unwrap_or(ROUTES),
        )
    }

    pub(crate) async fn start(self) -> Mesh {
        let (authz, limiter, app) =
            (FakeAuthz::start().await, FakeRateLimit::start().await, EchoApp::start().await);
        let config = parse(&self.yaml(authz.address(), limiter.address(), app.address()));
        let service = Service::start(config.instance_name(), config.process(), config.telemetry()).unwrap();
        let (address, running) = run(config, service.clone()).await;
        Mesh { authz, limiter, app, address, service, running }
    }
}

pub(crate) fn parse(yaml: &str) -> Config {
    load_text(Path::new("proxy.yaml"), yaml, &[], &Env::empty())
        .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// Builds and runs a proxy; it stops with the set.
pub(crate) async fn run(config: Config, service: Service) -> (SocketAddr, JoinSet<()>) {
    let (addresses, running) = run_all(config, service).await;
    (addresses.of("main").unwrap(), running)
}

/// The same, with the addresses of all its listeners.
pub(crate) async fn run_all(config: Config, service: Service) -> (Addresses, JoinSet<()>) {
    let built = App::build(config, service).await.unwrap();
    let addresses = built.addresses().clone();
    let mut running = JoinSet::new();
    running.spawn(async move { built.run().await.unwrap() });
    (addresses, running)
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        Call::new(self.address, "GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Call {
        let mut call = Call::new(self.address, "POST", path);
        call.body = Bytes::copy_from_slice(body.as_bytes());
        call
    }

    /// What the proxy says of itself.
    pub(crate) async fn status(&self) -> Value {
        let answer = Call::new(self.service.process_address().unwrap(), "GET", "/status").send().await;
        serde_json::from_str(&answer.body).unwrap()
    }

    /// What it says of one cluster.
    pub(crate) async fn cluster(&self, name: &str) -> Value {
        let status = self.status().await;
        let mut clusters = status["clusters"].as_array().unwrap().iter();
        clusters.find(|cluster| cluster["name"] == name).unwrap().clone()
    }

    /// Waits until it says something of a cluster.
    pub(crate) async fn until(&self, cluster: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let cluster = self.cluster(cluster).await;
            if so(&cluster) {
                return cluster;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}: {cluster:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the proxy as a signal would, and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        self.service.stop().await;
        while self.running.join_next().await.is_some() {}
    }
}

/// Whatever went wrong.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
    http2: bool,
    tls: Option<Tls>,
}

/// How a client speaks TLS, and the name that it asks for.
pub(crate) type Tls = (Arc<ClientConfig>, &'static str);

/// Its answer, read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn reason(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }
}

impl Call {
    pub(crate) fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let request = Request::builder().method(method).uri(path);
        Self { address, request, body: Bytes::new(), http2: false, tls: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.request = self.request.method(method);
        self
    }

    pub(crate) fn bearer(self, subject: &str) -> Self {
        self.header("authorization", &format!("Bearer {subject}"))
    }

    pub(crate) fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Over TLS.
    pub(crate) fn over(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub(crate) async fn send(self) -> Answer {
        self.try_send().await.unwrap()
    }

    /// As [`Self::send`]; an error when there is no whole answer.
    pub(crate) async fn try_send(mut self) -> Result<Answer, BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        match self.tls.take() {
            None => self.send_on(stream).await,
            Some((config, name)) => {
                let name = ServerName::try_from(name).unwrap();
                let stream = TlsConnector::from(config).connect(name, stream).await?;
                self.send_on(stream).await
            }
        }
    }

    async fn send_on<S>(self, stream: S) -> Result<Answer, BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let mut driving = JoinSet::new();
        let response = if self.http2 {
            let path = self.request.uri_ref().unwrap().to_string();
            let uri = format!("http://policies.insurance{path}");
            let request = self.request.uri(uri).body(Full::new(self.body)).unwrap();
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            driving.spawn(async move { drop(connection.await) });
            sender.send_request(request).await?
        } else {
            let named = self.request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
            let request =
                if named { self.request } else { self.request.header("host", "policies.insurance") };
            let (mut sender, connection) = http1::handshake(io).await?;
            driving.spawn(async move { drop(connection.await) });
            sender.send_request(request.body(Full::new(self.body)).unwrap()).await?
        };
        Ok(read(response).await?)
    }
}

/// What became of a request that was sent while the proxy stopped.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It was answered, to the end.
    Answer(u16),
    /// Its connection was closed before a byte was answered.
    NotTaken,
    /// Its answer broke off.
    CutOff,
}

impl Call {
    pub(crate) async fn fate(self) -> Fate {
        match self.try_send().await {
            Ok(answer) => Fate::Answer(answer.status.as_u16()),
            Err(error) => match error.downcast_ref::<hyper::Error>() {
                Some(error) if error.is_body_write_aborted() || error.to_string().contains("body") => {
                    Fate::CutOff
                }
                _ => Fate::NotTaken,
            },
        }
    }
}

/// One endpoint of a cluster, as the proxy tells of it.
pub(crate) fn endpoint(cluster: &Value, address: SocketAddr) -> Value {
    let mut endpoints = cluster["endpoints"].as_array().unwrap().iter();
    endpoints.find(|endpoint| endpoint["address"] == address.to_string()).unwrap().clone()
}

pub(crate) async fn read(response: Response<hyper::body::Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body, trailers })
}

/// Sends bytes as they are and returns all that comes back until the other side closes or `patience` is over.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The proxy may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut heard)).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// What clients noticed of many requests.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) asked: usize,
    /// Not answered 200.
    pub(crate) failed: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Figures {
    /// So many `GET`s from so many clients, each on a connection of its own.
    pub(crate) async fn of(address: SocketAddr, path: &'static str, each: usize, clients: usize) -> Self {
        let mut asking = JoinSet::new();
        for _ in 0..clients {
            asking.spawn(async move {
                let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
                let (mut sender, connection) = http1::handshake(io).await.unwrap();
                let mut driving = JoinSet::new();
                driving.spawn(async move { drop(connection.await) });
                let mut answers = Vec::with_capacity(each);
                for _ in 0..each {
                    let request = Request::get(path).header("host", "h").body(Full::<Bytes>::default());
                    let began = Instant::now();
                    let answer = sender.send_request(request.unwrap()).await.unwrap();
                    let status = read(answer).await.unwrap().status;
                    answers.push((status == 200, began.elapsed()));
                }
                answers
            });
        }
        let answers = asking.join_all().await.concat();
        let mut times: Vec<Duration> = answers.iter().map(|(_, took)| *took).collect();
        times.sort_unstable();
        Self {
            asked: answers.len(),
            failed: answers.iter().filter(|(good, _)| !good).count(),
            p50: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = 100.0 * self.failed as f64 / self.asked as f64;
        let [p50, p99] = [self.p50, self.p99].map(|time| time.as_secs_f64() * 1000.0);
        write!(f, "{share:.1} % of {} failed, p50 {p50:.1} ms, p99 {p99:.1} ms", self.asked)
    }
}

/// The collector of a test that reads telemetry, and a mesh that reports to it.
pub(crate) async fn observed(setup: Setup<'_>) -> (Mesh, FakeCollector) {
    let collector = FakeCollector::start().await;
    let mesh = Setup { collector: Some(collector.address()), ..setup }.start().await;
    (mesh, collector)
}
