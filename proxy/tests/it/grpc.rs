//! gRPC through the proxy: a real client and a real server, and browsers' gRPC in place of the client.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_proto::attributes as a;
use tollgate_testkit::fake_authz::deny;
use tollgate_testkit::fake_collector::{FakeCollector, attribute, wait_for};
use tollgate_testkit::grpc::Server;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::harness::{Mesh, Setup, observed};

const ROUTES: &str = r#"
routes:
  - name: interop
    service: insurance/interop
    matches: [{path: {type: PathPrefix, value: /test.Interop}}]
    backends: [{cluster: app}]
    grpc_web: true
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
    timeout: 500ms
  - name: patient
    matches: [{path: {type: PathPrefix, value: /patient}}]
    authz: off
    backends: [{cluster: app}]
"#;

/// A service with a method of each kind. What it does stands in the message.
#[derive(Debug, Clone, Default)]
struct Interop {
    begun: Arc<AtomicUsize>,
    given_up: Arc<AtomicUsize>,
}

/// Something that goes on until nobody wants it any more.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl Interop {
    fn waiting(&self) -> Waiting {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Waiting(Arc::clone(&self.given_up))
    }

    async fn unary(self, request: tonic::Request<String>) -> Result<tonic::Response<String>, Status> {
        let said = request.metadata().get("x-said").cloned();
        let message = request.into_inner();
        match message.as_str() {
            "fail" => {
                let mut why = MetadataMap::new();
                why.insert("x-detail", "because".parse().unwrap());
                Err(Status::with_metadata(Code::FailedPrecondition, "not now", why))
            }
            "wait" => {
                let _waiting = self.waiting();
                std::future::pending().await
            }
            _ => {
                let mut response = tonic::Response::new(message);
                if let Some(said) = said {
                    response.metadata_mut().insert("x-said", said);
                }
                Ok(response)
            }
        }
    }

    /// `3` counts to three, `3!` fails after that, `3~` goes on without another word.
    fn count(&self, message: &str) -> Messages {
        let count: usize = message.trim_end_matches(['!', '~']).parse().unwrap();
        let numbers = stream::iter((1..=count).map(|number| Ok(number.to_string())));
        match message.chars().last() {
            Some('!') => Box::pin(numbers.chain(stream::iter([Err(Status::data_loss("lost"))]))),
            Some('~') => {
                let waiting = self.waiting();
                Box::pin(numbers.chain(stream::once(async move {
                    let _waiting = waiting;
                    std::future::pending().await
                })))
            }
            _ => Box::pin(numbers),
        }
    }
}

impl NamedService for Interop {
    const NAME: &'static str = "test.Interop";
}

