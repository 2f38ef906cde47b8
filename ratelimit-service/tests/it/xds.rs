//! Limits from an xDS server: a server of the test's own, over loopback.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tollgate_proto::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tollgate_proto::envoy_types::pb::google::protobuf::Any;
use tollgate_proto::envoy_types::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy,
};
use tollgate_proto::envoy_types::pb::ratelimit::service::ratelimit::v3::rate_limit_config_discovery_service_server::{
    RateLimitConfigDiscoveryService, RateLimitConfigDiscoveryServiceServer,
};
use tollgate_proto::prost::Message as _;
use tollgate_ratelimit::xds::shape::TYPE_URL;
use tollgate_ratelimit::xds::{XdsConfig, XdsStream, XdsTlsConfig};
use tollgate_runtime::Service;
use tollgate_testkit::ports::free_address;
use tonic::codegen::tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::support::{Served, eventually};

type Answers = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

/// A server that hears requests and says what the test tells it.
#[derive(Clone, Default)]
pub(crate) struct Xds(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    heard: Vec<DiscoveryRequest>,
    streams: Vec<mpsc::Sender<Result<DiscoveryResponse, Status>>>,
    /// What a new stream is told at once.
    first: Option<DiscoveryResponse>,
}

impl Xds {
    pub(crate) async fn start(&self, listen: &str) -> (SocketAddr, Service) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service::for_test("xds");
        let serving = Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(self.clone()))
            .add_service(RateLimitConfigDiscoveryServiceServer::new(self.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let stopping = service.tasks().stopping();
        drop(service.tasks().spawn("xds", async move {
            tokio::select! {
                served = serving => served.unwrap(),
                () = stopping.cancelled() => {}
            }
        }));
        (address, service)
    }

    async fn say(&self, answer: DiscoveryResponse) {
        let stream = self.0.lock().streams.last().unwrap().clone();
        stream.send(Ok(answer)).await.unwrap();
    }

    /// What a new stream is told at once.
    pub(crate) fn say_first(&self, answer: DiscoveryResponse) {
        self.0.lock().first = Some(answer);
    }

    pub(crate) fn heard(&self) -> Vec<DiscoveryRequest> {
        self.0.lock().heard.clone()
    }

    fn open(&self, mut incoming: Streaming<DiscoveryRequest>) -> Response<Answers> {
        let (answers, mut outgoing) = mpsc::channel(4);
        let mut state = self.0.lock();
        if let Some(first) = state.first.clone() {
            answers.try_send(Ok(first)).unwrap();
        }
        state.streams.push(answers);
        let heard = Arc::clone(&self.0);
        #[expect(clippy::disallowed_methods, reason = "a fake owns its tasks")]
        tokio::spawn(async move {
            while let Some(Ok(request)) = incoming.next().await {
                heard.lock().heard.push(request);
            }
        });
        let answers = futures_util::stream::poll_fn(move |context| outgoing.poll_recv(context));
        Response::new(Box::pin(answers))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Xds {
    type StreamAggregatedResourcesStream = Answers;
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(self.open(request.into_inner()))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}

#[tonic::async_trait]
impl RateLimitConfigDiscoveryService for Xds {
    type StreamRlsConfigsStream = Answers;

    async fn stream_rls_configs(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(self.open(request.into_inner()))
    }

    async fn fetch_rls_configs(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }
}

/// An answer with one resource: so many a day for each value of `key`, or what is wrong.
pub(crate) fn answer(version: &str, unit: i32, requests_per_unit: u32) -> DiscoveryResponse {
    let rate_limit = Some(RateLimitPolicy { unit, requests_per_unit, ..RateLimitPolicy::default() });
    let descriptor =
        RateLimitDescriptor { key: "key".to_owned(), rate_limit, ..RateLimitDescriptor::default() };
    let config =
        RateLimitConfig { name: "test".to_owned(), domain: "test".to_owned(), descriptors: vec![descriptor] };
    DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: format!("nonce-{version}"),
        type_url: TYPE_URL.to_owned(),
        resources: vec![Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() }],
        ..DiscoveryResponse::default()
    }
}

pub(crate) const DAY: i32 = 4;

async fn served(address: SocketAddr, stream: XdsStream) -> Served {
    served_from(format!("http://{address}"), stream, XdsTlsConfig::default()).await
}

pub(crate) async fn served_from(address: String, stream: XdsStream, tls: XdsTlsConfig) -> Served {
    Served::with("", |config| {
        config.limits.folder = None;
        config.limits.xds = Some(XdsConfig {
            address,
            node_id: "limits-1".to_owned(),
            stream,
            retry_interval: std::time::Duration::from_millis(20),
            tls,
        });
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_come_are_acknowledged_and_outlive_what_is_wrong() {
    for stream in [XdsStream::Aggregated, XdsStream::RlsConfigs] {
        let xds = Xds::default();
        let (address, server) = xds.start("127.0.0.1:0").await;
        let served = served(address, stream).await;
        eventually("the first request", || async { xds.heard().len() == 1 }).await;
        let first = &xds.heard()[0];
        assert_eq!((first.type_url.as_str(), first.version_info.as_str()), (TYPE_URL, ""));
        assert_eq!(first.node.as_ref().unwrap().id, "limits-1");
        assert_eq!(served.service.readiness().blockers(), ["limits"]);

        xds.say(answer("1", DAY, 2)).await;
        eventually("an acknowledgement", || async { xds.heard().len() == 2 }).await;
        let ack = xds.heard().remove(1);
        assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("1", "nonce-1"));
        assert!(ack.error_detail.is_none() && served.service.readiness().is_ready());
        assert_eq!(served.passing_of(5, "a").await, 2);

        xds.say(answer("2", 99, 7)).await;
        eventually("a complaint", || async { xds.heard().len() == 3 }).await;
        let nack = xds.heard().remove(2);
        assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("1", "nonce-2"));
        let complaint = nack.error_detail.unwrap().message;
        assert!(complaint.contains("xds:test") && complaint.contains("rate_limit.unit"), "{complaint}");
        assert_eq!(served.passing_of(5, "b").await, 2);

        xds.say(answer("3", DAY, 4)).await;
        eventually("an acknowledgement", || async { xds.heard().len() == 4 }).await;
        assert_eq!(served.passing_of(9, "c").await, 4);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_takes_nothing_with_it() {
    let xds = Xds::default();
    xds.say_first(answer("1", DAY, 2));
    let (address, server) = xds.start(&free_address().to_string()).await;
    let served = served(address, XdsStream::Aggregated).await;
    eventually("an acknowledgement", || async { xds.heard().len() == 2 }).await;
    server.stop().await;
    xds.0.lock().streams.clear();
    assert_eq!(served.passing_of(5, "a").await, 2);

    let again = Xds::default();
    again.say_first(answer("2", DAY, 3));
    let (_, server) = again.start(&address.to_string()).await;
    eventually("an acknowledgement", || async { again.heard().len() == 2 }).await;
    let heard = again.heard();
    // The new server hears what is in force.
    assert_eq!((heard[0].version_info.as_str(), heard[1].version_info.as_str()), ("1", "2"));
    assert_eq!(served.passing_of(5, "b").await, 3);
    server.stop().await;
}
