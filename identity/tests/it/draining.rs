//! A gRPC port of ours before, and at, the end of a peer's certificate.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tollgate_identity::tls::{self, GrpcChannel, MinimumVersion};
use tollgate_identity::{Identity, Material};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::grpc::{Bounds, Routed, serve};
use tollgate_testkit::authority::{Authority, Signed, now, workload};
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::ServiceExt as _;

use crate::wire::{CLIENT, SERVER, bundles, credential, identity};

/// A certificate that has lived for three quarters of its life: it is drained between a fifth and a tenth of that
/// before its end.
const LIFE: Duration = Duration::from_secs(60);
const LEFT: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(60);
const GOAWAY: u8 = 7;

fn nearly_over(authority: &Authority) -> Signed {
    let mut params = workload(CLIENT);
    params.not_before = (now() + LEFT - LIFE).into();
    params.not_after = (now() + LEFT).into();
    authority.sign(params)
}

/// A port that answers at once, on `/waits` when the gate opens, and on `/hangs` never.
async fn port(authority: &Authority, gate: &Arc<Semaphore>, service: &Service) -> SocketAddr {
    let server = identity(&authority.workload(SERVER), bundles(authority));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let streams = tls::port(listener, Some(&server), service).unwrap();
    let gate = Arc::clone(gate);
    let calls = tower::service_fn(move |request: Request<Body>| {
        let gate = Arc::clone(&gate);
        async move {
            match request.uri().path() {
                "/waits" => gate.acquire().await.unwrap().forget(),
                "/hangs" => std::future::pending().await,
                _ => {}
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let tasks = service.tasks().clone();
    service
        .tasks()
        .spawn("port", async move { serve(Routed(calls), streams, Bounds::DEFAULT, &tasks).await });
    address
}

/// The frames that the other end sends, by their types.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<Vec<u8>>>);

impl Frames {
    fn hold(&self, wanted: u8) -> bool {
        let bytes = self.0.lock().unwrap();
        let mut rest = bytes.as_slice();
        while let [a, b, c, kind, ..] = *rest {
            if kind == wanted {
                return true;
            }
            // RFC 9113 §4.1: a head of nine bytes, the first three of which tell the length of what follows.
            rest = rest.get(9 + u32::from_be_bytes([0, a, b, c]) as usize..).unwrap_or_default();
        }
        false
    }

    async fn wait(&self, wanted: u8) {
        let look = async {
            while !self.hold(wanted) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, look).await.expect("the frame comes in time");
    }
}

struct Overheard<S> {
    stream: S,
    frames: Frames,
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.frames.0.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection as any HTTP/2 client opens one: it knows of no certificate's end.
async fn connect(to: SocketAddr, client: &Identity, service: &Service) -> (SendRequest<String>, Frames) {
    let expected = vec![SERVER.parse().unwrap()];
    let config = tls::client_config(client, expected, MinimumVersion::Tls13, vec![b"h2".to_vec()]).unwrap();
    let frames = Frames::default();
    let stream = tls::connect(config, &to.to_string()).await.unwrap();
    let overheard = Overheard { stream, frames: frames.clone() };
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(overheard)).await.unwrap();
    service.tasks().spawn("client", async { drop(connection.await) });
    (sender, frames)
}

async fn call(mut sender: SendRequest<String>, path: &str) -> bool {
    let request = Request::get(format!("http://h{path}")).body(String::new()).unwrap();
    sender.send_request(request).await.is_ok_and(|answer| answer.status().is_success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_drained_before_the_end_of_its_peers_certificate_and_cut_at_it() {
    let (authority, gate) = (Authority::new("root"), Arc::new(Semaphore::new(0)));
    let service = Service::for_test("port");
    let address = port(&authority, &gate, &service).await;
    let client = identity(&nearly_over(&authority), bundles(&authority));
    let (sender, frames) = connect(address, &client, &service).await;
    let (other, its_frames) = connect(address, &client, &service).await;
    let finishes = service.tasks().spawn("finishes", call(sender.clone(), "/waits"));
    let hangs = service.tasks().spawn("hangs", call(other.clone(), "/hangs"));
    assert!(call(sender.clone(), "/now").await && call(other.clone(), "/now").await);

    // It is told to go in time: what is under way finishes, which no connection lets it do that is cut.
    frames.wait(GOAWAY).await;
    gate.add_permits(1);
    assert!(finishes.await.unwrap().unwrap());
    // Where nothing finishes it ends all the same, and serves nothing any more.
    its_frames.wait(GOAWAY).await;
    let gone = async {
        while !(sender.is_closed() && other.is_closed()) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, gone).await.expect("both connections end");
    assert!(!hangs.await.unwrap().unwrap());
    assert!(!call(sender, "/now").await && !call(other, "/now").await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_ours_that_renews_in_time_sees_no_call_fail() {
    let (authority, gate) = (Authority::new("root"), Arc::new(Semaphore::new(0)));
    let service = Service::for_test("port");
    let address = port(&authority, &gate, &service).await;
    let ending = nearly_over(&authority);
    let client = identity(&ending, bundles(&authority));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let expected = vec![SERVER.parse().unwrap()];
    let channel = GrpcChannel::mutual(endpoint, client.clone(), expected, Clock::system()).unwrap();
    let ask = async || {
        let request = Request::get("/now").body(Body::empty()).unwrap();
        channel.channel().oneshot(request).await.map(|answer| answer.status())
    };
    assert!(ask().await.unwrap().is_success());
    client.replace(Material {
        credential: credential(&authority.workload(CLIENT)),
        bundles: bundles(&authority),
    });
    let end = now() + LEFT + Duration::from_secs(1);
    while now() < end {
        let answer = ask().await;
        assert!(answer.as_ref().is_ok_and(http::StatusCode::is_success), "{answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
    service.stop().await;
}
