//! The upstreams that routes name.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

/// A set of endpoints that answer alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its name, for routes and in telemetry.
    pub name: String,
    /// Which version of the service runs there; reported as `tollgate.destination.version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it is.
    pub endpoints: Endpoints,
    /// What its endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// How one of them is picked.
    #[serde(default)]
    pub balance: Balance,
    /// How long a connection may take to open.
    #[serde(default = "connect_timeout", with = "duration")]
    pub connect_timeout: Duration,
    /// Connections kept open per endpoint while unused (HTTP/1.1).
    #[serde(default = "max_idle")]
    pub max_idle: usize,
    /// How long an unused connection is kept. Shorter than the upstream's own patience.
    #[serde(default = "idle_timeout", with = "duration")]
    pub idle_timeout: Duration,
}

/// Where endpoints are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// Fixed addresses.
    #[serde(rename = "static")]
    pub fixed: Vec<SocketAddr>,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 by prior knowledge: gRPC and whatever else wants trailers.
    H2,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Of two at random the one with fewer requests in flight.
    #[default]
    LeastRequest,
    /// Each in turn.
    RoundRobin,
}

fn connect_timeout() -> Duration {
    Duration::from_secs(1)
}

fn max_idle() -> usize {
    128
}

fn idle_timeout() -> Duration {
    Duration::from_secs(30)
}
