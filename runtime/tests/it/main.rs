//! The runtime against real sockets.

mod drain;
mod telemetry;
