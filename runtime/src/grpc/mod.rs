//! gRPC servers: how their ports are served, and what is told about their calls.

mod batch;
mod begun;
mod serve;
mod telemetry;
pub mod unary;

pub use serve::{Answer, Bounds, Routed, Waiting, serve};
pub use telemetry::{ServerTelemetry, ServerTelemetryLayer};
