//! Serving a gRPC port so that a call that need not wait costs no task, no wake-up and no write of its own.
//!
//! ```text
//! bytes come --> every call in them is begun ------> answered at once -----> all such answers in one write
//!                where the connection's task runs \-> waits for something --> goes on in a task of its own,
//!                                                                             answers that are ready soon leave together
//! ```
//!
//! Most calls of ours are answered from memory. A server that spawns a task for each pays for its scheduling, and for a
//! system call for its answer, which together cost more than the answer does.
//!
//! A connection whose end is known is drained before it: the peer is told to come back on another one (GOAWAY), and what
//! is under way may finish.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::{BoxError, Service as TowerService};

use super::batch::batched;
use crate::net::{Ends, due};
use crate::tasks::Tasks;

/// `ENFILE` and `EMFILE`: none can be accepted until one is given back.
const OUT_OF_FILES: [Option<i32>; 2] = [Some(23), Some(24)];
const BREATH: Duration = Duration::from_millis(50);

/// What one connection may take up.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Calls at once.
    pub streams: u32,
    /// A peer that has said nothing for so long is asked whether it is there.
    pub keepalive: Duration,
    /// A peer that does not answer for so long when it is asked is not there.
    pub keepalive_timeout: Duration,
}

impl Bounds {
    /// What suits most ports.
    pub const DEFAULT: Self = Self {
        streams: 1024,
        keepalive: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(10),
    };
}

