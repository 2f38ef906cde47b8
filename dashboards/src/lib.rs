//! The dashboard: takes OTLP in, keeps it in an embedded column store, and serves the operator's page.
//!
//! ```text
//! OTLP -> ingest -> store <- query <- api -> page (web)
//!           \-> record (names, outcomes, redaction)    ^-- login
//! ```

mod app;
pub mod config;

mod ingest;
mod record;

mod query;
mod store;

pub mod api;
mod login;
mod web;

mod metrics;

#[doc(hidden)]
pub mod bench_support;

pub use app::{Addresses, App};
pub use config::Config;
pub use login::{LoginError, Logins};
