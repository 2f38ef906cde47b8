//! What is told to whom is not served, and what is recorded of them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tollgate_proto::Reason;

use super::Connection;
use super::announce::Unannounced;
use super::framing::Violation;
use super::io::WatchedStream;
use crate::pipeline::Proxy;
use crate::record::connection_failed;
use crate::socket::{Socket, canonical};

/// How long the last words to a client may take.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
    content-length: 31\r\nconnection: close\r\n\r\n{\"reason\":\"request_malformed\"}\n";

const MTLS_REQUIRED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
    content-length: 27\r\nconnection: close\r\n\r\n{\"reason\":\"mtls_required\"}\n";

const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
    content-length: 29\r\nconnection: close\r\n\r\n{\"reason\":\"request_timeout\"}\n";

/// A message that begins or ends where it should not. What follows it is not read.
pub(super) async fn malformed(
    proxy: &Proxy,
    connection: &Connection,
    mut io: WatchedStream,
    violation: Violation,
) {
    let details = violation.to_string();
    connection_failed(
        &proxy.reporter,
        connection,
        StatusCode::BAD_REQUEST,
        Reason::RequestMalformed,
        &details,
    );
    last_words(&mut io, BAD_REQUEST).await;
}

/// Somebody speaks plaintext where only TLS is spoken. What they say is not read.
pub(super) async fn plaintext(proxy: &Proxy, connection: &Arc<Connection>, socket: Socket) {
    let name = &connection.listener.config().name;
    tracing::warn!(listener = name, peer = %connection.peer, "plaintext refused: this listener speaks TLS only");
    let details = "plaintext on a port that speaks TLS only";
    let status = StatusCode::BAD_REQUEST;
    connection_failed(&proxy.reporter, connection, status, Reason::MtlsRequired, details);
    // Who speaks of something else than HTTP would not understand.
    if connection.listener.config().tcp.is_none() {
        last_words(&mut WatchedStream::new(socket, Arc::clone(connection)), MTLS_REQUIRED).await;
    }
}

/// Who must say whose connection it is did not, or it came to a transparent listener by itself. There is nobody to answer to.
pub(super) fn unannounced(proxy: &Proxy, connection: &Connection, error: &Unannounced) {
    let (status, reason) = match error {
        Unannounced::Slow => (StatusCode::REQUEST_TIMEOUT, Reason::RequestTimeout),
        Unannounced::NotRedirected => (StatusCode::FORBIDDEN, Reason::NotRedirected),
        _ => (StatusCode::BAD_REQUEST, Reason::RequestMalformed),
    };
    connection_failed(&proxy.reporter, connection, status, reason, &error.to_string());
}

/// Its address has as many connections as it may have. An answer would cost more than the refusal.
pub(super) fn crowd(proxy: &Proxy, connection: &Connection) {
    let details = "too many connections of one address";
    let status = StatusCode::TOO_MANY_REQUESTS;
    connection_failed(&proxy.reporter, connection, status, Reason::LimitAddress, details);
}

/// All descriptors are taken but those that are kept for what must go on.
pub(super) fn without_descriptor(proxy: &Proxy, connection: &Connection) {
    let (status, details) = (StatusCode::SERVICE_UNAVAILABLE, "no file descriptor is left for it");
    connection_failed(&proxy.reporter, connection, status, Reason::Overloaded, details);
}

/// Why there is no time for a handshake when there is none for requests either.
pub(super) const OVERLOADED: &str = "more to do than this proxy can";

/// There is no time for its handshake.
pub(super) fn handshake(proxy: &Proxy, connection: &Connection, details: &str) {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    connection_failed(&proxy.reporter, connection, status, Reason::Overloaded, details);
}

/// Its head was not complete in time.
pub(super) async fn slow_head(proxy: &Proxy, connection: &Connection, mut io: WatchedStream) {
    let details = "the head was not complete in time";
    connection_failed(
        &proxy.reporter,
        connection,
        StatusCode::REQUEST_TIMEOUT,
        Reason::RequestTimeout,
        details,
    );
    last_words(&mut io, REQUEST_TIMEOUT).await;
}

/// Says why, closes, and hears out what is still on its way: closing on unread bytes would reset the connection
/// and lose the answer.
pub(super) async fn last_words(io: &mut WatchedStream, words: &[u8]) {
    let speaking = async {
        io.write_all(words).await?;
        io.shutdown().await?;
        io.discard().await
    };
    let _ = tokio::time::timeout(LAST_WORDS, speaking).await;
}

/// Nobody has registered where it was going, which is all that is known of it.
pub(super) fn stranger(proxy: &Proxy, connection: &Connection, name: Option<&str>) {
    let wanted = canonical(connection.local).to_string();
    let label = proxy.strangers.note(name.unwrap_or(&wanted), &connection.listener.config().name);
    proxy.reporter.metrics.unregistered(label);
    let details = match name {
        Some(name) => format!("no destination names `{name}`, which TLS at {wanted} asks for"),
        None => format!("no destination names `{wanted}`, and it is not HTTP"),
    };
    connection_failed(
        &proxy.reporter,
        connection,
        StatusCode::FORBIDDEN,
        Reason::EgressUnregistered,
        &details,
    );
}

/// One of our own connections has come back: the redirect rules do not leave us out.
pub(super) fn own_connection(proxy: &Proxy, connection: &Connection) {
    let (name, wanted) = (&connection.listener.config().name, connection.local);
    let details = format!("the proxy's own connection to {wanted} was redirected to it");
    tracing::error!(listener = name, "{details}: `init-iptables --proxy-uid` must be the proxy's user");
    let status = StatusCode::LOOP_DETECTED;
    connection_failed(&proxy.reporter, connection, status, Reason::LoopDetected, &details);
}
