//! The SDK's span processor that puts finished spans into our bounded queue.
//!
//! The SDK's own batch processor drops silently when its collector is away; operators must be able
//! to see that in a metric.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::otlp;
use super::queue::SpanQueue;

#[derive(Debug)]
pub(crate) struct QueueProcessor(SpanQueue);

impl QueueProcessor {
    pub(crate) fn new(queue: SpanQueue) -> Self {
        Self(queue)
    }
}

impl SpanProcessor for QueueProcessor {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.offer(otlp::span(&span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
