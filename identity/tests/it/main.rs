//! Identity against real handshakes, real files and a real Workload API.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod door;
mod draining;
mod following;
mod handshake;
mod incoming;
mod refused;
mod signing;
mod sources;
mod telemetry;
mod wire;
