//! "Has this caller had enough?" The global rate-limit service.
//!
//! In the order a request meets them: [`wire`] takes the call and shapes the answer, [`limiter`]
//! leads it through, [`limits`] says which rule a descriptor falls under, [`plan`] turns the rules
//! into counting, [`counters`] count, [`window`], [`sliding`] and [`bucket`] are the arithmetic, [`answer`] judges.
//! [`quota`] divides limits among proxies that decide by themselves.

pub mod app;
pub mod config;

pub mod answer;
pub mod bucket;
pub mod counters;
pub mod limiter;
pub mod limits;
pub mod metrics;
pub mod plan;
pub mod quota;
pub mod reload;
pub mod sliding;
pub mod verdict;
pub mod window;
pub mod wire;

pub use app::{Addresses, App};
pub use config::Config;
