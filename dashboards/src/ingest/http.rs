//! OTLP over HTTP: protobuf or JSON, plain or gzip. Answers in the encoding of the request.

use std::io::Read as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode, header};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tollgate_identity::SpiffeId;
use tollgate_identity::tls::{Callers, Peer};
use tollgate_proto::opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};

use super::grpc::{logs_response, metrics_response, trace_response};
use super::{Ingest, IngestError, OtlpRequest};

/// Seconds after which an exporter that was shed may come again.
const RETRY_AFTER: &str = "1";

/// `/v1/logs`, `/v1/traces`, `/v1/metrics`; of those who show a certificate `callers` are answered.
pub(crate) fn router(ingest: Ingest, callers: Option<Callers>) -> Router {
    Router::new()
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .layer(DefaultBodyLimit::max(ingest.max_request_bytes()))
        .layer(middleware::from_fn_with_state(Arc::new(callers), admitted))
        .with_state(ingest)
}

/// Whether a certificate is asked for is the port's to say; one that was shown says who reports.
async fn admitted(State(callers): State<Arc<Option<Callers>>>, request: Request, next: Next) -> Response {
    let leaf = request.extensions().get::<Peer>().and_then(|peer| peer.leaf.clone());
    if let Some(leaf) = leaf
        && (*callers).as_ref().is_some_and(|callers| !callers.include(&leaf.id))
    {
        tracing::warn!(peer = tracing::field::Empty, id = %leaf.id, "report refused: this workload may not report here");
        return BodyError::Caller.into_response();
    }
    next.run(request).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("content-type must be application/x-protobuf or application/json")]
    ContentType,
    #[error("content-encoding must be gzip or identity")]
    ContentEncoding,
    #[error("the body is larger than {0} bytes when unpacked")]
    TooLarge(usize),
    #[error("the body is not gzip")]
    Gzip(#[source] std::io::Error),
    #[error("the body is not the OTLP message of this path: {0}")]
    Malformed(String),
    #[error("this workload may not report here (otlp.callers)")]
    Caller,
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Caller => StatusCode::FORBIDDEN,
            Self::TooLarge(_) | Self::Ingest(IngestError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Gzip(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Ingest(IngestError::Overloaded) => StatusCode::TOO_MANY_REQUESTS,
            Self::Ingest(IngestError::Store) => StatusCode::SERVICE_UNAVAILABLE,
        };
        // `google.rpc.Status`, as OTLP asks for, in its JSON form.
        let body = serde_json::json!({"message": self.to_string()}).to_string();
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self, Self::Ingest(IngestError::Overloaded | IngestError::Store)) {
            response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

async fn logs(
    State(ingest): State<Ingest>,
    by: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, BodyError> {
    let (encoding, request) = read::<ExportLogsServiceRequest>(&ingest, &headers, &body)?;
    let refused = ingest.accept(OtlpRequest::Logs(request), exporter(by)).await?;
    Ok(answer(encoding, &logs_response(&refused)))
}

async fn traces(
    State(ingest): State<Ingest>,
    by: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, BodyError> {
    let (encoding, request) = read::<ExportTraceServiceRequest>(&ingest, &headers, &body)?;
    let refused = ingest.accept(OtlpRequest::Traces(request), exporter(by)).await?;
    Ok(answer(encoding, &trace_response(&refused)))
}

async fn metrics(
    State(ingest): State<Ingest>,
    by: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, BodyError> {
    let (encoding, request) = read::<ExportMetricsServiceRequest>(&ingest, &headers, &body)?;
    let refused = ingest.accept(OtlpRequest::Metrics(request), exporter(by)).await?;
    Ok(answer(encoding, &metrics_response(&refused)))
}

fn exporter(by: Option<Extension<Peer>>) -> Option<SpiffeId> {
    by?.0.leaf.map(|leaf| leaf.id.clone())
}

fn read<T: Message + Default + DeserializeOwned>(
    ingest: &Ingest,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Encoding, T), BodyError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let encoding = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/x-protobuf" => Encoding::Protobuf,
        "application/json" => Encoding::Json,
        _ => return Err(BodyError::ContentType),
    };
    let unpacked;
    let body = match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => body.as_ref(),
        Some(b"gzip") => {
            unpacked = gunzip(body, ingest.max_request_bytes())?;
            unpacked.as_slice()
        }
        Some(_) => return Err(BodyError::ContentEncoding),
    };
    let message = match encoding {
        Encoding::Protobuf => T::decode(body).map_err(|error| BodyError::Malformed(error.to_string()))?,
        Encoding::Json => {
            serde_json::from_slice(body).map_err(|error| BodyError::Malformed(error.to_string()))?
        }
    };
    Ok((encoding, message))
}

fn gunzip(packed: &[u8], max: usize) -> Result<Vec<u8>, BodyError> {
    let mut unpacked = Vec::new();
    let limit = max as u64 + 1;
    flate2::read::MultiGzDecoder::new(packed)
        .take(limit)
        .read_to_end(&mut unpacked)
        .map_err(BodyError::Gzip)?;
    if unpacked.len() > max {
        return Err(BodyError::TooLarge(max));
    }
    Ok(unpacked)
}

fn answer<T: Message + Serialize>(encoding: Encoding, message: &T) -> Response {
    match encoding {
        Encoding::Protobuf => {
            ([(header::CONTENT_TYPE, "application/x-protobuf")], message.encode_to_vec()).into_response()
        }
        Encoding::Json => axum::Json(message).into_response(),
    }
}
