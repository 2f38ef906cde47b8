//! One set of instruments, read twice: by a Prometheus scrape and by the OTLP exporter.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    InstrumentKind, ManualReader, Pipeline as SdkPipeline, SdkMeterProvider, Temporality,
};

pub(crate) struct Pipeline {
    pub(crate) provider: SdkMeterProvider,
    pub(crate) registry: prometheus::Registry,
    pub(crate) reader: PushReader,
}

impl Pipeline {
    pub(crate) fn new(resource: &Resource) -> anyhow::Result<Self> {
        let registry = prometheus::Registry::new();
        let scrape = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let reader = PushReader(Arc::new(ManualReader::builder().build()));
        let provider = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(scrape)
            .with_reader(reader.clone())
            .build();
        Ok(Self { provider, registry, reader })
    }
}

/// The reader that the exporter task collects from. The provider keeps one clone, the task another.
#[derive(Debug, Clone)]
pub(crate) struct PushReader(Arc<ManualReader>);

impl MetricReader for PushReader {
    fn register_pipeline(&self, pipeline: Weak<SdkPipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
