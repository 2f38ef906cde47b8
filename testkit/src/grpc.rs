//! A gRPC server for a fake: a port of its own, and gone when dropped.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use futures_util::Stream;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::transport::server::{Connected, Router, Server as TonicServer, TcpIncoming};

/// A running server. Dropping it closes its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves one service.
    pub async fn start<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Self::serve(TonicServer::builder().add_service(service)).await
    }

    /// Serves two services on one port.
    pub async fn start_two<S, T>(first: S, second: T) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        T: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Self::serve(TonicServer::builder().add_service(first).add_service(second)).await
    }

    async fn serve(router: Router) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        Self::serve_on(router, address, TcpIncoming::from(listener).with_nodelay(Some(true)))
    }

    /// Serves on connections that somebody else has accepted at `address`.
    #[expect(clippy::disallowed_methods, reason = "a fake owns its task by its handle")]
    pub(crate) fn serve_on<I, IO>(router: Router, address: SocketAddr, incoming: I) -> Self
    where
        I: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let task = tokio::spawn(async move {
            // It ends when the handle aborts it.
            let _ = router.serve_with_incoming(incoming).await;
        });
        Self { address, task }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
