//! Serving a gRPC port so that a call that need not wait costs no task and no write of its own.
//!
//! ```text
//! bytes come --> every call in them is begun ---> answered at once -------------> all such answers in one write
//!                                             \-> waits: with its connection, --/
//!                                                 or in a task of its own
//! ```
//!
//! A server that spawns a task for each call pays for its scheduling, and for a system call for its answer, which
//! together cost more than most answers of ours do.
//!
//! A connection whose end is known is drained before it: the peer is told to come back on another one (GOAWAY), and what
//! is under way may finish.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::{BoxError, Service as TowerService};

use super::batch::batched;
use super::begun::{Begun, go_on};
use crate::net::{Ends, due};
use crate::tasks::Tasks;

/// `ENFILE` and `EMFILE`: none can be accepted until one is given back.
const OUT_OF_FILES: [Option<i32>; 2] = [Some(23), Some(24)];
const BREATH: Duration = Duration::from_millis(50);

/// Where a call goes on that is not answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// In a task of its own, on whichever core is free: for calls with work to do once they have what they waited for.
    InTask,
    /// Where its connection is polled: for many short calls that wait for the same thing, and are answered together
    /// when it comes.
    WithConnection,
}

/// What one connection may take up, and how it is served.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Where calls go on that are not answered at once.
    pub waiting: Waiting,
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
        waiting: Waiting::InTask,
        streams: 1024,
        keepalive: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(10),
    };
}

/// What answers the calls of a port, `Peer` being what the connection says of who is at its other end.
pub trait Answer<Peer>: Clone + Send + Sync + 'static {
    /// The body of its answers.
    type Body: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static;

    /// Answers one call.
    fn answer(self, call: Request<Incoming>, peer: Peer)
    -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A tower service, as tonic makes them of many methods. It finds the peer among the extensions of a request.
#[derive(Debug, Clone)]
pub struct Routed<S>(pub S);

impl<S, B, Peer> Answer<Peer> for Routed<S>
where
    S: TowerService<Request<Body>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    Peer: Clone + Send + Sync + 'static,
{
    type Body = B;

    async fn answer(mut self, mut call: Request<Incoming>, peer: Peer) -> Response<B> {
        call.extensions_mut().insert(peer);
        // Our services are always ready: what may wait does so within a call.
        match self.0.call(call.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Answers calls until the process stops and what is under way has ended, or was cut off at the end of the grace.
pub async fn serve<A, I, IO>(answer: A, incoming: I, bounds: Bounds, tasks: &Tasks)
where
    A: Answer<IO::ConnectInfo>,
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
                    let connection = serve_connection(answer.clone(), stream, bounds, tasks.clone());
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

async fn serve_connection<A, IO>(answer: A, stream: IO, bounds: Bounds, tasks: Tasks)
where
    A: Answer<IO::ConnectInfo>,
    IO: AsyncRead + AsyncWrite + Connected + Ends + Unpin + Send + 'static,
    IO::ConnectInfo: Send + Sync,
{
    let (peer, drain_after) = (stream.connect_info(), stream.drain_after());
    let service = service_fn(move |call: Request<Incoming>| {
        answer.clone().answer(call, peer.clone()).map(Ok::<_, Infallible>)
    });
    let stopping = tasks.stopping();
    let begun = Begun::new((bounds.waiting == Waiting::InTask).then_some(tasks));
    let mut server = http2::Builder::new(begun.clone());
    server
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(bounds.streams)
        .keep_alive_interval(bounds.keepalive)
        .keep_alive_timeout(bounds.keepalive_timeout);
    let (stream, outbox) = batched(stream);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let mut waiting = Vec::new();
    let drain = async {
        tokio::select! { () = stopping.cancelled() => {}, () = due(drain_after) => {} }
    };
    let mut drain = pin!(drain.fuse());
    let ended: Result<(), BoxError> = poll_fn(|context| {
        if drain.as_mut().poll(context).is_ready() {
            connection.as_mut().graceful_shutdown();
        }
        begun.register(context.waker());
        let polled = loop {
            let polled = connection.as_mut().poll(context);
            begun.take_waiting(&mut waiting);
            if polled.is_ready() || !go_on(&mut waiting) {
                break polled;
            }
        };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream::FuturesUnordered;
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

    const BOTH: [Waiting; 2] = [Waiting::InTask, Waiting::WithConnection];

    /// Answers with what the path says: at once, when the gate lets it through, or never.
    async fn connect(service: &Service, gate: &Arc<Semaphore>, waiting: Waiting) -> Sender {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::clone(gate);
        let calls = tower::service_fn(move |request: Request<Body>| {
            let gate = Arc::clone(&gate);
            async move {
                assert!(request.extensions().get::<tonic::transport::server::TcpConnectInfo>().is_some());
                match request.uri().path() {
                    "/waits" => gate.acquire().await.unwrap().forget(),
                    "/panics" => panic!("on purpose"),
                    "/wakes-itself" => {
                        for _ in 0..1_000 {
                            tokio::task::yield_now().await;
                        }
                    }
                    _ => {}
                }
                Ok::<_, Infallible>(Response::new(request.uri().path().to_owned()))
            }
        });
        let tasks = service.tasks().clone();
        let serving = async move {
            let bounds = Bounds { waiting, ..Bounds::DEFAULT };
            serve(Routed(calls), TcpIncoming::from(listener), bounds, &tasks).await;
        };
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
        for waiting in BOTH {
            let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
            let sender = connect(&service, &gate, waiting).await;
            let waiting = service.tasks().spawn("waiting", ask(sender.clone(), "/waits"));
            for _ in 0..100 {
                assert_eq!(ask(sender.clone(), "/now").await.unwrap(), "/now");
            }
            assert!(!waiting.is_finished());
            gate.add_permits(1);
            assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "/waits");
        }
    }

    #[tokio::test]
    async fn calls_go_on_each_at_its_time() {
        for waiting in BOTH {
            let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
            let sender = connect(&service, &gate, waiting).await;
            let mut waits: FuturesUnordered<_> = (0..50).map(|_| ask(sender.clone(), "/waits")).collect();
            // All of them wait once one is answered that came after them.
            let last = ask(sender.clone(), "/wakes-itself");
            tokio::select! {
                _ = waits.next() => panic!("the gate is closed"),
                answer = last => assert_eq!(answer.unwrap(), "/wakes-itself"),
            }
            for _ in 0..50 {
                gate.add_permits(1);
                assert_eq!(waits.next().await.unwrap().unwrap(), "/waits");
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_panics_takes_no_other_along() {
        for waiting in BOTH {
            let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
            let sender = connect(&service, &gate, waiting).await;
            let (waits, panics) = (ask(sender.clone(), "/waits"), ask(sender.clone(), "/panics"));
            let open_after = async {
                assert!(panics.await.is_err());
                gate.add_permits(1);
            };
            let (waited, ()) = tokio::join!(waits, open_after);
            assert_eq!(waited.unwrap(), "/waits");
            assert_eq!(ask(sender, "/now").await.unwrap(), "/now");
        }
    }

    #[tokio::test]
    async fn what_is_under_way_ends_before_the_server_does() {
        for waiting in BOTH {
            let (service, gate) = (Service::for_test("grpc"), Arc::new(Semaphore::new(0)));
            let sender = connect(&service, &gate, waiting).await;
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
}
