//! Where requests come in, and what one client may take there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_paths::Level;
use tollgate_runtime::config::duration;

use super::capture::Destination;
use super::limit::{ConnectionLimit, LocalLimit};
use super::tcp::TcpConfig;
use super::tls::{ListenerTls, Mtls};
use super::trust::{ProxyProtocol, Trusted};
use super::words::Workload;

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, in logs and errors.
    pub name: String,
    /// The address it listens on. Loopback, where the listener has no TLS.
    pub bind: SocketAddr,
    /// Who is expected on the other side.
    pub role: Role,
    /// Whether the other side shows a certificate.
    #[serde(default)]
    pub mtls: Mtls,
    /// How it speaks TLS. Without this section the proxy's own certificate is shown where `mtls` asks for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Who signs for clients, where that is not our own trust domain: a file of roots. Such clients are no workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Load balancers that say where a connection comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Proxies between clients and this ingress, in place of `edge.trusted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<Trusted>,
    /// Carries bytes to a cluster instead of speaking HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpConfig>,
    /// Takes connections that were meant for others and redirected here (`tollgate-proxy init-iptables`), and learns from
    /// the system where they were going (`SO_ORIGINAL_DST`). What was not redirected is refused.
    #[serde(default)]
    pub transparent: bool,
    /// Where captured connections of bytes go, by where they were going; the first that fits is taken. What none of
    /// these names is HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// How much of a path's spelling is undone before it is routed, judged and forwarded.
    #[serde(default)]
    pub normalize: Normalize,
    /// What one connection may take.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Requests per client address. 500 a second at an ingress, none at a sidecar, unless set.
    #[serde(default)]
    pub limit_by_address: Option<AddressLimit>,
    /// Limits that this proxy holds by itself, before anybody is asked; also for a host, or each value of a key.
    #[serde(default)]
    pub local_limits: Vec<LocalLimit>,
    /// Asks the rate-limit service about each new connection, and closes those it refuses.
    #[serde(default)]
    pub connection_limit: Option<ConnectionLimit>,
    /// Who calls here, where no certificate says so: `namespace/name`.
    #[serde(default)]
    pub source: Option<Workload>,
}

impl ListenerConfig {
    /// Whether it speaks TLS, if only to some of its clients.
    pub fn speaks_tls(&self) -> bool {
        self.mtls != Mtls::Off || self.tls.is_some()
    }

    /// Connections at once per client address, if they are limited.
    pub fn connections_per_address(&self) -> Option<usize> {
        let most = match (self.limits.connections_per_address, self.role) {
            (Some(most), _) => most,
            (None, Role::Ingress) => 1_024,
            (None, Role::Sidecar | Role::Outbound | Role::Egress) => 0,
        };
        (most > 0).then_some(most)
    }

    /// Requests a second per client address, if they are limited.
    pub fn requests_per_address(&self) -> Option<u32> {
        let per_second = match (&self.limit_by_address, self.role) {
            (Some(limit), _) => limit.per_second,
            (None, Role::Ingress) => 500,
            (None, Role::Sidecar | Role::Outbound | Role::Egress) => 0,
        };
        (per_second > 0).then_some(per_second)
    }
}

/// Who is expected on the other side of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Clients from outside, of whom nothing is believed.
    Ingress,
    /// Proxies of this mesh, in front of one workload: their request id and forwarding headers are kept.
    Sidecar,
    /// The workload beside this sidecar, on its way to others. What no route names by its host is refused.
    Outbound,
    /// Workloads of this mesh on their way out of it. What no route names by its host is refused, and what a client
    /// proves itself with stays inside.
    Egress,
}

impl Role {
    /// Whether only what is registered may be reached.
    pub const fn is_registry_only(self) -> bool {
        matches!(self, Self::Outbound | Self::Egress)
    }
}

/// Levels of path normalisation. The default undoes everything an upstream might undo, so that nobody behind
/// the proxy reads a path differently from the authorization service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// As it came.
    None,
    /// Unreserved characters decoded, dot segments removed.
    Base,
    /// Also runs of slashes become one.
    MergeSlashes,
    /// Also `%2F` and `%5C` are decoded.
    #[default]
    DecodeAndMerge,
}

impl From<Normalize> for Level {
    fn from(normalize: Normalize) -> Self {
        match normalize {
            Normalize::None => Self::None,
            Normalize::Base => Self::Base,
            Normalize::MergeSlashes => Self::MergeSlashes,
            Normalize::DecodeAndMerge => Self::DecodeAndMerge,
        }
    }
}

/// What one connection may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once; more wait in the system's backlog.
    pub max_connections: usize,
    /// Connections at once of one address (IPv6: of one /64). One more is closed before a byte of it is read. 1,024 at an
    /// ingress, as many as there may be elsewhere, unless set; 0 switches the limit off.
    pub connections_per_address: Option<usize>,
    /// TLS handshakes that have begun. With one more, the address that has the most of them loses its oldest.
    pub handshakes: usize,
    /// Requests of one connection. With the answer to the last of them it is closed (HTTP/2: GOAWAY).
    pub requests_per_connection: u64,
    /// Bytes of one request's head. More is 431.
    pub header_bytes: usize,
    /// Headers of one request. More is 431.
    pub headers: usize,
    /// From the first byte of a head to its last; longer is 408. Also for the handshake of TLS.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub head_timeout: Duration,
    /// How long a connection may be open without a request, or one of bytes without a byte.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// Bytes of one request's body; none, no limit. More is 413.
    pub body_bytes: Option<u64>,
    /// How long a body may stand still that its upstream waits for; longer is 408.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it; longer, and its connection is closed.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub send_timeout: Duration,
    /// What a client must send of a body, or take of an answer, while it is waited for: less over `body_timeout` or
    /// `send_timeout` is as much as nothing. Bodies of gRPC calls may be slower. 0 switches the limit off.
    pub min_bytes_per_second: u32,
    /// Bytes of one answer that are held for a client which is slow to take it; then its upstream waits.
    pub buffered_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Connections at once that have gone over to another protocol. One more is 503.
    pub upgrades: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            connections_per_address: None,
            handshakes: 1_024,
            requests_per_connection: 100_000,
            header_bytes: 64 << 10,
            headers: 100,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            body_bytes: None,
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(60),
            min_bytes_per_second: 100,
            buffered_bytes: 128 << 10,
            streams: 128,
            upgrades: 1_000,
        }
    }
}

/// Requests per client address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressLimit {
    /// How many a second, and how many at once. 0 switches the limit off.
    pub per_second: u32,
}
