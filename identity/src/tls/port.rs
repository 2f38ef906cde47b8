//! A gRPC port of ours: for workloads over mTLS, or in plaintext on this machine.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::Extensions;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tollgate_runtime::net::Ends;
use tollgate_runtime::{Service, http_server};
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::incoming::Place;
use super::{Accepted, ConnectionBounds, Mtls, Peer, ServerOptions, incoming, server_config};
use crate::identity::Identity;
use crate::spiffe_id::{IdPattern, SpiffeId};

/// Proxies keep a few connections each, and many of them may stand behind one address.
const BOUNDS: ConnectionBounds =
    ConnectionBounds { total: 16_384, per_address: 4096, anonymous_life: Duration::from_secs(60) };

/// A connection to such a port.
pub enum PortStream {
    /// In plaintext, with the place that it has where they are counted.
    Plain(TcpStream, SocketAddr, Option<Place>),
    /// After its handshake.
    Secure(Box<Accepted>),
}

/// Connections as they come in.
pub type PortStreams = Pin<Box<dyn Stream<Item = io::Result<PortStream>> + Send>>;

/// Connections as they come in: over mTLS, where there is an identity.
pub fn port(
    listener: TcpListener,
    identity: Option<&Identity>,
    service: &Service,
) -> Result<PortStreams, rustls::Error> {
    let Some(identity) = identity else {
        return Ok(plain(listener));
    };
    let options =
        ServerOptions { mtls: Mtls::Strict, alpn: vec![b"h2".to_vec()], ..ServerOptions::default() };
    let config = server_config(identity, &options)?;
    let secure = incoming(listener, config, identity, service, BOUNDS);
    Ok(Box::pin(secure.map(|accepted| Ok(PortStream::Secure(Box::new(accepted?))))))
}

/// In plaintext.
pub(super) fn plain(listener: TcpListener) -> PortStreams {
    Box::pin(TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        let _ = stream.set_nodelay(true);
        let address = stream.peer_addr()?;
        Ok(PortStream::Plain(stream, address, None))
    }))
}

/// Who may call. Workloads of other trust domains are named; their roots come with the identity.
#[derive(Debug, Clone)]
pub struct Callers {
    named: Vec<IdPattern>,
    identity: Identity,
}

impl Callers {
    /// These, or with none named everybody of our own trust domain.
    pub fn new(named: &[IdPattern], identity: &Identity) -> Self {
        Self { named: named.to_vec(), identity: identity.clone() }
    }

    /// Whether a workload, by its trust domain's own name, is one of them.
    pub fn include(&self, id: &SpiffeId) -> bool {
        let material = self.identity.material();
        if self.named.is_empty() {
            let ours = material.bundles.canonical(&material.credential.leaf.id);
            return id.trust_domain() == ours.trust_domain();
        }
        self.named.iter().any(|pattern| material.bundles.matches(pattern, id))
    }

    /// Lets the call pass, or refuses it. For tonic's interceptors.
    pub fn admit<T>(&self, call: Request<T>) -> Result<Request<T>, Status> {
        self.judge(call.extensions().get::<Peer>())?;
        Ok(call)
    }

    /// Lets who is at the other end of a connection call, or refuses it.
    pub fn judge(&self, peer: Option<&Peer>) -> Result<(), Status> {
        match peer.and_then(|peer| peer.leaf.as_ref()) {
            Some(leaf) if self.include(&leaf.id) => Ok(()),
            Some(leaf) => {
                tracing::warn!(peer = tracing::field::Empty, id = %leaf.id, "call refused: this workload may not call here");
                Err(Status::permission_denied("this workload may not call here"))
            }
            None => Err(Status::unauthenticated("a client certificate is required")),
        }
    }
}

/// The workload that calls, by the certificate of its connection.
pub fn caller<T>(call: &Request<T>) -> Option<SpiffeId> {
    call.extensions().get::<Peer>()?.leaf.as_ref().map(|leaf| leaf.id.clone())
}

impl Connected for PortStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Plain(_, address, _) => Peer { address: *address, leaf: None },
            Self::Secure(accepted) => accepted.connect_info(),
        }
    }
}

impl http_server::Connection for PortStream {
    fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(self.connect_info());
        extensions.insert(match self {
            Self::Plain(..) => Scheme::HTTP,
            Self::Secure(_) => Scheme::HTTPS,
        });
    }
}

impl Ends for PortStream {
    fn drain_after(&self) -> Option<Duration> {
        match self {
            Self::Plain(..) => None,
            Self::Secure(accepted) => accepted.drain_after(),
        }
    }
}

/// The same call on whichever it is.
macro_rules! on_either {
    ($this:expr, $call:ident $(, $argument:expr)*) => {
        match $this.get_mut() {
            Self::Plain(stream, ..) => Pin::new(stream).$call($($argument),*),
            Self::Secure(stream) => Pin::new(&mut **stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for PortStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, poll_read, context, buffer)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self, poll_write, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, poll_write_vectored, context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream, ..) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, poll_shutdown, context)
    }
}
