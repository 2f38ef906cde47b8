//! Drives the whole chain as `tollgate up` runs it: proxies, both services, the dashboard, the apps.
//!
//! The stories are in `tests/it`, one a file. Here is what they share: starting a mesh on free ports
//! with a data folder of its own, asking it as a client would, and reading the dashboard as an
//! operator would.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::demo::issuer::{Grant, Issuer};
use tollgate::up::{Mesh, Options, Ports};
use tollgate_identity::{Shown, pem};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

/// How long anything that happens by itself may take before a story gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running mesh and its client.
pub struct Demo {
    /// The system itself.
    pub mesh: Mesh,
    issuer: Issuer,
    client: reqwest::Client,
    folder: TempDir,
}

/// What a client got.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, `null` where it is not JSON.
    pub body: Value,
}

impl Answer {
    /// One header's text, empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The id that leads to the records of this request.
    pub fn request_id(&self) -> String {
        self.header("x-request-id").to_owned()
    }
}

impl Demo {
    /// Starts a mesh with embedded stores and no traffic of its own.
    pub async fn start() -> Self {
        Self::start_with(Env::empty()).await
    }

    /// Starts a mesh that finds these variables in its environment.
    pub async fn start_with(env: Env) -> Self {
        Self::start_as(env, &[]).await
    }

    /// As [`Self::start_with`], with more of what `tollgate up --set` takes.
    pub async fn start_as(env: Env, more: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        // Unoptimised code on a busy machine: what is tested is not how fast an answer comes.
        let sets = [
            "ingress.authz.timeout=5s",
            "ingress.rate_limit.timeout=5s",
            "policies-sidecar.authz.timeout=5s",
            "payments-sidecar.authz.timeout=5s",
            "quotes-sidecar.authz.timeout=5s",
            "policies-next-sidecar.authz.timeout=5s",
            "egress.authz.timeout=5s",
            // Version 1.1 answers whoever asks for it; a story that is about its share sets that.
            "ingress.routes.1.backends=[{cluster: policies, weight: 100}, {cluster: policies-1.1, weight: 0}]",
            "ratelimit.counters.redis.timeout=1s",
        ];
        let sets = sets.iter().chain(more).map(|&set| set.to_owned()).collect();
        let options = Options { data: folder.path().to_owned(), ports: Ports::Free, traffic: 0, sets, env };
        let mesh = Mesh::start(&options).await.expect("the mesh starts");
        mesh.ready(PATIENCE).await.expect("the mesh becomes ready");
        let issuer = Issuer::open(folder.path()).expect("the mesh made the demo issuer");
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client can be made");
        Self { mesh, issuer, client, folder }
    }

    /// The data folder.
    pub fn data(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A token of the demo issuer.
    pub fn token(&self, subject: &str, scopes: &[&str]) -> String {
        self.grant(subject, scopes, false)
    }

    /// A token that expired an hour ago.
    pub fn expired_token(&self, subject: &str, scopes: &[&str]) -> String {
        self.grant(subject, scopes, true)
    }

    fn grant(&self, subject: &str, scopes: &[&str], expired: bool) -> String {
        self.sign(subject, scopes, expired, None)
    }

    /// A token that is good with one certificate only: that of [`Self::workload`] of this name.
    pub fn bound_token(&self, subject: &str, scopes: &[&str], client: &str) -> String {
        self.sign(subject, scopes, false, Some(self.certificate(client).sha256))
    }

    /// The certificate of [`Self::workload`] of this name.
    pub fn certificate(&self, client: &str) -> Shown {
        let chain = pem::certificates(&self.data().join("clients").join(client).join("tls.crt"));
        Shown::read(&chain.expect("the client has a certificate")[0]).expect("a certificate")
    }

    fn sign(&self, subject: &str, scopes: &[&str], expired: bool, bound_to: Option<[u8; 32]>) -> String {
        let grant = Grant {
            subject: subject.to_owned(),
            client: "e2e".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ttl: Duration::from_secs(600),
            expired,
            bound_to,
        };
        self.issuer.token(&grant, &Clock::system()).expect("the demo issuer signs")
    }

    /// Sends one request through the ingress.
    pub async fn send(&self, method: Method, path: &str, token: Option<&str>) -> Answer {
        self.send_with(method, path, token, &[]).await
    }

    /// As [`Self::send`], with more headers.
    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.send_to(self.mesh.addresses().ingress, method, path, token, headers).await
    }