impl Service<Request<Body>> for Interop {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            Ok(match method.as_str() {
                "Unary" => grpc.unary(service_fn(move |request| this.clone().unary(request)), request).await,
                "Count" => {
                    let count = service_fn(move |request: tonic::Request<String>| {
                        let counted = this.count(&request.into_inner());
                        async move { Ok::<_, Status>(tonic::Response::new(counted)) }
                    });
                    grpc.server_streaming(count, request).await
                }
                "Join" => {
                    let join = service_fn(|request: tonic::Request<Streaming<String>>| async move {
                        let mut messages = request.into_inner();
                        let mut joined = String::new();
                        while let Some(message) = messages.message().await? {
                            joined.push_str(&message);
                        }
                        Ok::<_, Status>(tonic::Response::new(joined))
                    });
                    grpc.client_streaming(join, request).await
                }
                "Talk" => {
                    let talk = service_fn(|request: tonic::Request<Streaming<String>>| async move {
                        Ok::<_, Status>(tonic::Response::new(request.into_inner().boxed()))
                    });
                    grpc.streaming(talk, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

async fn interop() -> (Interop, Server, Mesh, FakeCollector) {
    let service = Interop::default();
    let server = Server::start(service.clone()).await;
    let setup = Setup {
        upstream: Some(server.address()),
        cluster: "protocol: h2",
        routes: Some(ROUTES),
        ..Setup::default()
    };
    let (mesh, collector) = observed(setup).await;
    (service, server, mesh, collector)
}

type Client = tonic::client::Grpc<Channel>;

fn codec() -> ProstCodec<String, String> {
    ProstCodec::default()
}

async fn client(mesh: &Mesh) -> Client {
    let channel = Channel::from_shared(format!("http://{}", mesh.address)).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

fn asked<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", "Bearer reader".parse().unwrap());
    request
}

fn method(name: &str) -> PathAndQuery {
    format!("/test.Interop/{name}").parse().unwrap()
}

#[tokio::test]
async fn calls_of_each_kind_pass_with_metadata_and_trailers() {
    let (_service, _server, mesh, collector) = interop().await;
    let mut client = client(&mesh).await;
    let large = "x".repeat(200_000);
    let mut request = asked(large.clone());
    request.metadata_mut().insert("x-said", "hello".parse().unwrap());
    let answer = client.unary(request, method("Unary"), codec()).await.unwrap();
    assert_eq!(answer.metadata().get("x-said").unwrap(), "hello");
    assert_eq!(answer.get_ref(), &large);

    client.ready().await.unwrap();
    let counted = client.server_streaming(asked("100".to_owned()), method("Count"), codec()).await.unwrap();
    assert_eq!(counted.into_inner().filter(|one| std::future::ready(one.is_ok())).count().await, 100);

    client.ready().await.unwrap();
    let pieces = stream::iter(["a", "b", "c"].map(str::to_owned));
    let joined = client.client_streaming(asked(pieces), method("Join"), codec()).await.unwrap();
    assert_eq!(joined.get_ref(), "abc");

    // Each waits for the other's answer.
    client.ready().await.unwrap();
    let (say, said) = tokio::sync::mpsc::channel::<String>(1);
    let said = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
    say.send("0".to_owned()).await.unwrap();
    let mut heard = client.streaming(asked(said), method("Talk"), codec()).await.unwrap().into_inner();
    for turn in 0..20 {
        assert_eq!(heard.message().await.unwrap().unwrap(), turn.to_string());
        say.send((turn + 1).to_string()).await.unwrap();
    }
    drop(say);
    assert_eq!(heard.message().await.unwrap().unwrap(), "20");
    assert_eq!(heard.message().await.unwrap(), None);

    for record in collector.access_records(4).await {
        assert_eq!(attribute(&record, a::RPC_STATUS_CODE).as_deref(), Some("0"));
        assert_eq!(attribute(&record, a::NETWORK_PROTOCOL_VERSION).as_deref(), Some("2"));
    }
}

#[tokio::test]
async fn bodies_of_calls_may_come_slowly() {
    let server = Server::start(Interop::default()).await;
    let setup = Setup {
        upstream: Some(server.address()),
        cluster: "protocol: h2",
        routes: Some(ROUTES),
        listener: "limits: {body_timeout: 3s, min_bytes_per_second: 1000000}",
        ..Setup::default()
    };
    let mesh = setup.start().await;
    let mut client = client(&mesh).await;
    // Longer than `body_timeout`, and never a moment as fast as others must be.
    let every = std::time::Duration::from_millis(100);
    let pieces = stream::iter(0..70).then(move |_| async move {
        tokio::time::sleep(every).await;
        "x".to_owned()
    });
    let joined = client.client_streaming(asked(pieces), method("Join"), codec()).await.unwrap();
    assert_eq!(joined.get_ref().len(), 70);
}

#[tokio::test]
async fn failures_arrive_as_they_were_meant() {
    let (_service, _server, mesh, collector) = interop().await;
    let mut client = client(&mesh).await;
    let failed = client.unary(asked("fail".to_owned()), method("Unary"), codec()).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "not now"));
    assert_eq!(failed.metadata().get("x-detail").unwrap(), "because");

    client.ready().await.unwrap();
    let counted = client.server_streaming(asked("3!".to_owned()), method("Count"), codec()).await.unwrap();
    let heard: Vec<_> = counted.into_inner().collect().await;
    assert_eq!(heard.len(), 4);
    assert_eq!(heard[3].as_ref().unwrap_err().code(), Code::DataLoss);

    client.ready().await.unwrap();
    let nobody = tonic::Request::new("hello".to_owned());
    let refused = client.unary(nobody, method("Unary"), codec()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let codes: Vec<_> = collector
        .access_records(3)
        .await
        .iter()
        .map(|record| attribute(record, a::RPC_STATUS_CODE).unwrap())
        .collect();
    assert_eq!(codes, ["9", "15", "16"]);
}

#[tokio::test]
async fn a_call_that_is_given_up_is_given_up_at_the_upstream() {
    let (service, _server, mesh, _collector) = interop().await;
    let mut client = client(&mesh).await;
    let counted = client.server_streaming(asked("1~".to_owned()), method("Count"), codec()).await.unwrap();
    let mut counted = counted.into_inner();
    assert_eq!(counted.message().await.unwrap().unwrap(), "1");
    drop(counted);
    let given_up = |count| {
        let service = service.clone();
        wait_for(move || (service.given_up.load(Ordering::SeqCst) == count).then_some(()))
    };
    assert!(given_up(1).await.is_some(), "after the head of the answer");

    client.ready().await.unwrap();
    let mut calling = JoinSet::new();
    calling.spawn(async move { client.unary(asked("wait".to_owned()), method("Unary"), codec()).await });
    let begun = wait_for(|| (service.begun.load(Ordering::SeqCst) == 2).then_some(())).await;
    assert!(begun.is_some());
    calling.shutdown().await;
    assert!(given_up(2).await.is_some(), "before the head of the answer");
}

#[tokio::test]
async fn deadlines_are_kept_here_and_never_held_against_the_upstream() {
    let cluster = "protocol: h2, panic_threshold: 0, outlier_detection: {consecutive_gateway: 1, max_ejection_percent: 100}";
    let (mesh, collector) = observed(Setup { cluster, routes: Some(ROUTES), ..Setup::default() }).await;
    let call = |path: &str, timeout: &str, behave: &str| {
        mesh.post(path, "\0\0\0\0\0")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", timeout)
            .header("x-behave", behave)
            .http2()
            .send()
    };
    // Before the answer has begun, in its midst, and where the route is less patient than its caller.
    let late = call("/patient", "300m", "delay:60000").await;
    assert_eq!((late.status.as_u16(), late.header("grpc-status")), (200, Some("4")));
    let late = call("/patient", "300m", "drip").await;
    assert_eq!(late.trailers.unwrap()["grpc-status"], "4");
    let fine = call("/patient", "1M", "trailers").await;
    assert_eq!(fine.trailers.unwrap()["grpc-status"], "0");
    let late = call("/open", "1H", "delay:60000").await;
    assert_eq!(late.header("grpc-status"), Some("4"));
    let reasons: Vec<_> = collector
        .access_records(4)
        .await
        .iter()
        .map(|record| attribute(record, a::TOLLGATE_REASON).unwrap())
        .collect();
    assert_eq!(reasons, ["upstream_timeout", "upstream_timeout", "ok", "upstream_timeout"]);
}

/// A call as a browser's library makes it.
async fn fetch(mesh: &Mesh, path: &str, kind: &str, body: Vec<u8>) -> (HeaderMap, Bytes) {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(TcpStream::connect(mesh.address).await.unwrap())).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(connection.await) });
    let request = Request::post(path)
        .header("host", "policies.insurance")
        .header("authorization", "Bearer reader")
        .header("content-type", kind)
        .header("x-grpc-web", "1")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let (parts, body) = response.into_parts();
    (parts.headers, body.collect().await.unwrap().to_bytes())
}

/// A message of the service, with its head.
fn message(text: &str) -> Vec<u8> {
    let inner = prost::Message::encode_to_vec(&text.to_owned());
    let mut framed = vec![0];
    framed.extend(u32::try_from(inner.len()).unwrap().to_be_bytes());
    framed.extend(inner);
    framed
}

/// Base64 in pieces that each may have padding.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|quad| STANDARD.decode(quad).unwrap()).collect()
}

