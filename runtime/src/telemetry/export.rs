//! Sends batches to the OTLP endpoint over one gRPC connection.
//!
//! A batch that fails for a passing reason is retried with backoff until it goes through or the
//! process ends; what the collector refuses for good is dropped and counted. One line is logged
//! when delivery starts to fail and one when it works again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use tollgate_proto::opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use tollgate_proto::opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use tollgate_proto::opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use tollgate_proto::opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use tollgate_proto::opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use tonic::client::Grpc;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::metrics::PushReader;
use super::otlp::{Encoded, Envelope};
use super::queue::{DropReason, Dropped, Source};
use super::{SCOPE, TelemetryConfig};

/// Items sent in one call at most.
const BATCH: usize = 1024;
/// Bytes sent in one call at most: half of what receivers commonly take.
const BATCH_BYTES: usize = 2 << 20;
/// How long the first item of a batch waits for company.
const LINGER: Duration = Duration::from_millis(250);
/// One call to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Backoff between tries, doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// How long the last batches may take once the process is ending.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Gives the channel for the next call.
pub type TelemetryChannel = Arc<dyn Fn() -> Channel + Send + Sync>;

/// Where telemetry goes over TLS; whoever knows about certificates says how.
#[derive(Debug, Clone)]
pub struct SecureEndpoint {
    /// Where, and how long a call may take.
    pub endpoint: Endpoint,
    /// Who must answer.
    pub known_by: KnownBy,
}

/// How a collector is known.
#[derive(Debug, Clone)]
pub enum KnownBy {
    /// As a workload: over mTLS, by this id where one is configured.
    Id(Option<String>),
    /// By the name in its address, to the roots in this file. It is shown no certificate.
    Name(PathBuf),
}

/// What gathers and sends; started once the runtime is there.
#[derive(Debug)]
pub struct Exporting {
    endpoint: Option<Endpoint>,
    secure: Option<SecureEndpoint>,
    interval: Duration,
    resource: Resource,
    logs: Option<Source>,
    spans: Option<Source>,
    metrics: PushReader,
}

/// The running exporter tasks.
#[derive(Debug, Default)]
pub struct ExportHandles {
    ending: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl ExportHandles {
    /// Sends what is queued, waiting a bounded time, and ends the tasks.
    pub async fn flush(mut self) {
        self.ending.cancel();
        let ended = async {
            for task in &mut self.tasks {
                let _ = task.await;
            }
        };
        // One bound for all of them together: a collector that is away must not hold the end up.
        if tokio::time::timeout(FLUSH_TIMEOUT, ended).await.is_err() {
            for task in &self.tasks {
                task.abort();
            }
        }
    }
}

impl Exporting {
    pub(crate) fn new(
        config: &TelemetryConfig,
        resource: Resource,
        logs: Option<Source>,
        spans: Option<Source>,
        metrics: PushReader,
    ) -> Self {
        let endpoint = config.endpoint.as_deref().map(|text| text.replacen("https://", "http://", 1));
        let endpoint = endpoint.and_then(|text| Endpoint::from_shared(text).ok());
        let endpoint = endpoint.map(|e| e.timeout(EXPORT_TIMEOUT).connect_timeout(EXPORT_TIMEOUT));
        let known_by = match &config.ca_file {
            Some(file) => KnownBy::Name(file.clone()),
            None => KnownBy::Id(config.spiffe_id.clone()),
        };
        let secure = endpoint.clone().filter(|_| config.speaks_tls());
        let secure = secure.map(|endpoint| SecureEndpoint { endpoint, known_by });
        Self { endpoint, secure, interval: config.metrics_interval, resource, logs, spans, metrics }
    }

    /// Where telemetry goes over TLS, if it does.
    pub fn secure_endpoint(&self) -> Option<SecureEndpoint> {
        self.secure.clone()
    }

