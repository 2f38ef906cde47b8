//! An OTLP collector that keeps what it gets, for tests that read telemetry.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use tollgate_proto::opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use tollgate_proto::opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tollgate_proto::opentelemetry_proto::tonic::common::v1::any_value::Value;
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::LogRecord;
use tollgate_proto::opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use crate::grpc::Server;

/// The fake. It stops when dropped.
#[derive(Debug)]
pub struct FakeCollector {
    state: State,
    server: Server,
}

#[derive(Debug, Clone, Default)]
struct State {
    logs: Arc<Mutex<Vec<LogRecord>>>,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl FakeCollector {
    /// Collects on a port of its own.
    pub async fn start() -> Self {
        let state = State::default();
        let server =
            Server::start_two(LogsServiceServer::new(state.clone()), TraceServiceServer::new(state.clone()))
                .await;
        Self { state, server }
    }

    /// Collects from connections that somebody else has accepted at `address`, such as those of TLS.
    pub fn start_on<I, IO>(address: SocketAddr, incoming: I) -> Self
    where
        I: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let state = State::default();
        let router = tonic::transport::Server::builder()
            .add_service(LogsServiceServer::new(state.clone()))
            .add_service(TraceServiceServer::new(state.clone()));
        Self { state, server: Server::serve_on(router, address, incoming) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The access records that came, once there are `count` of them.
    pub async fn access_records(&self, count: usize) -> Vec<LogRecord> {
        let found = || {
            let logs = self.state.logs.lock();
            logs.iter().filter(|log| log.event_name == "tollgate.access").cloned().collect::<Vec<_>>()
        };
        wait_for(|| Some(found()).filter(|records| records.len() >= count)).await.unwrap_or_else(found)
    }

    /// The spans that came, once there are `count` of them.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        let found = || self.state.spans.lock().clone();
        wait_for(|| Some(found()).filter(|spans| spans.len() >= count)).await.unwrap_or_else(found)
    }
}

/// Looks until there is something, for at most ten seconds.
pub async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An attribute of a record, as text; lists are joined by commas.
pub fn attribute(record: &LogRecord, key: &str) -> Option<String> {
    fn shown(value: &Value) -> String {
        match value {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            Value::BoolValue(truth) => truth.to_string(),
            Value::DoubleValue(number) => number.to_string(),
            Value::ArrayValue(list) => {
                let one = |item: &tollgate_proto::opentelemetry_proto::tonic::common::v1::AnyValue| {
                    item.value.as_ref().map(shown).unwrap_or_default()
                };
                list.values.iter().map(one).collect::<Vec<_>>().join(",")
            }
            other => format!("{other:?}"),
        }
    }
    let value = record.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
    value.value.as_ref().map(shown)
}

#[tonic::async_trait]
impl LogsService for State {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let resources = request.into_inner().resource_logs;
        let records = resources.into_iter().flat_map(|resource| resource.scope_logs);
        self.logs.lock().extend(records.flat_map(|scope| scope.log_records));
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for State {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources.into_iter().flat_map(|resource| resource.scope_spans);
        self.spans.lock().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
