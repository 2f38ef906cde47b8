//! The proxy: accepts, asks, forwards, reports.
//!
//! One process is an ingress gateway or a sidecar, by its configuration. [`pipeline`] is the place to begin: the
//! life of a request in one function. In reading order:
//!
//! * [`config`]: what an operator may set; [`snapshot`]: the same, compiled and swapped whole; `reload`: when.
//! * `listener`: sockets, connections, their limits and clocks, TLS; `socket`: a connection with TLS or without.
//! * [`pipeline`]: one request from its head to its last byte; `head`: what we believe about it.
//! * [`route`]: which route a request takes, and which descriptors it spends. Pure.
//! * [`stages`]: what a request passes on the way: headers, address limit, authorization, global limit.
//! * `upstream`: clusters, balancing, connections.
//! * [`error`]: every way a request can fail and what the client sees; `body`: what streams through.
//! * `overload`: which requests are refused when there is too much to do.
//! * `rollout`: canaries whose share moves by itself.
//! * `status`: how the proxy does, for its process listener.
//! * `record`: access record, spans; `metrics`: instruments; `probe`: whether the other parts are ready.
//! * [`iptables`]: the rules that redirect connections to a transparent sidecar.
//! * [`app`]: the wiring.

pub mod app;
mod body;
pub mod config;
pub mod error;
mod head;
pub mod iptables;
mod listener;
mod metrics;
mod overload;
pub mod pipeline;
mod probe;
mod proxy_protocol;
mod record;
mod reload;
pub mod rollout;
pub mod route;
pub mod snapshot;
mod socket;
pub mod stages;
mod status;
mod upstream;

pub use app::{Addresses, App};
pub use config::Config;
