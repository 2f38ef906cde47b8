//! What is told about a connection of bytes when it is over: one access record, whatever ended it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tollgate_proto::Reason;
use tollgate_proto::attributes as a;
use tollgate_runtime::telemetry::Encoded;

use super::access::{self, Attributes};
use super::{Authz, Reporter, with_causes};
use crate::config::TcpConfig;
use crate::error::ProxyError;
use crate::listener::{Connection, Flow};

/// What is known about a connection so far. It is written once: when it ends, or when it is dropped.
#[derive(Debug)]
pub(crate) struct Passage {
    reporter: Arc<Reporter>,
    connection: Arc<Connection>,
    tcp: TcpConfig,
    started: Instant,
    started_unix_nanos: u64,
    pub(crate) authz: Authz,
    /// Where it went.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) flow: Arc<Flow>,
    /// Why it ended; none while it goes on.
    end: Option<End>,
}

/// Why a connection ended.
#[derive(Debug)]
struct End {
    reason: Reason,
    flags: &'static str,
    details: String,
}

impl Passage {
    pub(crate) fn begin(reporter: &Arc<Reporter>, connection: &Arc<Connection>, tcp: &TcpConfig) -> Self {
        Self {
            reporter: Arc::clone(reporter),
            connection: Arc::clone(connection),
            tcp: tcp.clone(),
            started: Instant::now(),
            started_unix_nanos: reporter.service.clock().unix_nanos(),
            authz: Authz::default(),
            address: None,
            version: None,
            flow: Arc::new(Flow::new()),
            end: None,
        }
    }

    /// It was carried, and then it ended.
    pub(crate) fn ended(&mut self, reason: Reason, flags: &'static str, details: String) {
        self.end = Some(End { reason, flags, details });
    }

    /// It was not carried.
    pub(crate) fn refused(&mut self, error: &ProxyError) {
        let end = End { reason: error.reason(), flags: error.flags(), details: with_causes(error) };
        let (listener, peer) = (&self.connection.listener.config().name, self.connection.peer);
        let (id, reason, details) =
            (self.connection.peer_name().unwrap_or_default(), end.reason.as_str(), &end.details);
        let why = self.authz.verdict.explanation.as_deref().unwrap_or_default();
        tracing::info!(listener, %peer, id, reason, why, "connection refused: {details}");
        self.end = Some(end);
    }

    fn record(&self, end: &End) -> Encoded {
        let took = self.started.elapsed();
        let mut list = Attributes::new(self.started_unix_nanos, end.reason);
        access::add_reporter(&mut list, &self.connection);
        access::add_both_ends(&mut list, &self.connection, self.tcp.service.as_ref());
        list.text(a::CLIENT_ADDRESS, self.connection.peer.ip().to_canonical().to_string());
        list.int(a::CLIENT_PORT, self.connection.peer.port());
        list.text(a::NETWORK_PROTOCOL_NAME, "tcp");
        let named = self.connection.secured.as_ref().and_then(|secured| secured.server_name.as_deref());
        if self.connection.listener.config().transparent {
            let wanted = self.connection.local;
            list.text(
                a::SERVER_ADDRESS,
                named.map_or_else(|| wanted.ip().to_canonical().to_string(), str::to_owned),
            );
            list.int(a::SERVER_PORT, wanted.port());
        } else {
            list.maybe(a::SERVER_ADDRESS, named);
        }
        list.text(a::TOLLGATE_REASON, end.reason.as_str());
        if end.reason != Reason::Ok {
            list.text(a::ERROR_TYPE, end.reason.as_str());
        }
        if !end.flags.is_empty() && end.flags != "-" {
            list.text(a::TOLLGATE_RESPONSE_FLAGS, end.flags);
        }
        list.text(a::TOLLGATE_RESPONSE_DETAILS, end.details.as_str());
        list.text(a::TOLLGATE_UPSTREAM_CLUSTER, self.tcp.cluster.as_str());
        list.maybe(a::TOLLGATE_DESTINATION_VERSION, self.version.as_deref());
        if let Some(address) = self.address {
            list.text(a::NETWORK_PEER_ADDRESS, address.ip().to_string());
            list.int(a::NETWORK_PEER_PORT, address.port());
        }
        let (received, sent) = self.flow.bytes();
        list.int(a::TOLLGATE_CONNECTION_RECEIVED, received);
        list.int(a::TOLLGATE_CONNECTION_SENT, sent);
        list.micros(a::TOLLGATE_DURATION_US, Some(took));
        list.micros(a::TOLLGATE_AUTHZ_US, self.authz.took);
        access::add_authorization(&mut list, &self.authz, self.started_unix_nanos);
        let line = format!(
            "connection {} {}.{:03}s from {} to {}",
            end.reason,
            took.as_secs(),
            took.subsec_millis(),
            self.connection.peer_name().map_or_else(|| self.connection.peer.ip().to_string(), str::to_owned),
            self.tcp.cluster,
        );
        list.end(self.started_unix_nanos + access::nanos(took), &line)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let end = self.end.take().unwrap_or_else(|| End {
            reason: Reason::Ok,
            flags: "",
            details: "cut: the proxy stops".to_owned(),
        });
        let listener = &self.connection.listener.config().name;
        let (received, sent) = self.flow.bytes();
        self.reporter.metrics.carried(listener, end.reason, received, sent);
        if self.reporter.is_heard() {
            self.reporter.service.telemetry().logs().offer(self.record(&end));
        }
    }
}
