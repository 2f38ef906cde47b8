//! Sockets and connections: who may be here, for how long, and what is read from them.
//!
//! * this file: what a listener and a connection are;
//! * [`accept`]: from the socket's queue to a connection that is served, or [`refusal`];
//! * [`announce`]: whose connection it is, where a load balancer says so;
//! * [`capture`]: what was redirected here on its way to somebody else; [`hello`]: which server its TLS asks for;
//! * [`connection`]: one connection from its first byte to its last;
//! * [`room`]: how many of them at once;
//! * [`clock`]: when a connection has waited long enough;
//! * [`io`]: the socket, watched;
//! * [`handshakes`]: how many TLS handshakes at once, and when their steps are done;
//! * [`secure`]: TLS, and what it tells about the other end;
//! * [`framing`]: where messages begin and end, read strictly;
//! * [`tcp`]: a connection of bytes that are nobody's business here;
//! * [`switch`]: a connection that went over from HTTP to another protocol;
//! * [`websocket`]: the last word of such a connection, if it speaks that;
//! * [`carry`]: bytes both ways, of these two; [`flow`]: what has moved.

mod accept;
mod announce;
mod capture;
mod carry;
mod clock;
mod connection;
mod flow;
mod framing;
mod handshakes;
mod hello;
mod io;
mod refusal;
mod room;
pub(crate) mod secure;
pub(crate) mod switch;
mod tcp;
mod waiting;
mod websocket;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tollgate_identity::{Identity, SpiffeId};
use tollgate_paths::Level;
use tollgate_runtime::Service;
use tollgate_runtime::tasks::Tasks;

use crate::config::{LimitsConfig, ListenerConfig, Role, Workload};
use crate::pipeline::Proxy;
use crate::proxy_protocol::Ends;
use crate::route::PeerNames;
use crate::stages::address_limit::{AddressLimit, Addresses};
use crate::stages::connection_limit::ConnectionLimit;
use crate::stages::local_limit::LocalLimit;

pub(crate) use accept::serve;
pub(crate) use capture::would_go_round;
pub(crate) use clock::ConnectionClock;
pub(crate) use flow::Flow;
pub(crate) use handshakes::HandshakeTurns;
use room::Room;
use secure::{PeerCertificate, Secure, Secured};
use switch::Switch;

/// What holds for every connection of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    config: ListenerConfig,
    pub(crate) role: Role,
    pub(crate) level: Level,
    pub(crate) limits: LimitsConfig,
    pub(crate) address_limit: Option<Arc<AddressLimit>>,
    pub(crate) local_limits: Arc<[LocalLimit]>,
    connection_limit: Option<ConnectionLimit>,
    pub(crate) source: Option<Workload>,
    /// TLS, where it speaks that.
    secure: Option<Secure>,
    open: Arc<Open>,
}

/// The connections of a listener of this name that are open, whatever it was configured with when they came.
#[derive(Debug, Default)]
struct Open {
    all: Arc<Room>,
    /// By their address.
    addresses: Arc<Addresses>,
    /// Those that have gone over to another protocol, or may do so yet.
    upgraded: Arc<Room>,
}

impl Listener {
    /// Reads the files that it shows and believes. Whoever came to the one `before` of its name counts here too.
    pub(crate) fn build(
        config: &ListenerConfig,
        identity: Option<&Identity>,
        service: &Service,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let address_limit = match before {
            Some(before) if before.config.requests_per_address() == config.requests_per_address() => {
                before.address_limit.clone()
            }
            _ => config.requests_per_address().map(|per_second| Arc::new(AddressLimit::new(per_second))),
        };
        let local_limits = match before {
            Some(before) if before.config.local_limits == config.local_limits => {
                Arc::clone(&before.local_limits)
            }
            // Checked with the rest of the configuration.
            _ => LocalLimit::compile_all(&config.local_limits, "local_limits").unwrap_or_default().into(),
        };
        let secure = Secure::build(config, identity, service)
            .with_context(|| format!("listener `{}`", config.name))?;
        Ok(Self {
            secure,
            role: config.role,
            level: config.normalize.into(),
            limits: config.limits.clone(),
            address_limit,
            local_limits,
            connection_limit: config.connection_limit.as_ref().map(ConnectionLimit::compile),
            source: config.source.clone(),
            open: before.map(|before| Arc::clone(&before.open)).unwrap_or_default(),
            config: config.clone(),
        })
    }

    pub(crate) fn config(&self) -> &ListenerConfig {
        &self.config
    }

    /// Whoever waits for room may come in, if there is more of it from now on.
    pub(crate) fn has_changed(&self) {
        self.open.all.has_changed();
    }

