//! What makes each part of Tollgate a good process.
//!
//! A part is a library with an [`App`]; this crate gives it everything around its own job:
//! configuration ([`config`]), a [`Service`] handle with tasks, readiness, telemetry and a clock,
//! and an entry point ([`cli::main`]). Several services may live in one process, as under
//! `tollgate up`, so nothing in here is global except the process's own log output.

pub mod cli;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod grpc;
pub mod hand_over;
pub mod http_server;
pub mod net;
pub mod process;
pub mod readiness;
pub mod reflection;
pub mod service;
pub mod sockets;
pub mod supervisor;
pub mod tasks;
pub mod telemetry;
pub mod trace_context;

pub use service::{App, Service};
