//! The dashboard from outside: real clients, real sockets, a real process that is killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod certificates;
mod crash;
mod harness;
mod ingest;
mod tls;
mod web;
