//! OTLP in: gRPC on 4317, HTTP on 4318. Both end in [`Ingest::accept`].
//!
//! ```text
//! decode -> size cap -> credentials out, unkeepable records refused, exporter noted -> columns -> store -> acknowledge
//! ```
//! A request is acknowledged only once it would survive the end of this process. What is refused is said in
//! `partial_success` or by RESOURCE_EXHAUSTED, and counted; nothing is swallowed.

mod admit;
mod bounds;
mod grpc;
mod http;
mod points;
mod rows;

use std::sync::Arc;

use prost::Message as _;
use tokio::sync::Semaphore;
use tollgate_identity::SpiffeId;
use tollgate_proto::opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use tollgate_runtime::clock::Clock;

pub(crate) use grpc::serve as serve_grpc;
pub(crate) use http::router as http_router;

use crate::metrics::DropReason;
use crate::store::{Batch, LogEntry, Part, Store, unpack};
use admit::Window;

/// One OTLP request of either transport.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OtlpRequest {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl OtlpRequest {
    fn signal(&self) -> i64 {
        match self {
            Self::Logs(_) => 0,
            Self::Traces(_) => 1,
            Self::Metrics(_) => 2,
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Logs(request) => request.encoded_len(),
            Self::Traces(request) => request.encoded_len(),
            Self::Metrics(request) => request.encoded_len(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Logs(request) => request.encode_to_vec(),
            Self::Traces(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
        }
    }

    pub(crate) fn decode(signal: i64, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(match signal {
            0 => Self::Logs(ExportLogsServiceRequest::decode(bytes)?),
            1 => Self::Traces(ExportTraceServiceRequest::decode(bytes)?),
            _ => Self::Metrics(ExportMetricsServiceRequest::decode(bytes)?),
        })
    }
}

/// What was not kept of an accepted request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) records: u64,
    /// Why, for the exporter's log; empty when nothing was refused.
    pub(crate) message: String,
}

/// Why a whole request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// Too much is on its way in already; the exporter should come again later.
    #[error("the dashboard is overloaded; try again later")]
    Overloaded,
    /// It would unfold into too much; it would the next time too.
    #[error("the request has {0}; send smaller ones")]
    TooLarge(&'static str),
    #[error("the request cannot be stored now; try again later")]
    Store,
}

/// Limits on what is taken in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IngestLimits {
    pub(crate) max_request_bytes: usize,
    pub(crate) max_inflight_bytes: usize,
    pub(crate) keep_days: u32,
}

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    store: Store,
    clock: Clock,
    limits: IngestLimits,
    /// One permit a KiB of requests that are decoded and not yet committed.
    inflight: Arc<Semaphore>,
}

impl Ingest {
    pub(crate) fn new(store: Store, clock: Clock, limits: IngestLimits) -> Self {
        let inflight = Arc::new(Semaphore::new((limits.max_inflight_bytes / 1024).max(1)));
        Self { store, clock, limits, inflight }
    }

    pub(crate) fn max_request_bytes(&self) -> usize {
        self.limits.max_request_bytes
    }

    /// Stores a request that `exporter`'s certificate came with. Returns once it is safe, with what of it was not kept.
    pub(crate) async fn accept(
        &self,
        request: OtlpRequest,
        exporter: Option<SpiffeId>,
    ) -> Result<Refused, IngestError> {
        if let Err(cap) = bounds::check(&request) {
            self.store.metrics().dropped(DropReason::TooLarge, admit::count(&request));
            return Err(IngestError::TooLarge(cap));
        }
        let kib = u32::try_from(request.encoded_len() / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(_permit) = Arc::clone(&self.inflight).try_acquire_many_owned(kib) else {
            self.store.metrics().dropped(DropReason::Overloaded, admit::count(&request));
            return Err(IngestError::Overloaded);
        };
        let received_ns = self.clock.unix_nanos();
        let window = Window::around(received_ns, self.limits.keep_days);
        let (batch, refused) = tokio::task::spawn_blocking(move || {
            prepare(request, &window, received_ns, exporter.as_ref().map(SpiffeId::as_str))
        })
        .await
        .map_err(|_| IngestError::Store)?;
        self.store.metrics().dropped(DropReason::Time, refused.by_time);
        self.store.metrics().dropped(DropReason::Unsupported, refused.unsupported);
        self.store.metrics().attributes_dropped(refused.attributes);
        if batch.records > 0 {
            let committed = self.store.append(batch).ok_or(IngestError::Overloaded)?;
            committed.await.map_err(|_| IngestError::Store)?.map_err(|_| IngestError::Store)?;
        }
        Ok(Refused { records: refused.by_time + refused.unsupported, message: refused.message() })
    }
}

/// Everything between the wire and the store that needs no store: pure, and the CPU time of ingest.
fn prepare(
    mut request: OtlpRequest,
    window: &Window,
    received_ns: u64,
    exporter: Option<&str>,
) -> (Batch, admit::Refusals) {
    let refused = admit::admit(&mut request, window, exporter);
    let received_ns = i64::try_from(received_ns).unwrap_or(i64::MAX);
    let parts = rows::parts(&request);
    let packed = zstd::bulk::compress(&request.encode(), 1).expect("compressing to memory cannot fail");
    let batch = Batch {
        signal: request.signal(),
        received_ns,
        request: packed,
        records: parts.iter().map(|part| part.block.rows).sum(),
        parts,
    };
    (batch, refused)
}

/// Reads a logged request again, after a crash.
pub(crate) fn replay(entry: &LogEntry) -> Result<Vec<Part>, String> {
    let bytes = unpack(&entry.request).map_err(|error| error.to_string())?;
    let request = OtlpRequest::decode(entry.signal, &bytes).map_err(|error| error.to_string())?;
    Ok(rows::parts(&request))
}
