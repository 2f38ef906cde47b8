//! OTLP over gRPC.
//!
//! No span and no log line is made for these calls: the dashboard's own telemetry comes back in here, and each
//! export would cause the next.

use tollgate_identity::tls::{Callers, PortStreams, caller};
use tollgate_proto::opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tollgate_runtime::grpc::{self, Bounds};
use tollgate_runtime::tasks::Tasks;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::{InterceptorLayer, Routes};
use tonic::{Request, Response, Status};
use tower::Layer as _;

use super::{Ingest, IngestError, OtlpRequest, Refused};

/// Calls of one connection that are worked on at once.
const MAX_CALLS: u32 = 64;

/// Serves the three collector services until the process stops.
pub(crate) async fn serve(ingest: Ingest, port: PortStreams, callers: Option<Callers>, tasks: &Tasks) {
    let max = ingest.max_request_bytes();
    let admission = InterceptorLayer::new(move |call: Request<()>| match &callers {
        Some(callers) => callers.admit(call),
        None => Ok(call),
    });
    let routes = Routes::new(
        LogsServiceServer::new(ingest.clone()).accept_compressed(Gzip).max_decoding_message_size(max),
    )
    .add_service(
        TraceServiceServer::new(ingest.clone()).accept_compressed(Gzip).max_decoding_message_size(max),
    )
    .add_service(MetricsServiceServer::new(ingest).accept_compressed(Gzip).max_decoding_message_size(max));
    let bounds = Bounds { streams: MAX_CALLS, ..Bounds::DEFAULT };
    grpc::serve(grpc::Routed(admission.layer(routes.prepare())), port, bounds, tasks).await;
}

impl From<IngestError> for Status {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Overloaded => Self::resource_exhausted(error.to_string()),
            IngestError::TooLarge(_) => Self::invalid_argument(error.to_string()),
            IngestError::Store => Self::unavailable(error.to_string()),
        }
    }
}

fn rejected(refused: &Refused) -> i64 {
    i64::try_from(refused.records).unwrap_or(i64::MAX)
}

pub(super) fn logs_response(refused: &Refused) -> ExportLogsServiceResponse {
    let partial = ExportLogsPartialSuccess {
        rejected_log_records: rejected(refused),
        error_message: refused.message.clone(),
    };
    ExportLogsServiceResponse { partial_success: (refused.records > 0).then_some(partial) }
}

pub(super) fn trace_response(refused: &Refused) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess {
        rejected_spans: rejected(refused),
        error_message: refused.message.clone(),
    };
    ExportTraceServiceResponse { partial_success: (refused.records > 0).then_some(partial) }
}

pub(super) fn metrics_response(refused: &Refused) -> ExportMetricsServiceResponse {
    let partial = ExportMetricsPartialSuccess {
        rejected_data_points: rejected(refused),
        error_message: refused.message.clone(),
    };
    ExportMetricsServiceResponse { partial_success: (refused.records > 0).then_some(partial) }
}

#[tonic::async_trait]
impl LogsService for Ingest {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let exporter = caller(&request);
        let refused = self.accept(OtlpRequest::Logs(request.into_inner()), exporter).await?;
        Ok(Response::new(logs_response(&refused)))
    }
}

#[tonic::async_trait]
impl TraceService for Ingest {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let exporter = caller(&request);
        let refused = self.accept(OtlpRequest::Traces(request.into_inner()), exporter).await?;
        Ok(Response::new(trace_response(&refused)))
    }
}

#[tonic::async_trait]
impl MetricsService for Ingest {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let exporter = caller(&request);
        let refused = self.accept(OtlpRequest::Metrics(request.into_inner()), exporter).await?;
        Ok(Response::new(metrics_response(&refused)))
    }
}
