//! "Has this caller had enough?" The global rate-limit service.
//!
//! In the order a request meets them: [`wire`] takes the call and shapes the answer, [`limiter`]
//! leads it through, [`limits`] says which rule a descriptor falls under, [`plan`] turns the rules
//! into counting, [`counters`] count, [`window`], [`sliding`] and [`bucket`] are the arithmetic, [`answer`] judges.
//! [`quota`] divides limits among proxies that decide by themselves. [`activity`], [`talkers`] and [`arrivals`]
//! remember what was seen, [`simulate`] tries limits on it, and [`admin`] shows it.

pub mod app;
pub mod config;

pub mod activity;
pub mod admin;
pub mod answer;
pub mod arrivals;
pub mod bucket;
pub mod counters;
pub mod limiter;
pub mod limits;
pub mod metrics;
pub mod migrate;
pub mod plan;
pub mod quota;
pub mod reload;
pub mod simulate;
pub mod sliding;
pub mod talkers;
pub mod verdict;
pub mod window;
pub mod wire;
pub mod xds;

pub use app::{Addresses, App};
pub use config::Config;
