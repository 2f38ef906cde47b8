//! An OTLP collector that takes everything and keeps nothing, so that it costs as little as it can and does not grow.

use std::net::SocketAddr;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use tollgate_runtime::Service;
use tollgate_runtime::grpc::unary::{self, Reply};
use tollgate_runtime::grpc::{Answer, Bounds, serve};
use tonic::transport::server::TcpIncoming;

/// The answer to every signal is the same empty message.
#[derive(Debug, Clone)]
struct Takes;

impl<Peer: Send> Answer<Peer> for Takes {
    type Body = Reply;

    async fn answer(self, call: Request<Incoming>, _: Peer) -> Response<Reply> {
        let mut body = call.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        unary::reply(Ok(ExportLogsServiceResponse::default()))
    }
}

/// Serves on a thread of its own until the process ends.
pub(crate) fn start() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("collector".to_owned()).spawn(move || {
        runtime.block_on(async {
            let service = Service::for_test("collector");
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            serve(Takes, TcpIncoming::from(listener), Bounds::DEFAULT, service.tasks()).await;
        });
    })?;
    Ok(address)
}
