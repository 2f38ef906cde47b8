//! A SPIFFE Workload API server on a unix socket, as SPIRE's agent offers it.
//!
//! It speaks the real protocol (`SpiffeWorkloadAPI/FetchX509SVID`, with the security header that the specification
//! asks for) and sends whatever the test puts into it.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::authority::Signed;

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// Every request must carry it, so that no browser can be tricked into asking (specification, section 6).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// `X509SVIDRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct SvidRequest {}

/// `X509SVIDResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct SvidResponse {
    /// Identities of the asking workload.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<Svid>,
    /// Roots of other trust domains, by their SPIFFE ids.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: std::collections::HashMap<String, Vec<u8>>,
}

/// `X509SVID`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Svid {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// Certificates, one after the other.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// The key in PKCS#8.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// Roots of its trust domain, one after the other.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// What it is for.
    #[prost(string, tag = "5")]
    pub hint: String,
}

impl Svid {
    /// An identity as the agent sends it.
    pub fn new(id: &str, signed: &Signed, root: Vec<u8>, hint: &str) -> Self {
        Self {
            spiffe_id: id.to_owned(),
            x509_svid: signed.certificate.clone(),
            x509_svid_key: signed.key.clone(),
            bundle: root,
            hint: hint.to_owned(),
        }
    }
}

/// A running server.
pub struct WorkloadApiServer {
    socket: PathBuf,
    answers: watch::Sender<SvidResponse>,
    serving: JoinHandle<()>,
}

impl WorkloadApiServer {
    /// Serves on `socket`, beginning with `first`.
    pub fn start(socket: &Path, first: SvidResponse) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a unix socket can be bound");
        let (answers, watched) = watch::channel(first);
        let server = tonic::transport::Server::builder()
            .add_service(Api { answers: watched })
            .serve_with_incoming(UnixListenerStream::new(listener));
        #[expect(clippy::disallowed_methods, reason = "a test's server has no service to belong to")]
        let serving = tokio::spawn(async move {
            let _ = server.await;
        });
        Self { socket: socket.to_owned(), answers, serving }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Pushes something new to everybody who listens.
    pub fn push(&self, next: SvidResponse) {
        self.answers.send_replace(next);
    }
}

impl Drop for WorkloadApiServer {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[derive(Clone)]
struct Api {
    answers: watch::Receiver<SvidResponse>,
}

impl NamedService for Api {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fetch = Fetch(self.answers.clone());
        Box::pin(async move {
            if request.uri().path() != FETCH {
                return Ok(Status::unimplemented("the test's agent knows FetchX509SVID only").into_http());
            }
            let codec: ProstCodec<SvidResponse, SvidRequest> = ProstCodec::default();
            Ok(Grpc::new(codec).server_streaming(fetch, request).await)
        })
    }
}

struct Fetch(watch::Receiver<SvidResponse>);

impl ServerStreamingService<SvidRequest> for Fetch {
    type Response = SvidResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<SvidResponse, Status>> + Send>>;
    type Future = BoxFuture<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<SvidRequest>) -> Self::Future {
        let asked_rightly = request.metadata().get(SECURITY_HEADER).is_some_and(|value| value == "true");
        let answers = WatchStream::new(self.0.clone());
        Box::pin(async move {
            if !asked_rightly {
                return Err(Status::invalid_argument("the security header is missing"));
            }
            let stream: Self::ResponseStream = Box::pin(answers.map(Ok));
            Ok(Response::new(stream))
        })
    }
}
