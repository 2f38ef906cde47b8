//! A transparent listener: where a connection was going when it was redirected here, and what becomes of it.
//!
//! ```text
//! not redirected, or one of our own come back ----------------------------> refused
//! named by `destinations`, by its address or in its TLS ------------------> its bytes are carried to their cluster
//! out, and not HTTP ------------------------------------------------------> refused, by that name or its address
//! all else is HTTP -------------------------------------------------------> routed by host, as without redirection
//! ```
//!
//! Where a connection was going chooses among what is configured. It is never dialled: a client that says anything it
//! likes there, or in `host`, reaches nothing that nobody has registered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tollgate_identity::tls::HANDSHAKE_RECORD;

use super::announce::Unannounced;
use super::hello::{self, Hello};
use super::{Closing, Connection, connection, refusal, tcp};
use crate::config::{Role, TcpConfig};
use crate::pipeline::Proxy;
use crate::socket::{Socket, canonical};
use crate::upstream::Cluster;

/// After how long it is looked again whether the rest of a TLS client's first message has come.
const MORE_SOON: Duration = Duration::from_millis(10);

/// Where the client of a connection wanted to go, by the system's word. `local` is where it has come to.
pub(super) fn wanted(stream: &TcpStream, local: SocketAddr) -> Result<SocketAddr, Unannounced> {
    let socket = SockRef::from(stream);
    // IPv4 on a socket for both families is IPv4.
    let wanted = match local.ip().to_canonical().is_ipv4() {
        true => socket.original_dst_v4(),
        false => socket.original_dst_v6(),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted.as_socket(),
        // Nobody has translated its addresses, or nobody here can.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => None,
        // ENOPROTOOPT has no kind of its own.
        Err(error) => {
            tracing::debug!(%error, "the system does not say where a connection was going");
            None
        }
    };
    let is_here = |wanted: &SocketAddr| {
        (wanted.ip().to_canonical(), wanted.port()) == (local.ip().to_canonical(), local.port())
    };
    wanted.filter(|wanted| !is_here(wanted)).ok_or(Unannounced::NotRedirected)
}

/// Serves a connection that was redirected.
pub(super) async fn serve(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    socket: Socket,
    closing: &CancellationToken,
) {
    if let Some(tcp) = by_address(proxy, connection) {
        return tcp::serve(proxy, connection, socket, tcp, closing).await;
    }
    if connection.listener.role == Role::Outbound
        && let Socket::Plain(stream) = &socket
    {
        match speaks(proxy, stream, connection, closing).await {
            Speaks::Http => {}
            Speaks::TlsTo(name) => {
                return match by_name(connection, &name) {
                    Some(tcp) => tcp::serve(proxy, connection, socket, tcp, closing).await,
                    None => refusal::stranger(proxy, connection, Some(&name)),
                };
            }
            Speaks::Otherwise | Speaks::Nothing => return refusal::stranger(proxy, connection, None),
            Speaks::Gone => return,
        }
    }
    // One of our own is known as that by its first byte at the latest.
    if has_come_back(proxy, connection) {
        return refusal::own_connection(proxy, connection);
    }
    connection::serve(proxy, connection, socket, closing).await;
}

/// Whether a captured connection is one of our own, come back.
pub(super) fn has_come_back(proxy: &Proxy, connection: &Connection) -> bool {
    let inbound = connection.listener.role == Role::Sidecar;
    let loops = &proxy.snapshot.load().loops;
    connection.listener.config().transparent
        && loops.has_come_back(connection.peer, connection.local, inbound)
}

/// Whether what comes by this connection would come again, if `cluster` had it: it is the cluster's own connection, which the
/// rules have led in.
pub(crate) fn would_go_round(connection: &Connection, cluster: &Cluster) -> bool {
    let is_inbound = connection.listener.config().transparent && connection.listener.role == Role::Sidecar;
    is_inbound && cluster.has_opened(connection.ends())
}

/// Where its bytes go, if that is known by the address that was dialled.
fn by_address<'c>(proxy: &Proxy, connection: &'c Connection) -> Option<&'c TcpConfig> {
    let snapshot = proxy.snapshot.load();
    let wanted = canonical(connection.local);
    let by_cluster =
        |name: &String| snapshot.clusters.get(name).is_some_and(|cluster| cluster.consists_of(wanted));
    let mut destinations = connection.listener.config().destinations.iter();
    let fits = destinations.find(|one| match one.names_addresses() || !one.server_names.is_empty() {
        true => one.names(wanted),
        false => by_cluster(&one.tcp.cluster),
    });
    fits.map(|one| &one.tcp)
}

/// Where its bytes go, if that is known by the server that its TLS asks for.
fn by_name<'c>(connection: &'c Connection, name: &str) -> Option<&'c TcpConfig> {
    let mut destinations = connection.listener.config().destinations.iter();
    destinations.find(|one| one.names_server(name, canonical(connection.local))).map(|one| &one.tcp)
}

/// What a connection begins with.
enum Speaks {
    Http,
    /// TLS that asks for a server of this name.
    TlsTo(String),
    Otherwise,
    /// Its client waits to be spoken to.
    Nothing,
    Gone,
}

/// A method of HTTP begins with a letter; TLS and what most databases speak does not.
async fn speaks(
    proxy: &Proxy,
    stream: &TcpStream,
    connection: &Connection,
    closing: &CancellationToken,
) -> Speaks {
    let limits = &connection.listener.limits;
    let mut first = [0];
    let hearing = tokio::time::timeout(limits.idle_timeout, stream.peek(&mut first));
    let heard = tokio::select! {
        () = Closing::expired(closing, proxy) => return Speaks::Gone,
        heard = hearing => heard,
    };
    match heard {
        Ok(Ok(1)) if first[0].is_ascii_alphabetic() => Speaks::Http,
        Ok(Ok(1)) if first[0] == HANDSHAKE_RECORD => {
            let asking = tokio::time::timeout(limits.head_timeout, asks_for(stream));
            let asked = tokio::select! {
                () = Closing::expired(closing, proxy) => return Speaks::Gone,
                asked = asking => asked,
            };
            asked.ok().flatten().map_or(Speaks::Otherwise, Speaks::TlsTo)
        }
        Ok(Ok(1)) => Speaks::Otherwise,
        Ok(_) => Speaks::Gone,
        Err(_elapsed) => Speaks::Nothing,
    }
}

/// The server that a TLS client asks for. Nothing is taken off the stream: it belongs to the other end.
async fn asks_for(stream: &TcpStream) -> Option<String> {
    let mut bytes = vec![0; hello::LONGEST];
    let mut seen = 0;
    loop {
        let count = stream.peek(&mut bytes).await.ok()?;
        // What was peeked at is there as before, so there is no waiting for more.
        if count == seen {
            tokio::time::sleep(MORE_SOON).await;
            continue;
        }
        seen = count;
        match hello::read(&bytes[..count]) {
            Hello::For(name) => return Some(name),
            Hello::Nobody => return None,
            Hello::More if count == bytes.len() => return None,
            Hello::More => {}
        }
    }
}
