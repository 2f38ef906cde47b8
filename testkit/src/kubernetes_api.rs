//! The part of a cluster's API that tells of EndpointSlices: lists and watches over TLS, to whoever shows the token.
//!
//! It answers as an API server of Kubernetes 1.33 does, as far as its documentation says: one version for all that happens, events
//! from a version on, 410 for a version that is forgotten, bookmarks, `Status` objects for refusals. And it misbehaves when told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::authority::Authority;

/// The token that is taken until another is set.
pub const TOKEN: &str = "the-token-of-a-service-account";
/// Events that wait for a watcher; one that is slower is cut off.
const MAX_WAITING: usize = 256;

/// A cluster's API. It stops when dropped.
pub struct KubernetesApi {
    address: SocketAddr,
    root_pem: String,
    state: Arc<Mutex<State>>,
    away: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// How lists are answered.
#[derive(Debug, Clone, Default)]
pub enum Lists {
    /// With the slices.
    #[default]
    Honest,
    /// With this.
    Say(String),
    /// With spaces, and no end.
    Endless,
    /// With a status, a message, and after how many seconds to come again.
    Refuse(u16, String, Option<u64>),
}

#[derive(Debug)]
struct State {
    token: String,
    lists: Lists,
    /// By namespace and name.
    slices: BTreeMap<(String, String), Value>,
    version: u64,
    /// What happened up to this version is forgotten.
    forgotten: u64,
    events: Vec<Event>,
    watchers: Vec<Watcher>,
    asked: Vec<String>,
}

#[derive(Debug, Clone)]
struct Event {
    version: u64,
    of: Of,
    line: Bytes,
}

/// Which slices: a namespace, and a Service in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Of {
    namespace: String,
    service: String,
}

#[derive(Debug)]
struct Watcher {
    of: Of,
    lines: mpsc::Sender<Bytes>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl KubernetesApi {
    /// An API without any slice, on a port of its own.
    #[expect(clippy::disallowed_methods, reason = "a fake owns its task by its handle")]
    pub async fn start() -> Self {
        let root = Authority::new("kubernetes");
        let signed = root.server(&[IpAddr::from([127, 0, 0, 1])]);
        let chain = vec![CertificateDer::from(signed.certificate)];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.key));
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|tls| tls.with_no_client_auth().with_single_cert(chain, key))
            .expect("a certificate that was just signed can be used");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State {
            token: TOKEN.to_owned(),
            lists: Lists::Honest,
            slices: BTreeMap::new(),
            version: 1000,
            forgotten: 0,
            events: Vec::new(),
            watchers: Vec::new(),
            asked: Vec::new(),
        }));
        let (away, is_away) = watch::channel(false);
        let tls = TlsAcceptor::from(Arc::new(tls));
        let task = tokio::spawn(serve(listener, tls, Arc::clone(&state), is_away));
        Self { address, root_pem: root.root_pem(), state, away, task }
    }

    /// `https://…`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The root of its certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Puts into a folder what a pod of this namespace finds there: `ca.crt`, `token` and `namespace`.
    pub fn mount(&self, folder: &Path, namespace: &str) {
        for (name, text) in [
            ("ca.crt", self.root_pem.as_str()),
            ("token", &self.state.lock().token),
            ("namespace", namespace),
        ] {
            std::fs::write(folder.join(name), text).expect("the folder can be written to");
        }
    }

    /// Takes this token alone from now on.
    pub fn take_token(&self, token: &str) {
        token.clone_into(&mut self.state.lock().token);
    }

    /// A slice, new or changed. What the server adds is added.
    pub fn put(&self, mut slice: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        let metadata = &slice["metadata"];
        let of = Of {
            namespace: text(&metadata["namespace"]),
            service: text(&metadata["labels"]["kubernetes.io/service-name"]),
        };
        let key = (of.namespace.clone(), text(&metadata["name"]));
        slice["metadata"]["resourceVersion"] = state.version.to_string().into();
        let kind = if state.slices.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.slices.insert(key, slice.clone());
        state.happened(kind, of, slice);
    }

    /// A slice goes.
    pub fn delete(&self, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        let mut gone = state.slices.remove(&(namespace.to_owned(), name.to_owned())).expect("it is there");
        state.version += 1;
        gone["metadata"]["resourceVersion"] = state.version.to_string().into();
        let service = text(&gone["metadata"]["labels"]["kubernetes.io/service-name"]);
        state.happened("DELETED", Of { namespace: namespace.to_owned(), service }, gone);
    }

    /// Much happens that is nobody's business here; watchers are told the version. Returns it.
    pub fn bookmark(&self) -> u64 {
        let mut state = self.state.lock();
        state.version += 100;
        let version = state.version;
        let bookmark = json!({"type": "BOOKMARK", "object": {
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": version.to_string()}, "endpoints": null, "addressType": "", "ports": null,
        }});
        let line = line(&bookmark);
        state.watchers.retain(|watcher| watcher.lines.try_send(line.clone()).is_ok());
        version
    }

    /// Much happens, and all up to now is forgotten; nobody is told.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        state.version += 1000;
        state.forgotten = state.version;
        state.events.clear();
    }

    /// Says something to all who watch.
    pub fn say(&self, what: &str) {
        let words = Bytes::copy_from_slice(what.as_bytes());
        self.state.lock().watchers.retain(|watcher| watcher.lines.try_send(words.clone()).is_ok());
    }

    /// Ends all watches, as it does when their time is over.
    pub fn end_watches(&self) {
        self.state.lock().watchers.clear();
    }

    /// Answers lists so from now on.
    pub fn lists(&self, lists: Lists) {
        self.state.lock().lists = lists;
    }

    /// Whether nobody can reach it. Connections break off.
    pub fn away(&self, away: bool) {
        self.away.send_replace(away);
        if away {
            self.end_watches();
        }
    }

    /// How many watch it.
    pub fn watchers(&self) -> usize {
        self.state.lock().watchers.iter().filter(|watcher| !watcher.lines.is_closed()).count()
    }

    /// Paths and queries of all it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().asked.clone()
    }
}

