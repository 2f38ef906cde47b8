//! A connection of bytes, from the question whether it may be to its last byte.
//!
//! ```text
//! TLS --> authorize --> endpoint of the cluster --> bytes both ways --> record
//!              \-- may not ----------\-- none answers ---> closed ------^
//! ```
//!
//! It ends when both sides have, when nothing has moved for `limits.idle_timeout`, after `tcp.max_duration`, and at the
//! end of a certificate at either end of either connection. There is no way to ask it to go: a proxy that stops waits
//! until it is quiet.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::capture::{has_come_back, would_go_round};
use super::carry::{Ended, carry};
use super::flow::Side;
use super::{Connection, refusal};
use crate::config::TcpConfig;
use crate::error::ProxyError;
use crate::pipeline::Proxy;
use crate::record::Passage;
use crate::socket::Socket;
use crate::stages::judge::authorize_connection;

/// Carries one connection until it ends.
pub(super) async fn serve(
    proxy: &Arc<Proxy>,
    connection: &Arc<Connection>,
    socket: Socket,
    tcp: &TcpConfig,
    closing: &CancellationToken,
) {
    if has_come_back(proxy, connection) {
        return refusal::own_connection(proxy, connection);
    }
    let mut passage = Passage::begin(&proxy.reporter, connection, tcp);
    if let Err(error) = pass(proxy, connection, socket, tcp, closing, &mut passage).await {
        passage.refused(&error);
    }
}

async fn pass(
    proxy: &Proxy,
    connection: &Connection,
    client: Socket,
    tcp: &TcpConfig,
    closing: &CancellationToken,
    passage: &mut Passage,
) -> Result<(), ProxyError> {
    let opened = Instant::now();
    let snapshot = proxy.snapshot.load_full();
    authorize_connection(proxy, &snapshot, connection, tcp, &mut passage.authz).await?;
    let cluster = snapshot
        .clusters
        .get(&tcp.cluster)
        .ok_or(ProxyError::Internal("the cluster of a listener is there"))?;
    passage.version.clone_from(&cluster.version);
    if would_go_round(connection, cluster) {
        return Err(ProxyError::Loop(connection.local));
    }
    let wanted = connection.local.port();
    let mut through = cluster.through(&mut passage.address, Some(connection.ends()), wanted).await?;
    if has_come_back(proxy, connection) {
        // It had not been ours yet when it came.
        return Err(ProxyError::Loop(connection.local));
    }
    let lifetime = connection.certificate().map(|certificate| opened + certificate.lifetime.cut);
    let ends = [
        (lifetime, Ended::Certificate("the peer's certificate has ended")),
        (through.cut, Ended::Certificate("a certificate towards the upstream has ended")),
        (tcp.max_duration.map(|most| opened + most), Ended::TooLong),
    ];
    let flow = Arc::clone(&passage.flow);
    let upstream = &mut through.stream;
    let ended = carry(client, upstream, &flow, ends, connection.listener.limits.idle_timeout, closing).await;
    if matches!(ended, Ended::Broken(Side::Upstream, _)) {
        through.broke_off();
    }
    let (reason, flags, details) = ended.said();
    passage.ended(reason, flags, details);
    Ok(())
}
