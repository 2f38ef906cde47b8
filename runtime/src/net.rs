//! Binding sockets, and when a connection ends.
//!
//! A listener without TLS serves loopback only: a plaintext port that the network can reach is
//! refused when it is bound, not discovered later.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long a connection is served that has to end soon: whoever has just come in is heard at least.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// A connection that may have to end at a time that is known already.
pub trait Ends {
    /// When it shall take no more requests, from now; what is under way then may finish.
    fn drain_after(&self) -> Option<Duration> {
        None
    }
}

impl Ends for TcpStream {}

/// Waits until it is time to drain; forever, where no time is known.
pub(crate) async fn due(drain_after: Option<Duration>) {
    match drain_after {
        Some(after) => tokio::time::sleep(after.max(LEAST_LIFE)).await,
        None => pending().await,
    }
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A plaintext listener that others could reach.
    #[error("{what}: {addr} is not a loopback address and this listener has no TLS; bind 127.0.0.1 or ::1{}", or(.tls))]
    PlaintextOffLoopback { what: String, addr: SocketAddr, tls: Option<String> },
    /// The system said no.
    #[error("{what}: cannot listen on {addr}{}", hint(.source))]
    System { what: String, addr: SocketAddr, source: io::Error },
    /// Whoever started this process passed on something else than it should.
    #[error(
        "inherited socket {what} cannot be used: {problem}; expected a TCP socket that listens (`ListenStream=` with an address and a port, without `Accept=yes`)"
    )]
    Inherited { what: String, problem: String },
}

/// The section that gives it TLS, where there is one.
fn or(tls: &Option<String>) -> String {
    tls.as_ref().map(|key| format!(", or write a section `{key}`")).unwrap_or_default()
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has this port: stop it or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them",
        _ => "",
    }
}

/// Binds a plaintext listener; `what` names it in the error.
pub fn bind(addr: SocketAddr, what: &str) -> Result<TcpListener, BindError> {
    bind_plain(addr, what, None)
}

/// As [`bind`], for a listener that would have TLS with a section `tls` in its configuration.
pub fn bind_without_tls(addr: SocketAddr, what: &str, tls: &str) -> Result<TcpListener, BindError> {
    bind_plain(addr, what, Some(tls))
}

fn bind_plain(addr: SocketAddr, what: &str, tls: Option<&str>) -> Result<TcpListener, BindError> {
    on_loopback(addr, what, tls)?;
    bind_tls(addr, what)
}

/// Plaintext stays on this machine, whoever bound the socket.
pub(crate) fn on_loopback(addr: SocketAddr, what: &str, tls: Option<&str>) -> Result<(), BindError> {
    if addr.ip().is_loopback() {
        return Ok(());
    }
    let (what, tls) = (what.to_owned(), tls.map(str::to_owned));
    Err(BindError::PlaintextOffLoopback { what, addr, tls })
}

/// Makes a socket that others have bound one of ours.
pub(crate) fn adopt(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    // Who bound it may have been content with fewer that wait.
    SockRef::from(&socket).listen(BACKLOG)?;
    TcpListener::from_std(socket)
}

/// Binds a listener that speaks TLS, which others may reach.
pub fn bind_tls(addr: SocketAddr, what: &str) -> Result<TcpListener, BindError> {
    listen(addr).map_err(|source| BindError::System { what: what.to_owned(), addr, source })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plaintext_off_loopback_is_refused_with_a_remedy() {
        let error = bind("0.0.0.0:0".parse().unwrap(), "web").unwrap_err().to_string();
        assert!(error.contains("web") && error.ends_with("bind 127.0.0.1 or ::1"), "{error}");
        let error = bind_without_tls("0.0.0.0:0".parse().unwrap(), "web", "web.tls").unwrap_err().to_string();
        assert!(error.ends_with("or ::1, or write a section `web.tls`"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "first").unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind(addr, "second").unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("another process"), "{error}");
    }
}
