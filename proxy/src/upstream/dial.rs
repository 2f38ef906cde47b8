//! Opening connections to a cluster's endpoints: who we are towards them, and who they must be.
//!
//! Every cluster has one way to dial and each of its endpoints a pool of its own, so a connection is never used for
//! a request that wants another identity at either end.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tollgate_identity::Identity;
use tollgate_identity::pki_types::ServerName;
use tollgate_identity::tls::{FileRoots, Lifetime, Origin, client_config, origin_config};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;

use crate::config::{ClusterConfig, Protocol, ProxyProtocolVersion};
use crate::proxy_protocol::{self, Ends};
use crate::socket::Socket;

/// How one cluster's endpoints are reached.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: Option<Tls>,
    announce: Option<ProxyProtocolVersion>,
}

struct Tls {
    connector: TlsConnector,
    /// What the server is called; workloads have ids instead.
    name: Option<ServerName<'static>>,
    /// What we show.
    identity: Option<Identity>,
    clock: Clock,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A connection that was opened, and until when it may be used and may live.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) stream: Socket,
    pub(super) retire: Option<Instant>,
    pub(super) cut: Option<Instant>,
}

impl Dialer {
    pub(crate) fn build(
        config: &ClusterConfig,
        identity: Option<&Identity>,
        service: &Service,
    ) -> anyhow::Result<Self> {
        let announce = config.proxy_protocol;
        let Some(tls) = &config.tls else { return Ok(Self { tls: None, announce }) };
        let place = || format!("cluster `{}`", config.name);
        let alpn = match config.protocol {
            Protocol::H1 => vec![b"http/1.1".to_vec()],
            Protocol::H2 => vec![b"h2".to_vec()],
        };
        let (client, name, shown) = match &tls.server_name {
            Some(name) => {
                let shown = identity.filter(|_| tls.present_identity).cloned();
                let origin = Origin {
                    roots: FileRoots::follow(tls.roots(), service).with_context(place)?,
                    subject_names: tls.subject_names.clone(),
                    identity: shown.clone(),
                    minimum: tls.min_version,
                    alpn,
                };
                let name = ServerName::try_from(name.clone()).with_context(place)?;
                (origin_config(origin)?, Some(name), shown)
            }
            None => {
                let identity = identity.with_context(place)?;
                let client = client_config(identity, tls.spiffe_ids.clone(), tls.min_version, alpn)?;
                (client, None, Some(identity.clone()))
            }
        };
        let connector = TlsConnector::from(client);
        let tls = Tls { connector, name, identity: shown, clock: service.clock().clone() };
        Ok(Self { tls: Some(tls), announce })
    }

    /// `http` or `https`
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether a connection says whose it is, and is good for nobody else.
    pub(super) fn announces(&self) -> bool {
        self.announce.is_some()
    }

    /// Opens a connection of our own.
    pub(super) async fn dial(&self, address: SocketAddr) -> io::Result<Dialed> {
        self.dial_for(address, None).await
    }

    /// Opens a connection for somebody, and says so where it is asked for.
    pub(super) async fn dial_for(&self, address: SocketAddr, ends: Option<Ends>) -> io::Result<Dialed> {
        let mut stream = TcpStream::connect(address).await?;
        let _ = stream.set_nodelay(true);
        let header = match self.announce {
            None => Vec::new(),
            Some(ProxyProtocolVersion::V1) => proxy_protocol::write_1(ends),
            Some(ProxyProtocolVersion::V2) => proxy_protocol::write_2(ends),
        };
        if !header.is_empty() {
            stream.write_all(&header).await?;
        }
        let Some(tls) = &self.tls else {
            return Ok(Dialed { stream: Socket::Plain(stream), retire: None, cut: None });
        };
        let name = tls.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        let stream = tls.connector.connect(name, stream).await?;
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let lifetime = Lifetime::opened(tls.identity.as_ref(), peer, &tls.clock);
        let now = Instant::now();
        Ok(Dialed {
            retire: lifetime.map(|lifetime| now + lifetime.retire),
            cut: lifetime.map(|lifetime| now + lifetime.cut),
            stream: Socket::Tls(Box::new(stream.into())),
        })
    }
}

/// Drives a connection to its end, or to that of a certificate.
pub(super) async fn until<T>(cut: Option<Instant>, connection: impl Future<Output = T>) {
    match cut {
        None => drop(connection.await),
        Some(cut) => drop(tokio::time::timeout_at(cut, connection).await),
    }
}
