//! The runtime against real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod drain;
mod telemetry;
