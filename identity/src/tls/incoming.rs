//! Connections as they come in, after their handshake: what a gRPC server serves.
//!
//! ```text
//! accept ──> place ──> handshake (bounded in number and time) ──> Accepted { who, place } ──> server
//!              │           └── refused: a line in the log, nothing for the server
//!              └── none left, in all or for this address: closed at once
//! ```
//!
//! A slow or hostile handshake holds one of a bounded number of places and no more, and so does whoever then says
//! nothing. A connection says when to drain it, and is cut at the end of its peer's certificate, whatever it is doing: by
//! then the peer has had half a life to renew. Who shows no certificate has come to ask one thing, and is cut soon.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::net::Ends;
use tonic::transport::server::Connected;

use super::{HANDSHAKE_RECORD, Lifetime};
use crate::certificate::Leaf;
use crate::identity::{Identity, draw};

/// Handshakes at once.
const MAX_HANDSHAKES: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are ready and not yet taken by the server.
const MAX_WAITING: usize = 64;
/// How long to wait when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// What the log says of a client that speaks no TLS.
pub(super) const PLAINTEXT: &str = "the client speaks plaintext, and this port takes TLS alone";

/// How many connections there may be, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionBounds {
    /// Connections at once, in their handshake or after it.
    pub total: usize,
    /// Of these, from one address. An IPv6 client has a whole /64 to call from, which counts as one.
    pub per_address: usize,
    /// How long a connection lives whose client has shown no certificate.
    pub anonymous_life: Duration,
}

impl Default for ConnectionBounds {
    fn default() -> Self {
        Self { total: 1024, per_address: 128, anonymous_life: Duration::from_secs(60) }
    }
}

/// The places there are.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    /// How many connections each address has; one that has none is not in here, so there are never more than `all`.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    fn new(bounds: &ConnectionBounds) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(bounds.total));
        Arc::new(Self { all, per_address: bounds.per_address, taken: Mutex::default() })
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let address = caller(address);
        let mut taken = self.taken.lock();
        let count = taken.entry(address).or_default();
        // An entry that was made just now is below any bound but none.
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), address, _of_all: of_all })
    }
}

/// Who may have many addresses counts as one caller.
fn caller(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// The place of one connection; dropped with it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
    _of_all: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// As whom; `None` where no certificate was shown.
    pub leaf: Option<Arc<Leaf>>,
}

/// A connection after its handshake.
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When its peer's certificate wants it drained, from the handshake on.
    drain: Option<Duration>,
    /// The end of the peer's certificate, or of the patience with who has none.
    end: Pin<Box<Sleep>>,
    _place: Place,
}

/// Accepts connections on `listener` until the service stops, so many as `bounds` allow. Peers are called by their trust
/// domains' own names, whatever aliases `identity` knows.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    identity: &Identity,
    service: &Service,
    bounds: ConnectionBounds,
) -> ReceiverStream<io::Result<Accepted>> {
    let server = Server::new(config, Some(identity), service, bounds.anonymous_life);
    accept(listener, service, bounds, move |raw| {
        let server = server.clone();
        async move {
            said_hello(&raw).await?;
            server.shake(raw).await
        }
    })
}

/// Accepts connections and makes of each what `make` does, which may take as long as a handshake may.
pub(super) fn accept<T, F>(
    listener: TcpListener,
    service: &Service,
    bounds: ConnectionBounds,
    make: impl Fn(Raw) -> F + Send + Sync + 'static,
) -> ReceiverStream<io::Result<T>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let (ready, taken) = mpsc::channel(MAX_WAITING);
    let tasks = service.tasks().clone();
    let (handshakes, places) = (Arc::new(Semaphore::new(MAX_HANDSHAKES)), Places::new(&bounds));
    service.tasks().spawn_essential("tls-accept", async move {
        let stopping = tasks.stopping();
        loop {
            let handshake = tokio::select! {
                () = stopping.cancelled() => return,
                handshake = Arc::clone(&handshakes).acquire_owned() => handshake.expect("nobody closes it"),
            };
            let (stream, address) = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let Some(place) = places.take(address.ip()) else {
                tracing::info!(peer = %address, "connection closed: too many in all, or from this address");
                continue;
            };
            let (making, ready) = (make(Raw { stream, address, place }), ready.clone());
            tasks.spawn("tls-handshake", async move {
                let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, making).await;
                let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                drop(handshake);
                match shaken {
                    // Only a server that has stopped takes no more.
                    Ok(accepted) => drop(ready.send(Ok(accepted)).await),
                    Err(error) => tracing::info!(peer = %address, %error, "no handshake"),
                }
            });
        }
    });
    ReceiverStream::new(taken)
}

/// A connection before its handshake.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) place: Place,
}

/// Whether what comes first on a connection is a handshake; it stays to be read.
pub(super) async fn is_handshake(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(first[0] == HANDSHAKE_RECORD)
}

/// Refuses plaintext with words that say so.
async fn said_hello(raw: &Raw) -> io::Result<()> {
    if is_handshake(&raw.stream).await? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, PLAINTEXT))
}

/// What shakes hands.
#[derive(Clone)]
pub(super) struct Server {
    acceptor: TlsAcceptor,
    /// By which peers are called, if any show a certificate.
    identity: Option<Identity>,
    clock: Clock,
    anonymous_life: Duration,
}

impl Server {
    pub(super) fn new(
        config: Arc<ServerConfig>,
        identity: Option<&Identity>,
        service: &Service,
        anonymous_life: Duration,
    ) -> Self {
        let (acceptor, clock) = (TlsAcceptor::from(config), service.clock().clone());
        Self { acceptor, identity: identity.cloned(), clock, anonymous_life }
    }

    pub(super) async fn shake(&self, Raw { stream, address, place }: Raw) -> io::Result<Accepted> {
        stream.set_nodelay(true)?;
        let stream = self.acceptor.accept(stream).await?;
        let mut leaf = super::peer(stream.get_ref().1).map_err(io::Error::other)?;
        if let (Some(leaf), Some(identity)) = (&mut leaf, &self.identity) {
            leaf.id = identity.material().bundles.canonical(&leaf.id);
        }
        let lifetime = leaf
            .as_ref()
            .map(|leaf| Lifetime::of(leaf.not_before, leaf.not_after, self.clock.unix_nanos(), draw()));
        let end = lifetime.map_or(self.anonymous_life, |lifetime| lifetime.cut);
        Ok(Accepted {
            stream,
            peer: Peer { address, leaf: leaf.map(Arc::new) },
            drain: lifetime.map(|lifetime| lifetime.drain),
            end: Box::pin(tokio::time::sleep(end)),
            _place: place,
        })
    }
}

impl Accepted {
    fn ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.end.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        let why = match self.peer.leaf {
            Some(_) => "the peer's certificate has ended",
            None => "the time of a peer without a certificate is over",
        };
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, why))
    }
}

impl Ends for Accepted {
    fn drain_after(&self) -> Option<Duration> {
        self.drain
    }
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
