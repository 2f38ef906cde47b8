//! The dashboard: takes OTLP in, keeps it in an embedded column store, and serves the operator's page.

pub mod api;
#[doc(hidden)]
pub mod ingest;
mod metrics;
#[expect(dead_code)] mod query;
mod record;
mod store;
