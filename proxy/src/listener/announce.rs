//! Whose connection it is and where it was going, where a load balancer says so before the first byte (see
//! [`crate::proxy_protocol`]) or the system does (see [`super::capture`]).
//!
//! ```text
//! from `proxy_protocol.from`   header --> served as who it names       none, broken, slow: closed
//! from anybody else            served as who connects; a header is no HTTP and no TLS, and refused as that
//! ```

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{Listener, capture};
use crate::proxy_protocol::{Ends, LONGEST, Problem, Read, Said, read};

/// Why a connection has no beginning.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unannounced {
    #[error("{0}")]
    Header(#[from] Problem),
    #[error("no PROXY header in time")]
    Slow,
    #[error("closed before the end of a PROXY header")]
    Closed,
    #[error("the connection was not redirected to this listener")]
    NotRedirected,
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

/// Both ends of a connection, as its client sees them.
pub(super) async fn ends(
    listener: &Listener,
    stream: &mut TcpStream,
    (peer, local): (SocketAddr, SocketAddr),
) -> Result<(SocketAddr, SocketAddr), Unannounced> {
    if listener.config.transparent {
        return Ok((peer, capture::wanted(stream, local)?));
    }
    let Some(announced) = &listener.config.proxy_protocol else { return Ok((peer, local)) };
    if !announced.from.iter().any(|network| network.contains(peer.ip())) {
        return Ok((peer, local));
    }
    match tokio::time::timeout(listener.limits.head_timeout, hear(stream)).await {
        Ok(said) => Ok(match said? {
            Said::For(Ends { source, destination }) => (source, destination),
            Said::Itself => (peer, local),
        }),
        Err(_elapsed) => Err(Unannounced::Slow),
    }
}

/// Takes the header off the stream, and not a byte of what follows.
async fn hear(stream: &mut TcpStream) -> Result<Said, Unannounced> {
    let mut head = Vec::with_capacity(64);
    let mut next = vec![0; LONGEST];
    loop {
        let count = stream.peek(&mut next).await?;
        if count == 0 {
            return Err(Unannounced::Closed);
        }
        let known = head.len();
        head.extend_from_slice(&next[..count]);
        let found = read(&head)?;
        let end = match found {
            Read::More => head.len(),
            Read::Header(_, length) => length,
        };
        stream.read_exact(&mut next[..end - known]).await?;
        if let Read::Header(said, _) = found {
            return Ok(said);
        }
    }
}
