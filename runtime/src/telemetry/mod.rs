//! Traces, metrics and logs of one part, sent by OTLP to whoever collects them.
//!
//! ```text
//! spans (OTel SDK) ---> bounded queue --\
//! log records --------> bounded queue ----> one gRPC connection -> OTLP endpoint
//! instruments (SDK) --> every interval --/
//!        \--> Prometheus text at the process listener
//! ```
//!
//! Nothing on the request path waits for the collector: a full queue drops and counts
//! (`tollgate.telemetry.dropped`). While the collector is away the batch in hand is retried and the
//! queue fills behind it.

mod export;
mod metrics;
mod otlp;
pub mod process_log;
mod queue;
mod spans;
mod sparing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use export::{ExportHandles, Exporting, KnownBy, SecureEndpoint, TelemetryChannel};
pub use otlp::{Encoded, LogWriter};
pub use queue::{DropReason, LogQueue};

use crate::config::{Invalid, duration};

/// Scope name of everything that is emitted through this crate.
const SCOPE: &str = "tollgate";

/// Where telemetry goes and how much of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// OTLP/gRPC endpoint: `https://127.0.0.1:4317` for mTLS by this service's identity, `http://` for plaintext. Without
    /// one nothing is sent; `/metrics` still answers.
    pub endpoint: Option<String>,
    /// The roots that a collector outside the mesh is believed by: then it proves the name in `endpoint`, and we show it no
    /// certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Who must answer at an `https://` endpoint; `ns/tollgate-system/sa/dashboard` of our trust domain if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Share of new traces that are recorded, 0 to 1. A caller's own decision is kept.
    pub sample_ratio: f64,
    /// Which process log lines are kept, as `RUST_LOG` writes it: `info`, `tollgate_proxy=debug,info`.
    pub log: String,
    /// Log records that may wait to be sent.
    pub log_queue: usize,
    /// Spans that may wait to be sent.
    pub span_queue: usize,
    /// How often metrics are sent.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub metrics_interval: Duration,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca_file: None,
            spiffe_id: None,
            sample_ratio: 1.0,
            log: "info".to_owned(),
            log_queue: 16_384,
            span_queue: 16_384,
            metrics_interval: Duration::from_secs(10),
        }
    }
}

impl TelemetryConfig {
    /// Whether it is sent over mTLS, which needs an identity.
    pub fn is_secure(&self) -> bool {
        self.speaks_tls() && self.ca_file.is_none()
    }

    fn speaks_tls(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("https://"))
    }

    /// What serde cannot check.
    pub fn check(&self) -> Result<(), Invalid> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(Invalid::new(
                "telemetry.sample_ratio",
                format!("{} is not a share", self.sample_ratio),
                "a number from 0 to 1",
            ));
        }
        if let Some(endpoint) = &self.endpoint {
            let uri = endpoint.parse::<http::Uri>().ok();
            if !matches!(uri.as_ref().and_then(http::Uri::scheme_str), Some("http" | "https")) {
                return Err(Invalid::new(
                    "telemetry.endpoint",
                    format!("`{endpoint}` is not an OTLP/gRPC address"),
                    "a URL such as http://127.0.0.1:4317",
                ));
            }
        }
        if self.ca_file.is_some() && !self.speaks_tls() {
            let problem = "stands beside an endpoint without TLS";
            return Err(Invalid::new("telemetry.ca_file", problem, "an endpoint that begins with https://"));
        }
        if self.ca_file.is_some() && self.spiffe_id.is_some() {
            let problem = "stands beside `ca_file`: the collector is known by its name or by its id";
            return Err(Invalid::new("telemetry.spiffe_id", problem, "one of the two"));
        }
        if self.log.parse::<tracing_subscriber::filter::Targets>().is_err() {
            return Err(Invalid::new(
                "telemetry.log",
                format!("`{}` is not a log filter", self.log),
                "a level (`info`) or targets with levels (`tollgate_proxy=debug,info`)",
            ));
        }
        Ok(())
    }
}

/// The telemetry of one part: cheap to clone, nothing in it ever waits.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    tracer: SdkTracer,
    tracer_provider: SdkTracerProvider,
    meter_provider: SdkMeterProvider,
    registry: prometheus::Registry,
    logs: LogQueue,
}

impl Telemetry {
    /// Builds the providers and queues; the second value sends what they gather.
    ///
    /// `name` becomes `service.name`.
    pub(crate) fn new(name: &str, config: &TelemetryConfig) -> anyhow::Result<(Self, Exporting)> {
        let resource = Resource::builder()
            .with_service_name(name.to_owned())
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(opentelemetry::KeyValue::new("service.namespace", "tollgate"))
            .with_attribute(opentelemetry::KeyValue::new(
                "service.instance.id",
                std::process::id().to_string(),
            ))
            .build();

        let metrics = metrics::Pipeline::new(&resource)?;
        let meter = metrics.provider.meter(SCOPE);
        let sends = config.endpoint.is_some();
        let (logs, log_source) = queue::logs(sends, config.log_queue, &meter);
        let (span_queue, span_source) = queue::spans(sends, config.span_queue, &meter);

        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
        let tracer_provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(sampler)
            .with_span_processor(spans::QueueProcessor::new(span_queue))
            .build();

        let exporting = Exporting::new(config, resource, log_source, span_source, metrics.reader);
        let inner = Inner {
            name: name.to_owned(),
            tracer: tracer_provider.tracer(SCOPE),
            tracer_provider,
            meter_provider: metrics.provider,
            registry: metrics.registry,
            logs,
        };
        Ok((Self(Arc::new(inner)), exporting))
    }

    /// Telemetry that goes nowhere, for tests and one-shot commands.
    pub fn off(name: &str) -> Self {
        let (telemetry, _exporting) = Self::new(name, &TelemetryConfig::default())
            .expect("the default configuration makes a valid pipeline");
        telemetry
    }

    /// The part's name, which is `service.name` on all it sends.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Makes spans.
    pub fn tracer(&self) -> &SdkTracer {
        &self.0.tracer
    }

    /// Makes instruments.
    pub fn meter(&self) -> Meter {
        self.0.meter_provider.meter(SCOPE)
    }

    /// Takes log records: access records and the process's own.
    pub fn logs(&self) -> &LogQueue {
        &self.0.logs
    }

    /// All metrics in Prometheus' text format.
    pub fn render_metrics(&self) -> anyhow::Result<String> {
        Ok(prometheus::TextEncoder::new().encode_to_string(&self.0.registry.gather())?)
    }

    /// Ends the span pipeline, so that spans still open are not lost silently.
    pub(crate) fn shutdown(&self) {
        let _ = self.0.tracer_provider.force_flush();
    }
}