    /// Starts the tasks. Over TLS they wait for `brought`. They outlive the service's own tasks, so that a drain is still reported.
    #[expect(clippy::disallowed_methods, reason = "the exporter must outlive the service's task set")]
    pub fn start(self, brought: watch::Receiver<Option<TelemetryChannel>>) -> ExportHandles {
        let Some(endpoint) = self.endpoint else { return ExportHandles::default() };
        let channel = match self.secure {
            Some(_) => Way::Brought(brought),
            None => Way::Own(endpoint.connect_lazy()),
        };
        let ending = CancellationToken::new();
        let sender = Sender { channel, ending: ending.clone() };
        let attributes = ResourceAttributesWithSchema::from(&self.resource).attributes.0;
        let resource = ProtoResource { attributes, ..Default::default() };
        let scope = InstrumentationScope { name: SCOPE.to_owned(), ..Default::default() };
        let envelope = Envelope::new(&resource, &scope);
        let mut tasks = Vec::new();
        let queues = [(self.logs, Signal::Logs), (self.spans, Signal::Traces)];
        for (source, signal) in queues.into_iter().filter_map(|(source, signal)| Some((source?, signal))) {
            tasks.push(tokio::spawn(send(sender.clone(), source, signal, envelope.clone())));
        }
        tasks.push(tokio::spawn(send_metrics(sender, self.metrics, self.interval)));
        ExportHandles { ending, tasks }
    }
}

#[derive(Clone)]
struct Sender {
    channel: Way,
    ending: CancellationToken,
}

#[derive(Clone)]
enum Way {
    Own(Channel),
    Brought(watch::Receiver<Option<TelemetryChannel>>),
}

impl Way {
    /// The channel for the next call, once there is one.
    async fn channel(&self) -> Result<Channel, Status> {
        match self {
            Self::Own(channel) => Ok(channel.clone()),
            Self::Brought(brought) => {
                let mut brought = brought.clone();
                let channel = brought.wait_for(Option::is_some).await;
                let channel = channel.ok().and_then(|channel| channel.as_ref().map(|channel| channel()));
                channel.ok_or_else(|| Status::unavailable("there is no identity to send telemetry with"))
            }
        }
    }
}

/// What became of one batch.
enum Delivery {
    /// Taken, but for this many items that the collector refused.
    Done { refused: usize },
    /// Given up for this reason.
    Lost(DropReason),
}

impl Sender {
    /// Tries until the batch is taken, refused for good, or the process ends.
    async fn deliver<F, Fut>(&self, signal: &'static str, mut call: F) -> Delivery
    where
        F: FnMut(Channel) -> Fut,
        Fut: Future<Output = Result<i64, Status>>,
    {
        let mut backoff = BACKOFF_FIRST;
        let mut failing = false;
        let mut deadline = None;
        loop {
            let called = async { call(self.channel.channel().await?).await };
            let called = tokio::select! {
                called = called => called,
                // An identity may never come.
                () = self.has_no_way_out() => Err(Status::unavailable("there is no identity to send telemetry with")),
            };
            match called {
                Ok(refused) => {
                    if failing {
                        tracing::info!(signal, "telemetry is delivered again");
                    }
                    return Delivery::Done { refused: usize::try_from(refused).unwrap_or(0) };
                }
                Err(status) if !is_passing(&status) => {
                    tracing::warn!(signal, code = ?status.code(), message = status.message(), "the collector refused telemetry");
                    return Delivery::Lost(DropReason::Refused);
                }
                Err(status) => {
                    if !failing {
                        failing = true;
                        tracing::warn!(signal, code = ?status.code(), message = status.message(), "telemetry cannot be delivered, retrying");
                    }
                }
            }
            if self.ending.is_cancelled() {
                let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + FLUSH_TIMEOUT);
                if tokio::time::Instant::now() >= deadline {
                    return Delivery::Lost(DropReason::Shutdown);
                }
                tokio::time::sleep(BACKOFF_FIRST).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = self.ending.cancelled() => {}
                }
                backoff = (backoff * 2).min(BACKOFF_LAST);
            }
        }
    }

    /// Returns when the process ends and no identity has come.
    async fn has_no_way_out(&self) {
        self.ending.cancelled().await;
        let waits = matches!(&self.channel, Way::Brought(brought) if brought.borrow().is_none());
        if !waits {
            std::future::pending::<()>().await;
        }
    }

