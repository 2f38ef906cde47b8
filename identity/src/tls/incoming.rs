//! Connections as they come in, after their handshake: what a gRPC server serves.
//!
//! ```text
//! accept ──> handshake (bounded in number and time) ──> Accepted { who } ──> server
//!                └── refused: a line in the log, nothing for the server
//! ```
//!
//! A slow or hostile handshake holds one of a bounded number of places and no more. A connection is cut at the end of
//! its peer's certificate, whatever it is doing: by then the peer has had half a life to renew.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tonic::transport::server::Connected;

use crate::certificate::Leaf;

/// Handshakes at once.
const MAX_HANDSHAKES: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are ready and not yet taken by the server.
const MAX_WAITING: usize = 64;
/// How long to wait when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

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
    /// The end of the peer's certificate.
    end: Option<Pin<Box<Sleep>>>,
}

/// Accepts connections on `listener` until the service stops.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    service: &Service,
) -> ReceiverStream<io::Result<Accepted>> {
    let (ready, taken) = mpsc::channel(MAX_WAITING);
    let (tasks, clock) = (service.tasks().clone(), service.clock().clone());
    let acceptor = TlsAcceptor::from(config);
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    service.tasks().spawn_essential("tls-accept", async move {
        let stopping = tasks.stopping();
        loop {
            let place = tokio::select! {
                () = stopping.cancelled() => return,
                place = Arc::clone(&places).acquire_owned() => place.expect("nobody closes it"),
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
            let (acceptor, ready, clock) = (acceptor.clone(), ready.clone(), clock.clone());
            tasks.spawn("tls-handshake", async move {
                let shaken =
                    tokio::time::timeout(HANDSHAKE_TIMEOUT, shake(&acceptor, stream, address, &clock));
                let shaken = shaken.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                drop(place);
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

async fn shake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    clock: &Clock,
) -> io::Result<Accepted> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let leaf = super::peer(stream.get_ref().1).map_err(io::Error::other)?;
    let end = leaf.as_ref().map(|leaf| {
        let left = leaf.not_after.saturating_sub(clock.unix_seconds().cast_signed());
        Box::pin(tokio::time::sleep(Duration::from_secs(left.max(0).unsigned_abs())))
    });
    Ok(Accepted { stream, peer: Peer { address, leaf: leaf.map(Arc::new) }, end })
}

impl Accepted {
    fn ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let ended = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if ended {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's certificate has ended"));
        }
        Ok(())
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