impl Drop for KubernetesApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A slice of a Service as its controller writes it. `port` is called `http`, `endpoints` are of [`endpoint`].
pub fn slice(namespace: &str, service: &str, name: &str, port: u16, endpoints: &[Value]) -> Value {
    let of_v6 = |one: &Value| one["addresses"][0].as_str().is_some_and(|address| address.contains(':'));
    let family = if endpoints.iter().any(of_v6) { "IPv6" } else { "IPv4" };
    json!({
        "metadata": {
            "name": name, "generateName": format!("{service}-"), "namespace": namespace,
            "uid": "ad1f2f7b-7f0f-4a1c-8c7b-4ac2a5f3f1d0", "generation": 1,
            "creationTimestamp": "2026-05-04T09:12:41Z",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service,
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service,
                "uid": "0b8f4a8e-2f0d-4d55-9a27-6f3c51f0f2a4", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
    })
}

/// How a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Ready.
    Ready,
    /// There, and not ready.
    NotReady,
    /// Terminating, and serving still.
    Ending,
}

/// An endpoint of a slice.
pub fn endpoint(ip: IpAddr, condition: Condition, zone: Option<&str>) -> Value {
    let (ready, serving, terminating) = match condition {
        Condition::Ready => (true, true, false),
        Condition::NotReady => (false, false, false),
        Condition::Ending => (false, true, true),
    };
    let mut endpoint = json!({
        "addresses": [ip.to_string()],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("pod-{ip}")},
        "nodeName": "worker-1",
    });
    if let Some(zone) = zone {
        endpoint["zone"] = zone.into();
    }
    endpoint
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