/// Serves `service` until the process stops and what is under way has ended, or was cut off at the end of the grace.
pub async fn serve<S, B, I, IO>(service: S, incoming: I, bounds: Bounds, tasks: &Tasks)
where
    S: TowerService<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Ends + Unpin + Send + 'static,
    IO::ConnectInfo: Send + Sync,
{
    let stopping = tasks.stopping();
    let connections = TaskTracker::new();
    {
        let mut incoming = pin!(incoming);
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = incoming.next() => accepted,
            };
            match accepted {
                Some(Ok(stream)) => {
                    let connection = serve_connection(service.clone(), stream, bounds, tasks.clone());
                    tasks.spawn("grpc-connection", connections.track_future(connection));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection did not come about");
                    if OUT_OF_FILES.contains(&error.raw_os_error()) {
                        tokio::time::sleep(BREATH).await;
                    }
                }
                None => break,
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn serve_connection<S, B, IO>(service: S, stream: IO, bounds: Bounds, tasks: Tasks)
where
    S: TowerService<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    IO: AsyncRead + AsyncWrite + Connected + Ends + Unpin + Send + 'static,
    IO::ConnectInfo: Send + Sync,
{
    let (peer, drain_after) = (stream.connect_info(), stream.drain_after());
    let stopping = tasks.stopping();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        // Our services are always ready: what may wait does so within a call.
        service.clone().call(request.map(Body::new))
    });
    let later = Later::default();
    let mut server = http2::Builder::new(AtOnce { tasks, later: later.clone() });
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .keep_alive_interval(bounds.keepalive)
        .keep_alive_timeout(bounds.keepalive_timeout);
    let (stream, outbox) = batched(stream);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let drain = async {
        tokio::select! { () = stopping.cancelled() => {}, () = due(drain_after) => {} }
    };
    let mut drain = pin!(drain.fuse());
    let ended: Result<(), BoxError> = poll_fn(|context| {
        if drain.as_mut().poll(context).is_ready() {
            connection.as_mut().graceful_shutdown();
        }
        let polled = connection.as_mut().poll(context);
        if polled.is_pending() && !outbox.is_empty() && later.let_others_answer(context) {
            return Poll::Pending;
        }
        match outbox.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            _ => polled.map_err(Into::into),
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// The calls of a connection that go on in tasks of their own.
///
/// What many calls have waited for often comes at once, as the answer to all of them. Each then wakes the connection's
/// task, which would run after the first one and write a single answer. So it goes to the end of the queue once, behind
/// the others that are ready.
#[derive(Debug, Clone, Default)]
struct Later(Arc<LaterState>);

#[derive(Debug, Default)]
struct LaterState {
    calls: AtomicUsize,
    has_let_others: AtomicBool,
}

impl Later {
    /// Whether to wait for others. Every second time it says no.
    fn let_others_answer(&self, context: &Context<'_>) -> bool {
        let let_others =
            !self.0.has_let_others.load(Ordering::Relaxed) && self.0.calls.load(Ordering::Relaxed) > 0;
        self.0.has_let_others.store(let_others, Ordering::Relaxed);
        if let_others {
            // Tokio puts a task that wakes itself behind all that are ready.
            context.waker().wake_by_ref();
        }
        let_others
    }

    fn one(&self) -> LaterCall {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        LaterCall(self.clone())
    }
}

/// One of them, until it is dropped.
struct LaterCall(Later);

impl Drop for LaterCall {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs what can be run at once, and leaves the rest to a task.
#[derive(Debug, Clone)]
struct AtOnce {
    tasks: Tasks,
    later: Later,
}

impl<F> Executor<F> for AtOnce
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        // Nobody is woken by this first look: a task that goes on with the call looks again.
        let look = || call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // A call that panics resets its stream, as it would in a task of its own, and no other.
        if let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(look)) {
            let under_way = self.later.one();
            self.tasks.spawn("grpc-call", async move {
                call.await;
                drop(under_way);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::body::Bytes;
    use hyper::client::conn::http2 as client;
    use hyper_util::rt::TokioExecutor;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;
    use tonic::transport::server::TcpIncoming;

    use super::*;
    use crate::Service;

    type Sender = client::SendRequest<String>;

    /// Answers with what the path says: at once, when the gate opens, or never.
    async fn connect(service: &Service, gate: &Arc<Semaphore>) -> Sender {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::clone(gate);
        let calls = tower::service_fn(move |request: Request<Body>| {
            let gate = Arc::clone(&gate);
            async move {
                assert!(request.extensions().get::<tonic::transport::server::TcpConnectInfo>().is_some());
                match request.uri().path() {
                    "/waits" => drop(gate.acquire().await),
                    "/panics" => panic!("on purpose"),
                    _ => {}
                }
                Ok::<_, Infallible>(Response::new(request.uri().path().to_owned()))
            }
        });
        let tasks = service.tasks().clone();
        let serving = async move { serve(calls, TcpIncoming::from(listener), Bounds::DEFAULT, &tasks).await };
        service.tasks().spawn("serve", serving);
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = client::handshake(TokioExecutor::new(), stream).await.unwrap();
        service.tasks().spawn("client", async { drop(connection.await) });
        sender
    }

    async fn ask(mut sender: Sender, path: &str) -> hyper::Result<Bytes> {
        let request = Request::get(format!("http://h{path}")).body(String::new()).unwrap();
        Ok(sender.send_request(request).await?.into_body().collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn a_call_that_waits_holds_no_other_up() {
        let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
        let sender = connect(&service, &gate).await;
        let waiting = service.tasks().spawn("waiting", ask(sender.clone(), "/waits"));
        for _ in 0..100 {
            assert_eq!(ask(sender.clone(), "/now").await.unwrap(), "/now");
        }
        assert!(!waiting.is_finished());
        gate.add_permits(1);
        assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "/waits");
    }

    #[tokio::test]
    async fn a_call_that_panics_takes_no_other_along() {
        let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
        let sender = connect(&service, &gate).await;
        let (waits, panics) = (ask(sender.clone(), "/waits"), ask(sender.clone(), "/panics"));
        let open_after = async {
            assert!(panics.await.is_err());
            gate.add_permits(1);
        };
        let (waited, ()) = tokio::join!(waits, open_after);
        assert_eq!(waited.unwrap(), "/waits");
        assert_eq!(ask(sender, "/now").await.unwrap(), "/now");
    }

    #[tokio::test]
    async fn what_is_under_way_ends_before_the_server_does() {
        let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
        let sender = connect(&service, &gate).await;
        let waiting = service.tasks().spawn("waiting", ask(sender.clone(), "/waits"));
        // Its stream is open once a later one is answered.
        ask(sender.clone(), "/now").await.unwrap();
        let stopping = service.tasks().stopping();
        let open_then = async {
            stopping.wait().await;
            assert!(!waiting.is_finished());
            gate.add_permits(1);
        };
        tokio::join!(service.stop(), open_then);
        assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "/waits");
        assert!(ask(sender, "/now").await.is_err());
    }
}
