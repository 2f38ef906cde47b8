//! Asking endpoints how they are. What the answers mean is pure; asking is at the end of this file.
//!
//! ```text
//! well --unhealthy_threshold bad answers in a row--> ill
//!  ^------healthy_threshold good answers in a row-----'
//! ```
//!
//! Who was never asked counts as well: an endpoint that is new is used until it is known to be ill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::Cluster;
use super::dial::{Dialed, Dialer};
use crate::config::{HealthCheck, HealthQuestion, Protocol};
use crate::listener::TaskExecutor;

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    ill: bool,
    /// Answers in a row that speak for the other state.
    row: u32,
}

impl Health {
    pub(crate) fn is_ill(&self) -> bool {
        self.ill
    }

    /// One more answer; the new state when it changes.
    pub(crate) fn observe(&mut self, good: bool, check: &HealthCheck) -> Option<bool> {
        if good != self.ill {
            self.row = 0;
            return None;
        }
        self.row += 1;
        let enough = if self.ill { check.healthy_threshold } else { check.unhealthy_threshold };
        if self.row < enough {
            return None;
        }
        self.row = 0;
        self.ill = !self.ill;
        Some(self.ill)
    }
}

/// Asks all endpoints of a cluster, again and again, until it is closed.
pub(super) async fn run(cluster: Arc<Cluster>, check: HealthCheck) {
    loop {
        let rest = check.interval.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        let addresses = cluster.addresses();
        let mut asking = tokio::task::JoinSet::new();
        for address in addresses {
            let (cluster, ask, patience) = (Arc::clone(&cluster), check.ask.clone(), check.timeout);
            asking.spawn(async move { (address, question(&cluster, address, &ask, patience).await) });
        }
        while let Some(answered) = asking.join_next().await {
            if let Ok((address, answer)) = answered {
                cluster.heard(address, answer, &check);
            }
        }
        tokio::select! {
            () = cluster.closed() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Whether the answer was good; what was wrong with it otherwise.
async fn question(
    cluster: &Cluster,
    address: SocketAddr,
    ask: &HealthQuestion,
    patience: Duration,
) -> Result<(), String> {
    let asked = async {
        match ask {
            HealthQuestion::Tcp => cluster.dialer.dial(address).await.map(drop).map_err(anyhow::Error::from),
            HealthQuestion::Http(path) => http(cluster, address, path).await,
            HealthQuestion::Grpc(service) => grpc(&cluster.dialer, address, service).await,
        }
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_elapsed) => Err(format!("no answer within {patience:?}")),
    }
}

/// In the cluster's own protocol: over TLS no other was agreed on.
async fn http(cluster: &Cluster, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let Dialed { stream, entry: _ours, .. } = cluster.dialer.dial(address).await?;
    let io = TokioIo::new(stream);
    let request = Request::get(path).header("user-agent", "tollgate-health-check");
    let status = match cluster.protocol() {
        Protocol::H1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            let request = request.header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
            answered(sender.send_request(request), connection).await?
        }
        Protocol::H2 => {
            let executor = TaskExecutor::new(cluster.tasks().clone(), "cluster-health-stream");
            let (mut sender, connection) = http2::handshake(executor, io).await?;
            let uri = format!("{}://{address}{path}", cluster.scheme());
            let request = request.uri(uri).body(Empty::<Bytes>::new())?;
            answered(sender.send_request(request), connection).await?
        }
    };
    anyhow::ensure!(status.is_success(), "status {}", status.as_u16());
    Ok(())
}

/// The answer's status. The connection lives as long as the question.
async fn answered(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> anyhow::Result<StatusCode> {
    tokio::select! {
        answer = answer => Ok(answer?.status()),
        ended = connection => {
            ended?;
            anyhow::bail!("closed without an answer")
        }
    }
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

async fn grpc(dialer: &Arc<Dialer>, address: SocketAddr, service: &str) -> anyhow::Result<()> {
    let dialer = Arc::clone(dialer);
    let connector = tower::service_fn(move |_: http::Uri| {
        let dialer = Arc::clone(&dialer);
        async move { dialer.dial(address).await.map(|dialed| TokioIo::new(dialed.stream)) }
    });
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
    let channel = endpoint.connect_with_connector(connector).await?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthRequest { service: service.to_owned() });
    debug_assert!(request.get_ref().encoded_len() <= service.len() + 8);
    let codec: ProstCodec<HealthRequest, HealthResponse> = ProstCodec::default();
    let status = grpc.unary(request, path, codec).await?.into_inner().status;
    anyhow::ensure!(status == SERVING, "serving status {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_change_after_enough_answers_in_a_row() {
        let check = HealthCheck {
            ask: HealthQuestion::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        };
        let mut health = Health::default();
        let changes: Vec<_> = [
            (true, None),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(true)),
            (false, None),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(false)),
        ]
        .into_iter()
        .map(|(good, expected)| (health.observe(good, &check), expected))
        .collect();
        for (index, (change, expected)) in changes.into_iter().enumerate() {
            assert_eq!(change, expected, "answer {index}");
        }
        assert!(!health.is_ill());
    }
}
