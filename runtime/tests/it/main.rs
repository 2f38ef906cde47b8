//! The runtime against real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and waits for what it spawns"
)]

mod drain;
mod telemetry;