    /// Sends one request to any listener.
    pub async fn send_to(
        &self,
        to: SocketAddr,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.client.request(method.clone(), format!("http://{to}{path}"));
        if method == Method::POST {
            request = request.json(&json!({ "holder": "e2e" }));
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("the listener answers");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.expect("the body arrives");
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    /// `GET` through the ingress.
    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(Method::GET, path, token).await
    }

    /// Signs in to the dashboard with a new one-click link.
    pub async fn operator(&self) -> Operator {
        let link = self.mesh.login_link().await.expect("the dashboard gives a link");
        Operator::sign_in(&link).await
    }

    /// `PUT` under the admin API's `/v1`, in force when this returns.
    pub async fn put(&self, path: &str, object: &Value) {
        let admin = self.mesh.create_administrator("e2e").await.expect("an administrator can be made");
        let url = format!("http://{}/v1/{path}?wait=applied", self.mesh.addresses().authz_http);
        // A new administrator is known as soon as the policy is read again.
        eventually("the new administrator may write", async || {
            let request = self.client.put(&url).bearer_auth(&admin).json(object);
            request.send().await.expect("the admin API answers").status().is_success()
        })
        .await;
    }

    /// A client that shows a certificate of the mesh's authority, issued for `id`. It knows servers by their names.
    pub async fn workload(&self, id: &str) -> reqwest::Client {
        self.client_of(id, false).await
    }

    /// As [`Self::workload`], and it also talks to servers without a name, such as sidecars, and names hosts in HTTP/1.1.
    pub async fn workload_in_the_mesh(&self, id: &str) -> reqwest::Client {
        self.client_of(id, true).await
    }

    async fn client_of(&self, id: &str, in_the_mesh: bool) -> reqwest::Client {
        let folder = self.data().join("clients").join(id.rsplit('/').next().unwrap_or("client"));
        self.mesh.issue(id, &folder).await.expect("the authority signs");
        let read = |name: &str| std::fs::read(folder.join(name)).expect("it was written");
        let identity = [read("tls.crt"), read("tls.key")].concat();
        let mut builder = reqwest::Client::builder().timeout(PATIENCE);
        if in_the_mesh {
            // There a request's host is a service's name, and the connection goes to an address.
            builder = builder.tls_danger_accept_invalid_hostnames(true).http1_only();
        }
        builder
            .tls_certs_only([reqwest::Certificate::from_pem(&read("ca.crt")).expect("a root")])
            .identity(reqwest::Identity::from_pem(&identity).expect("a certificate and its key"))
            .build()
            .expect("a client can be made")
    }

    /// Drains and ends everything.
    pub async fn stop(self) {
        self.mesh.stop().await;
    }
}

/// Somebody signed in to the dashboard.
pub struct Operator {
    client: reqwest::Client,
    base: String,
    cookie: String,
    csrf: String,
}

impl Operator {
    /// Follows a one-click link: `http://host/login#token=…`.
    pub async fn sign_in(link: &str) -> Self {
        let (page, token) = link.split_once("#token=").expect("the link carries a token");
        let base = page.trim_end_matches("/login").to_owned();
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client can be made");
        let answer = client
            .post(format!("{base}/api/v1/auth/login"))
            .json(&json!({ "token": token }))
            .send()
            .await
            .expect("the dashboard answers");
        assert_eq!(answer.status(), StatusCode::OK, "the one-click token signs in");
        let cookie = answer.headers()["set-cookie"]
            .to_str()
            .expect("an ASCII cookie")
            .split(';')
            .next()
            .map(str::to_owned);
        let body: Value = answer.json().await.expect("JSON");
        let csrf = body["csrf"].as_str().expect("a CSRF token").to_owned();
        Self { client, base, cookie: cookie.expect("a cookie"), csrf }
    }

    /// `GET` under `/api/v1`.
    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = self.client.get(format!("{}/api/v1{path}", self.base)).header("cookie", &self.cookie);
        let answer = request.send().await.expect("the dashboard answers");
        (answer.status(), answer.json().await.unwrap_or(Value::Null))
    }

    /// `POST` under `/api/v1`.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self
            .client
            .post(format!("{}/api/v1{path}", self.base))
            .header("cookie", &self.cookie)
            .header("x-csrf-token", &self.csrf)
            .json(body);
        let answer = request.send().await.expect("the dashboard answers");
        (answer.status(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Waits until `path` answers with something that `done` accepts.
    pub async fn wait_for(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let (status, body) = self.get(path).await;
            if status == StatusCode::OK && done(&body) {
                return body;
            }
            assert!(started.elapsed() < PATIENCE, "{path} did not come to show it: {status} {body:#}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Waits until `done` holds.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut done: F) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// All attributes of one record as the dashboard's API groups them.
pub fn attribute<'a>(record: &'a Value, key: &str) -> Option<&'a Value> {
    record["groups"]
        .as_array()?
        .iter()
        .filter_map(|group| group["attributes"].as_array())
        .flatten()
        .find(|attribute| attribute["key"] == key)
        .map(|attribute| &attribute["value"])
}