    /// Fills `batch`: returns false when there is nothing more to come.
    async fn gather(&self, receiver: &mut mpsc::Receiver<Encoded>, batch: &mut Vec<Encoded>) -> bool {
        let ended = tokio::select! {
            n = receiver.recv_many(batch, BATCH) => n == 0,
            () = self.ending.cancelled() => true,
        };
        if ended {
            while batch.len() < BATCH {
                let Ok(item) = receiver.try_recv() else { break };
                batch.push(item);
            }
            return !batch.is_empty();
        }
        let full = tokio::time::sleep(LINGER);
        tokio::pin!(full);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                n = receiver.recv_many(batch, room) => if n == 0 { break },
                () = &mut full => break,
                () = self.ending.cancelled() => break,
            }
        }
        true
    }
}

/// The codes that OTLP calls retryable (OTLP specification, "Failures"), without OUT_OF_RANGE: that is how tonic
/// refuses a message that is too large, and it will never be smaller.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
            | Code::Unknown
    )
}

fn settle(dropped: &Dropped, items: usize, delivery: Delivery) {
    match delivery {
        Delivery::Done { refused: 0 } => {}
        Delivery::Done { refused } => dropped.count(refused, DropReason::Refused),
        Delivery::Lost(reason) => dropped.count(items, reason),
    }
}

/// Sends the log records or spans of this process, as they come.
async fn send(sender: Sender, mut source: Source, signal: Signal, envelope: Envelope) {
    let mut batch = Vec::with_capacity(BATCH);
    // What did not fit the last call goes first into the next.
    let mut rest = Vec::new();
    loop {
        batch.append(&mut rest);
        if batch.is_empty() && !sender.gather(&mut source.receiver, &mut batch).await {
            return;
        }
        rest = split_at_bytes(&mut batch, BATCH_BYTES);
        let items = batch.len();
        let request = envelope.request(&batch);
        batch.clear();
        let delivery = sender.deliver(signal.name(), |channel| signal.export(channel, request.clone())).await;
        settle(&source.dropped, items, delivery);
    }
}

/// Leaves the first items that fit `most` bytes in `batch`, one at least, and returns the others.
fn split_at_bytes(batch: &mut Vec<Encoded>, most: usize) -> Vec<Encoded> {
    let mut bytes = 0;
    let fits = batch.iter().take_while(|item| {
        bytes += item.size();
        bytes <= most
    });
    let fits = fits.count().max(1);
    if fits < batch.len() { batch.split_off(fits) } else { Vec::new() }
}

/// What is sent as encoded when it happened.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Logs,
    Traces,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }

    fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        })
    }

    /// One call; says how many items the collector refused.
    async fn export(self, channel: Channel, request: Bytes) -> Result<i64, Status> {
        let mut client = Grpc::new(channel);
        let unready = |error| Status::unavailable(format!("the collector is not ready: {error}"));
        client.ready().await.map_err(unready)?;
        let answer = client.unary(Request::new(request), self.path(), AsEncoded).await?.into_inner();
        Ok(answer.partial_success.map_or(0, |partial| partial.rejected_log_records))
    }
}

/// Sends bytes that are a message already. Both signals are answered alike: `partial_success` with a number of items
/// and a message.
#[derive(Debug, Clone, Copy)]
struct AsEncoded;

impl Codec for AsEncoded {
    type Encode = Bytes;
    type Decode = ExportLogsServiceResponse;
    type Encoder = Self;
    type Decoder = <ProstCodec<(), ExportLogsServiceResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<(), ExportLogsServiceResponse>::default().decoder()
    }
}

impl Encoder for AsEncoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

/// Metrics are cumulative, so a missed interval loses resolution and nothing else: no queue, no retry.
async fn send_metrics(sender: Sender, reader: PushReader, interval: Duration) {
    let mut collected = ResourceMetrics::default();
    loop {
        let ending = tokio::select! {
            () = tokio::time::sleep(interval) => false,
            () = sender.ending.cancelled() => true,
        };
        if reader.collect(&mut collected).is_ok() {
            let request = ExportMetricsServiceRequest::from(&collected);
            let sent =
                async { MetricsServiceClient::new(sender.channel.channel().await?).export(request).await };
            let sent = tokio::select! {
                sent = sent => sent.map(drop),
                () = sender.has_no_way_out() => Ok(()),
            };
            if let Err(status) = sent {
                tracing::debug!(code = ?status.code(), message = status.message(), "metrics were not delivered");
            }
        }
        if ending {
            return;
        }
    }
}
