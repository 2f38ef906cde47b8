//! The upstreams that routes name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

use super::capture::OriginalDestination;
use super::filter::{Deprecation, Key};
use super::resilience::{BreakerConfig, HealthCheck, OutlierDetection};
use super::slices::EndpointSlices;
use super::tls::ClusterTls;
use super::trust::ProxyProtocolVersion;
use super::words::Percent;

/// A set of endpoints that answer alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its name, for routes and in telemetry.
    pub name: String,
    /// Which version of the service runs there; reported as `tollgate.destination.version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Says in every answer of this version that it is going away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
    /// Where it is.
    pub endpoints: Endpoints,
    /// What its endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Says before the first byte of a connection whose it is (PROXY protocol). A connection is used for one request then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// TLS towards them; plaintext without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClusterTls>,
    /// How one of them is picked.
    #[serde(default)]
    pub balance: Balance,
    /// Shares of localities. Without any, all endpoints are one.
    #[serde(default)]
    pub localities: Vec<Locality>,
    /// How long a connection may take to open.
    #[serde(default = "connect_timeout", with = "duration")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// Connections kept open per endpoint while unused (HTTP/1.1).
    #[serde(default = "max_idle")]
    pub max_idle: usize,
    /// How long an unused connection is kept. Shorter than the upstream's own patience.
    #[serde(default = "idle_timeout", with = "duration")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// How much may be under way at once.
    #[serde(default)]
    pub breaker: BreakerConfig,
    /// Which endpoints are left out because their answers are bad.
    #[serde(default)]
    pub outlier_detection: OutlierDetection,
    /// Which endpoints are left out because they do not answer when asked how they are.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// When fewer than this share of the endpoints may be used, all of them are.
    #[serde(default = "half")]
    pub panic_threshold: Percent,
    /// How long an endpoint that is new or back takes to get its full share; none, at once.
    #[serde(default, with = "duration::option")]
    #[schemars(with = "Option<String>")]
    pub slow_start: Option<Duration>,
}

/// Where endpoints are: one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Endpoints {
    /// Fixed addresses.
    Static(Vec<Endpoint>),
    /// A name, asked for again when its answer is due.
    Dns(Dns),
    /// A YAML file with a list as `static` has it, read again when it changes.
    File(PathBuf),
    /// The pods of a Service in Kubernetes, as its EndpointSlices tell.
    EndpointSlices(EndpointSlices),
    /// The workload beside this sidecar, at the port that the client wanted: for transparent listeners. There is one
    /// endpoint for each port, and none is left out (no `outlier_detection`).
    OriginalDestination(OriginalDestination),
}

/// One endpoint: an address, or a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an address such as 127.0.0.1:9001, or a map with `address` and `locality`")]
pub enum Endpoint {
    /// An address.
    Address(SocketAddr),
    /// An address and where it is.
    Placed(Placed),
}

/// An address and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The address.
    pub address: SocketAddr,
    /// One of the cluster's localities.
    pub locality: String,
}

impl Endpoint {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Address(address) => *address,
            Self::Placed(placed) => placed.address,
        }
    }

    /// Its locality, if it says one.
    pub fn locality(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Placed(placed) => Some(&placed.locality),
        }
    }
}

/// A name whose addresses are the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The name.
    pub name: String,
    /// The port of its addresses. SRV records bring their own.
    #[serde(default)]
    pub port: Option<u16>,
    /// Which records are asked for.
    #[serde(default)]
    pub record: DnsRecord,
    /// The name server; without one, those of `/etc/resolv.conf`.
    #[serde(default)]
    pub server: Option<SocketAddr>,
    /// Asked for again no sooner than this, whatever the answer's time to live.
    #[serde(default = "min_ttl", with = "duration")]
    #[schemars(with = "String")]
    pub min_ttl: Duration,
    /// Asked for again no later than this.
    #[serde(default = "max_ttl", with = "duration")]
    #[schemars(with = "String")]
    pub max_ttl: Duration,
    /// Whether answers may be private, loopback and link-local addresses. Refused by default where the proxy has an
    /// `egress` listener: a name of somebody else's must not lead inside.
    #[serde(default)]
    pub private_addresses: Option<PrivateAddresses>,
}

/// Which records of a name are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsRecord {
    /// IPv4 addresses.
    #[default]
    #[serde(rename = "A")]
    A,
    /// IPv6 addresses.
    #[serde(rename = "AAAA")]
    Aaaa,
    /// Hosts and ports, and the addresses of those hosts.
    #[serde(rename = "SRV")]
    Srv,
}

/// Whether a name may lead to addresses that are not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrivateAddresses {
    /// It may.
    Allow,
    /// Such answers are left out, and said.
    Refuse,
}

/// A locality and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Locality {
    /// Its name.
    pub name: String,
    /// Its share of the sum of all weights, as long as enough of its endpoints may be used.
    pub weight: u32,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 by prior knowledge: gRPC and whatever else wants trailers.
    H2,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Of two at random the one with fewer requests in flight.
    #[default]
    LeastRequest,
    /// Of two at random the one that answers sooner, by its recent latency and its requests in flight.
    PeakEwma,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
    /// Always the same for one key; few keys move when endpoints come and go.
    RingHash(Key),
    /// The same, more even and quicker to look up; somewhat more keys move.
    Maglev(Key),
}

impl Balance {
    /// What decides, if one key always goes to one endpoint.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::RingHash(key) | Self::Maglev(key) => Some(key),
            Self::LeastRequest | Self::PeakEwma | Self::RoundRobin | Self::Random => None,
        }
    }
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

fn half() -> Percent {
    Percent::of_hundred(50)
}

fn min_ttl() -> Duration {
    Duration::from_secs(1)
}

fn max_ttl() -> Duration {
    Duration::from_secs(300)
}
