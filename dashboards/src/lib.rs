//! The dashboard: takes OTLP in, keeps it in an embedded column store, and serves the operator's page.

pub mod api;
