//! The authorization service: may this request pass?
//!
//! In reading order: `wire` takes questions, `authorize` answers them from `token` and `policy`, `decisions` keeps
//! what was answered, `store` is where the policy comes from, `admin` is how it changes.

pub mod wire;

pub mod authorize;
pub mod decisions;
pub mod facts;
pub mod token;
pub mod x509;

pub mod policy;

pub mod admin;
pub mod ca;
pub mod store;

mod app;
pub mod config;
pub mod metrics;

pub use app::{Addresses, App};
pub use config::Config;
pub use store::Store;
