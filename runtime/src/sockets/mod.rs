//! The listening sockets of a process: bound by it, or passed on by whoever started it.
//!
//! systemd passes sockets on by the protocol of `sd_listen_fds(3)`, and so does a process that hands over to the next
//! ([`crate::hand_over`]). A listener takes the one that is its own and binds only where there is none. What nobody wants is
//! closed, with a warning.

mod inherited;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::net::{self, BindError};
pub(crate) use inherited::{HAND_OVER, Inheritance, Inherited};

/// The sockets of one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    inherited: Mutex<Vec<Inherited>>,
    bound: Mutex<Vec<Bound>>,
}

/// A socket that is served, for as long as it is.
#[derive(Debug)]
struct Bound {
    name: String,
    bind: SocketAddr,
    socket: Weak<TcpListener>,
}

/// One that can be passed on.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) name: String,
    pub(crate) bind: SocketAddr,
    pub(crate) socket: OwnedFd,
}

impl Sockets {
    pub(crate) fn new(inherited: Vec<Inherited>) -> Self {
        Self(Arc::new(Inner { inherited: Mutex::new(inherited), bound: Mutex::default() }))
    }

    /// The plaintext socket of the listener `name`: inherited, or bound at `addr`. As with [`net::bind_without_tls`], `what` and
    /// `tls` make the error.
    pub fn bind(
        &self,
        name: &str,
        addr: SocketAddr,
        what: &str,
        tls: Option<&str>,
    ) -> Result<Arc<TcpListener>, BindError> {
        self.listen(name, addr, what, |at| net::on_loopback(at, what, tls))
    }

    /// The socket of a listener that speaks TLS, which others may reach.
    pub fn bind_tls(&self, name: &str, addr: SocketAddr, what: &str) -> Result<Arc<TcpListener>, BindError> {
        self.listen(name, addr, what, |_| Ok(()))
    }

    fn listen(
        &self,
        name: &str,
        addr: SocketAddr,
        what: &str,
        admit: impl Fn(SocketAddr) -> Result<(), BindError>,
    ) -> Result<Arc<TcpListener>, BindError> {
        let failed = |source| BindError::System { what: what.to_owned(), addr, source };
        let socket = match inherited::take(&mut self.0.inherited.lock(), name, addr) {
            Some(inherited) => {
                let at = inherited.address;
                admit(at)?;
                let fits = at.ip() == addr.ip() && (at.port() == addr.port() || addr.port() == 0);
                if !fits && inherited.bind.is_none() {
                    tracing::warn!(listener = name, address = %at, configured = %addr, "the inherited socket of this name has another address, and that counts");
                }
                net::adopt(inherited.socket).map_err(failed)?
            }
            None => {
                admit(addr)?;
                net::bind_tls(addr, what)?
            }
        };
        let socket = Arc::new(socket);
        let mut bound = self.0.bound.lock();
        bound.retain(|one| one.socket.strong_count() > 0);
        bound.push(Bound { name: name.to_owned(), bind: addr, socket: Arc::downgrade(&socket) });
        Ok(socket)
    }

    /// Closes what was inherited and nobody wanted.
    pub(crate) fn close_unclaimed(&self) {
        for one in self.0.inherited.lock().drain(..) {
            let name = one.name.as_deref().unwrap_or_default();
            tracing::warn!(name, address = %one.address, "an inherited socket is closed: no listener has its name or its address");
        }
    }

    /// All that are served now.
    pub(crate) fn offers(&self) -> std::io::Result<Vec<Offer>> {
        use std::os::fd::AsFd as _;

        let bound = self.0.bound.lock();
        let served = bound.iter().filter_map(|one| Some((one, one.socket.upgrade()?)));
        served
            .map(|(one, socket)| {
                let socket = socket.as_fd().try_clone_to_owned()?;
                Ok(Offer { name: one.name.clone(), bind: one.bind, socket })
            })
            .collect()
    }
}