    /// `tollgate.reporter`
    pub(crate) fn reporter(&self) -> &'static str {
        match self.role {
            Role::Ingress | Role::Egress => "gateway",
            Role::Sidecar => "destination",
            Role::Outbound => "source",
        }
    }

    /// `tollgate.direction`
    pub(crate) fn direction(&self) -> &'static str {
        match self.role {
            Role::Ingress => "ingress",
            Role::Sidecar | Role::Outbound => "mesh",
            Role::Egress => "egress",
        }
    }

    /// `tollgate.point`, as authorization is told it.
    pub(crate) fn point(&self) -> &'static str {
        match self.role {
            Role::Ingress => "ingress",
            Role::Sidecar => "sidecar-in",
            Role::Outbound => "sidecar-out",
            Role::Egress => "egress",
        }
    }
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) listener: Arc<Listener>,
    pub(crate) clock: ConnectionClock,
    /// What its handshake has settled; none in plaintext.
    pub(crate) secured: Option<Box<Secured>>,
    /// The peer's certificate is about to end: what is asked now is the last.
    ending: AtomicBool,
    /// It has had as many requests as it may have.
    spent: Notify,
    /// What it goes over to once its last answer is out.
    switch: Mutex<Option<Box<Switch>>>,
}

impl Connection {
    fn new(
        (peer, local): (SocketAddr, SocketAddr),
        listener: Arc<Listener>,
        secured: Option<Box<Secured>>,
    ) -> Self {
        let clock = ConnectionClock::new(&listener.limits);
        Self {
            peer,
            local,
            listener,
            clock,
            secured,
            ending: AtomicBool::new(false),
            switch: Mutex::new(None),
            spent: Notify::new(),
        }
    }

    /// Its ends, as the client sees them.
    pub(crate) fn ends(&self) -> Ends {
        Ends { source: self.peer, destination: self.local }
    }

    /// Who `client` is in the place of this connection's other end; nobody knows the port of somebody further away.
    pub(crate) fn source(&self, client: IpAddr) -> SocketAddr {
        let is_peer = client == self.peer.ip().to_canonical();
        SocketAddr::new(client, if is_peer { self.peer.port() } else { 0 })
    }

    /// The certificate at the other end.
    pub(crate) fn certificate(&self) -> Option<&PeerCertificate> {
        self.secured.as_ref()?.peer.as_ref()
    }

    /// The SPIFFE id at the other end, from its certificate.
    pub(crate) fn peer_id(&self) -> Option<&SpiffeId> {
        self.certificate()?.id.as_ref()
    }

    /// What the other end is called.
    pub(crate) fn peer_name(&self) -> Option<&str> {
        self.certificate()?.name()
    }

    /// What routes and descriptors know it by.
    pub(crate) fn peer_names(&self) -> PeerNames<'_> {
        let others = self.certificate().map_or(&[][..], |certificate| &certificate.other_ids);
        PeerNames { name: self.peer_name(), others }
    }

    /// `http` or `https`
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// `tollgate.connection_security_policy`
    pub(crate) fn security_policy(&self) -> &'static str {
        match &self.secured {
            None => "none",
            Some(secured) if secured.peer.is_none() => "tls",
            Some(_) => "mutual_tls",
        }
    }

    /// Its answer is that it goes over to another protocol. Until the client has taken that, it is waited for like any other.
    pub(crate) fn goes_over(&self, switch: Box<Switch>) {
        self.clock.holds();
        *self.switch.lock() = Some(switch);
    }

    /// Whether its last answer is that it goes over to another protocol.
    fn has_switch(&self) -> bool {
        self.switch.lock().is_some()
    }

    /// What it goes over to, if it does and nobody has taken that yet.
    fn takes_switch(&self) -> Option<Box<Switch>> {
        let switch = self.switch.lock().take();
        if switch.is_some() {
            self.clock.let_go();
        }
        switch
    }

    /// Whether the client should go elsewhere with its next request.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// One more request came; after the last that may come nothing is taken any more.
    pub(crate) fn count(&self) {
        if self.clock.requests() >= self.listener.limits.requests_per_connection {
            self.ending.store(true, Ordering::Relaxed);
            self.spent.notify_one();
        }
    }
}

/// How a listener ends: its connections are told to go, and it accepts no more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closing {
    leaving: CancellationToken,
    closed: CancellationToken,
}

impl Closing {
    /// Connections go, once they have finished what they began; those that come are served, and told the same.
    pub(crate) fn leave(&self) {
        self.leaving.cancel();
    }

    /// As [`Self::leave`], and nobody comes any more.
    pub(crate) fn close(&self) {
        self.leave();
        self.closed.cancel();
    }

    /// Returns when a connection that is not yet served has had its time to be.
    async fn expired(leaving: &CancellationToken, proxy: &Proxy) {
        leaving.cancelled().await;
        tokio::time::sleep(proxy.reporter.service.linger()).await;
    }
}

/// Starts hyper's tasks as ours, so that they have an owner.
#[derive(Debug, Clone)]
pub(crate) struct TaskExecutor {
    tasks: Tasks,
    name: &'static str,
}

impl TaskExecutor {
    pub(crate) fn new(tasks: Tasks, name: &'static str) -> Self {
        Self { tasks, name }
    }
}

impl<F> hyper::rt::Executor<F> for TaskExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn(self.name, future);
    }
}
