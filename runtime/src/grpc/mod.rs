//! gRPC servers: how their ports are served, and what is told about their calls.

mod batch;
mod serve;
mod telemetry;

pub use serve::{Bounds, serve};
pub use telemetry::{ServerTelemetry, ServerTelemetryLayer};
