//! An application behind a proxy: it says what it got, keeps it for the test, and misbehaves when asked to.
//!
//! What it does is said by the header `x-behave`:
//! `status:503`, `delay:MS` (before the head), `busy:SECONDS` (503 with
//! `retry-after`), `cut` (closes in the middle of the body), `hang-up` (closes without
//! an answer), `early` (answers before it has read the body, and keeps no record of it), `drip` (goes on
//! and on, a byte at a time), `trailers` (ends with `grpc-status: 0`), `big:BYTES`, `nonsense` is [`NonsenseApp`]'s.
//! [`EchoApp::behave`] says it once for all requests without the header; `flaky:503` fails every second of them, `nth:20`
//! every twentieth with a 503, `ailing:MS` every second after that time. `hold` keeps them until it behaves otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: http::Method,
    /// Its target.
    pub uri: http::Uri,
    /// Its protocol.
    pub version: http::Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
}

/// The application. It stops when dropped.
#[derive(Debug)]
pub struct EchoApp {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<String>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl EchoApp {
    /// Serves HTTP/1.1 and HTTP/2 on a port of its own.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves at an address, as one that comes back after a failure does.
    #[expect(clippy::disallowed_methods, reason = "a fake owns its task by its handle")]
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (seen, behaviour, connections) = (Arc::default(), Arc::default(), Arc::<AtomicUsize>::default());
        let serving = serve(listener, Arc::clone(&seen), Arc::clone(&behaviour), Arc::clone(&connections));
        let task = tokio::spawn(serving);
        Self { address, seen, behaviour, connections, task }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves so from now on, where a request does not say otherwise.
    pub fn behave(&self, behaviour: &str) {
        behaviour.clone_into(&mut self.behaviour.lock());
    }

    /// The requests that arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Forgets them: who sends very many has no need of each.
    pub fn forget(&self) {
        self.seen.lock().clear();
    }

    /// How many connections it was opened.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for EchoApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<String>>,
    connections: Arc<AtomicUsize>,
) {
    // Connections end with the set, and the set with the task.
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
        let (seen, behaviour) = (Arc::clone(&seen), Arc::clone(&behaviour));
        serving.spawn(async move {
            let service =
                service_fn(move |request| answer(request, Arc::clone(&seen), Arc::clone(&behaviour)));
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while serving.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    always: Arc<Mutex<String>>,
) -> Result<Response<Script>, HangUp> {
    let (parts, body) = request.into_parts();
    if parts.headers.get("x-behave").is_some_and(|value| value == "early") {
        return Ok(Response::new(Script::of(Bytes::from_static(b"early\n"))));
    }
    // A body that breaks off is a request that never arrived whole; it is kept with what came.
    let collected = body.collect().await.ok();
    let trailers = collected.as_ref().and_then(|body| body.trailers().cloned());
    let body = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let said = parts.headers.get("x-behave").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let behaviour = said.unwrap_or_else(|| always.lock().clone());
    let text = format!(
        "{{\"service\":\"policies\",\"version\":\"1.0\",\"path\":\"{}\",\"bytes\":{}}}\n",
        parts.uri.path(),
        body.len()
    );
    let number_of_this = seen.lock().len();
    seen.lock().push(Seen {
        method: parts.method,
        uri: parts.uri,
        version: parts.version,
        headers: parts.headers,
        body,
        trailers,
    });
    let mut response = Response::new(Script::of(text.into()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    let (what, argument) = behaviour.split_once(':').unwrap_or((&behaviour, ""));
    let number = argument.parse::<u64>().unwrap_or_default();
    match what {
        "status" => {
            let status = u16::try_from(number).ok().and_then(|code| StatusCode::from_u16(code).ok());
            *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        }
        "flaky" if number_of_this.is_multiple_of(2) => {
            *response.status_mut() = StatusCode::from_u16(u16::try_from(number).unwrap_or(503))
                .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        }
        "ailing" if number_of_this.is_multiple_of(2) => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        "hold" => {
            while *always.lock() == "hold" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        "nth" if number > 0 && (number_of_this as u64).is_multiple_of(number) => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        "busy" => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert("retry-after", HeaderValue::from(number));
        }
        "delay" => tokio::time::sleep(Duration::from_millis(number)).await,
        "hang-up" => return Err(HangUp),
        "cut" => response.body_mut().end = End::Cut,
        "trailers" => {
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response.body_mut().end = End::Trailers;
        }
        "big" => *response.body_mut() = Script::of(vec![b'x'; usize::try_from(number).unwrap_or(0)].into()),
        "drip" => response.body_mut().end = End::Never,
        "hop" => {
            let headers = response.headers_mut();
            headers.insert("connection", HeaderValue::from_static("x-secret-hop"));
            headers.insert("x-secret-hop", HeaderValue::from_static("1"));
            headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        }
        _ => {}
    }
    Ok(response)
}

#[derive(Debug)]
struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hanging up as asked")
    }
}

impl std::error::Error for HangUp {}

/// A body, and how it ends.
#[derive(Debug)]
struct Script {
    data: Option<Bytes>,
    end: End,
    /// Before a cut: what was said must be on its way, or the whole answer is lost.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Well,
    Cut,
    Trailers,
    /// A byte now and then, and no end.
    Never,
}

impl Script {
    fn of(data: Bytes) -> Self {
        Self { data: Some(data), end: End::Well, pause: None }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = HangUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.end == End::Never {
            let pause =
                self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(5))));
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))));
        }
        if self.end == End::Cut {
            let pause =
                self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(50))));
            std::task::ready!(pause.as_mut().poll(context));
        }
        Poll::Ready(match std::mem::replace(&mut self.end, End::Well) {
            End::Well | End::Never => None,
            End::Cut => Some(Err(HangUp)),
            End::Trailers => {
                let trailers = HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static("0"),
                )]);
                Some(Ok(Frame::trailers(trailers)))
            }
        })
    }
}

/// A server that answers every connection with the same bytes, HTTP or not.
#[derive(Debug)]
pub struct NonsenseApp {
    address: SocketAddr,
    task: JoinHandle<Result<(), Infallible>>,
}

impl NonsenseApp {
    /// Answers `words` on a port of its own, once something was said to it.
    #[expect(clippy::disallowed_methods, reason = "a fake owns its task by its handle")]
    pub async fn start(words: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            let mut talking = JoinSet::new();
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                talking.spawn(async move {
                    let mut heard = [0; 4096];
                    let _ = stream.read(&mut heard).await;
                    let _ = stream.write_all(words).await;
                });
            }
        });
        Self { address, task }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NonsenseApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}