#[tokio::test]
async fn browsers_call_too() {
    let (_service, _server, mesh, collector) = interop().await;
    for text in [false, true] {
        let kind = if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
        let call = async |name: &str, said: &str| {
            let body = if text { STANDARD.encode(message(said)).into_bytes() } else { message(said) };
            let (headers, body) = fetch(&mesh, &format!("/test.Interop/{name}"), kind, body).await;
            assert_eq!(headers["content-type"], kind);
            (headers, if text { decoded(&body) } else { body.to_vec() })
        };
        let ended = b"\x80\0\0\0\x10grpc-status: 0\r\n".to_vec();
        let (_, body) = call("Unary", "hello").await;
        assert_eq!(body, [message("hello"), ended.clone()].concat());
        let (_, body) = call("Count", "3").await;
        assert_eq!(body, [message("1"), message("2"), message("3"), ended].concat());
        let (_, body) = call("Count", "1!").await;
        assert!(body.starts_with(&message("1")));
        assert!(String::from_utf8_lossy(&body).contains("grpc-status: 15\r\n"));
        let (headers, body) = call("Unary", "fail").await;
        let all = format!("{headers:?}{}", String::from_utf8_lossy(&body));
        assert!(all.contains("grpc-status") && all.contains("not%20now") && all.contains("because"), "{all}");
    }
    for record in collector.access_records(8).await {
        assert!(attribute(&record, a::RPC_STATUS_CODE).is_some());
    }
    // Refusals are for them to read, too.
    mesh.authz.answer(|_| Ok(deny(403, "role_missing", "")));
    let (headers, body) =
        fetch(&mesh, "/test.Interop/Unary", "application/grpc-web+proto", message("hello")).await;
    assert_eq!(
        (&headers["grpc-status"], &headers["content-type"]),
        (&"7".parse().unwrap(), &"application/grpc-web+proto".parse().unwrap())
    );
    assert!(body.is_empty());
}

#[tokio::test]
async fn what_is_no_base64_ends_the_call() {
    let (_service, _server, mesh, _collector) = interop().await;
    for body in ["%%%%", "AAAAA"] {
        let (headers, answer) =
            fetch(&mesh, "/test.Interop/Unary", "application/grpc-web-text", body.into()).await;
        let all = format!("{headers:?}{}", String::from_utf8_lossy(&decoded(&answer)));
        assert!(all.contains("grpc-status") && !all.contains("\"grpc-status\": \"0\""), "{all}");
    }
}
