//! Opening connections to a cluster's endpoints: who we are towards them, and who they must be.
//!
//! Every cluster has one way to dial and each of its endpoints a pool of its own, so a connection is never used for
//! a request that wants another identity at either end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use socket2::{Domain, Protocol as Transport, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tollgate_identity::Identity;
use tollgate_identity::pki_types::ServerName;
use tollgate_identity::tls::{FileRoots, Lifetime, Origin, client_config, origin_config};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::descriptors::Descriptors;

use super::loops::{Entry, Loops, Towards, leads_back};
use crate::config::{ClusterConfig, Endpoints, Protocol, ProxyProtocolVersion};
use crate::proxy_protocol::{self, Ends};
use crate::socket::Socket;

/// Whom the workload beside us sees where we reach it by its machine's own address. What this machine sends there is
/// captured like what comes in; by this address the rules know what has been (`init-iptables`).
pub(crate) const CARRIED_IN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// How one cluster's endpoints are reached.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: Option<Tls>,
    announce: Option<ProxyProtocolVersion>,
    loops: Arc<Loops>,
    cluster: Arc<str>,
    towards: Towards,
    /// The near end of its connections, where that matters.
    source: Option<IpAddr>,
    descriptors: Descriptors,
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

impl Tls {
    fn build(
        config: &ClusterConfig,
        identity: Option<&Identity>,
        service: &Service,
    ) -> anyhow::Result<Option<Self>> {
        let Some(tls) = &config.tls else { return Ok(None) };
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
        Ok(Some(Self { connector, name, identity: shown, clock: service.clock().clone() }))
    }
}

/// A connection that was opened, and until when it may be used and may live.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) stream: Socket,
    pub(super) retire: Option<Instant>,
    pub(super) cut: Option<Instant>,
    /// It is known as ours as long as this is kept.
    pub(super) entry: Option<Entry>,
}

impl Dialer {
    pub(crate) fn build(
        config: &ClusterConfig,
        identity: Option<&Identity>,
        service: &Service,
        loops: &Arc<Loops>,
    ) -> anyhow::Result<Self> {
        let (towards, source) = match &config.endpoints {
            Endpoints::OriginalDestination(app) if app.address.is_loopback() => (Towards::App, None),
            Endpoints::OriginalDestination(_) => (Towards::App, Some(CARRIED_IN.into())),
            _ => (Towards::Others, None),
        };
        let tls = Tls::build(config, identity, service)?;
        let (announce, descriptors) = (config.proxy_protocol, service.descriptors());
        let (loops, cluster) = (Arc::clone(loops), config.name.as_str().into());
        Ok(Self { tls, announce, loops, cluster, towards, source, descriptors })
    }

    /// `http` or `https`
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether a connection says whose it is, and is good for nobody else.
    pub(super) fn announces(&self) -> bool {
        self.announce.is_some()
    }

    /// Whether somebody's connection is one of these, come back.
    pub(super) fn has_opened(&self, ends: Ends) -> bool {
        self.loops.is_of(&self.cluster, ends.source, ends.destination)
    }

    /// Opens a connection of our own.
    pub(super) async fn dial(&self, address: SocketAddr) -> io::Result<Dialed> {
        // Health is looked after with the last descriptors, too: that we have none says nothing of an endpoint.
        let (stream, entry) = self.connect(address, |_| true).await?;
        self.begin(stream, entry, address, None).await
    }

    /// Opens a connection for somebody, and says so where it is asked for.
    pub(super) async fn dial_for(&self, address: SocketAddr, ends: Option<Ends>) -> io::Result<Dialed> {
        let has_room = |socket: &socket2::Socket| self.descriptors.has_room_for_upstream(socket);
        let (stream, entry) = self.connect(address, has_room).await?;
        self.begin(stream, entry, address, ends).await
    }

    async fn begin(
        &self,
        mut stream: TcpStream,
        entry: Option<Entry>,
        address: SocketAddr,
        ends: Option<Ends>,
    ) -> io::Result<Dialed> {
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
            return Ok(Dialed { stream: Socket::Plain(stream), retire: None, cut: None, entry });
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
            entry,
        })
    }

    async fn connect(
        &self,
        address: SocketAddr,
        has_room: impl Fn(&socket2::Socket) -> bool,
    ) -> io::Result<(TcpStream, Option<Entry>)> {
        if self.loops.is_capture(address) {
            return Err(leads_back(address));
        }
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Transport::TCP))?;
        if !has_room(&socket) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        socket.set_nonblocking(true)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        let entry = self.loops.remember(|| begin(&socket, address), self.towards, &self.cluster)?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            None => Ok((stream, entry)),
            Some(error) => Err(error),
        }
    }
}

/// Begins to connect; the near and the far end of the connection.
fn begin(socket: &socket2::Socket, to: SocketAddr) -> io::Result<(SocketAddr, SocketAddr)> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    let near = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    // That is how one says "this machine".
    let far = if to.ip().to_canonical().is_unspecified() { near.ip() } else { to.ip() };
    Ok((near, SocketAddr::new(far, to.port())))
}

/// Drives a connection to its end, or to that of a certificate.
pub(super) async fn until<T>(cut: Option<Instant>, connection: impl Future<Output = T>) {
    match cut {
        None => drop(connection.await),
        Some(cut) => drop(tokio::time::timeout_at(cut, connection).await),
    }
}