impl State {
    fn happened(&mut self, kind: &str, of: Of, mut object: Value) {
        object["kind"] = "EndpointSlice".into();
        object["apiVersion"] = "discovery.k8s.io/v1".into();
        let line = line(&json!({"type": kind, "object": object}));
        self.watchers.retain(|watcher| watcher.of != of || watcher.lines.try_send(line.clone()).is_ok());
        self.events.push(Event { version: self.version, of, line });
    }

    fn list(&self, of: &Of) -> Value {
        let is_of = |slice: &Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == of.service;
        let all = self.slices.iter().filter(|((namespace, _), _)| *namespace == of.namespace);
        let items: Vec<_> = all.map(|(_, slice)| slice).filter(|slice| is_of(slice)).collect();
        json!({
            "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items,
        })
    }

    fn watch(&mut self, of: Of, from: u64) -> Body {
        let (lines, events) = mpsc::channel(MAX_WAITING);
        if from < self.forgotten {
            let message = format!("too old resource version: {from} ({})", self.forgotten);
            let error = json!({"type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": message, "reason": "Expired", "code": 410,
            }});
            let _ = lines.try_send(line(&error));
        } else {
            let missed = self.events.iter().filter(|event| event.version > from && event.of == of);
            missed.for_each(|event| drop(lines.try_send(event.line.clone())));
            self.watchers.push(Watcher { of, lines });
        }
        streamed(tokio_stream::wrappers::ReceiverStream::new(events))
    }
}

fn streamed(lines: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync()
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    state: Arc<Mutex<State>>,
    is_away: watch::Receiver<bool>,
) {
    // Connections end with the set, and the set with the task.
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        if *is_away.borrow() {
            continue;
        }
        let (state, tls, mut is_away) = (Arc::clone(&state), tls.clone(), is_away.clone());
        serving.spawn(async move {
            let talk = async {
                // Who does not believe our certificate goes away.
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let answer = answer(&state, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            };
            tokio::select! {
                () = talk => {}
                _ = is_away.wait_for(|away| *away) => {}
            }
        });
        while serving.try_join_next().is_some() {}
    }
}

fn answer(state: &Mutex<State>, request: &Request<Incoming>) -> Response<Body> {
    let mut state = state.lock();
    let asked = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    state.asked.push(asked);
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if shown != Some(&format!("Bearer {}", state.token)) {
        return refusal(401, "Unauthorized", None);
    }
    let namespace = request
        .uri()
        .path()
        .strip_prefix("/apis/discovery.k8s.io/v1/namespaces/")
        .and_then(|rest| rest.strip_suffix("/endpointslices"));
    let query = request.uri().query().unwrap_or_default().replace("%2F", "/").replace("%3D", "=");
    let said = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let service = said("labelSelector").and_then(|label| label.strip_prefix("kubernetes.io/service-name="));
    let (Some(namespace), Some(service)) = (namespace, service) else {
        return refusal(404, "the server could not find the requested resource", None);
    };
    let of = Of { namespace: namespace.to_owned(), service: service.to_owned() };
    let body = if said("watch") == Some("true") {
        let Some(from) = said("resourceVersion").and_then(|version| version.parse().ok()) else {
            return refusal(400, "resourceVersion: Invalid value", None);
        };
        state.watch(of, from)
    } else {
        match &state.lists {
            Lists::Honest => whole(state.list(&of).to_string()),
            Lists::Say(words) => whole(words.clone()),
            Lists::Endless => {
                streamed(futures_util::stream::repeat_with(|| Bytes::from_static(&[b' '; 64 * 1024])))
            }
            Lists::Refuse(status, message, after) => return refusal(*status, message, *after),
        }
    };
    json_of(StatusCode::OK, body)
}

fn whole(text: String) -> Body {
    Full::from(text).boxed_unsync()
}

fn refusal(status: u16, message: &str, after: Option<u64>) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": status,
    });
    let status = StatusCode::from_u16(status).expect("a test names statuses that there are");
    let mut response = json_of(status, whole(body.to_string()));
    if let Some(after) = after {
        response.headers_mut().insert("retry-after", after.into());
    }
    response
}

fn json_of(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
