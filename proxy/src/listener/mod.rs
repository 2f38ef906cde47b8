//! Sockets and connections: who may be here, for how long, and what is read from them.
//!
//! * this file: accepting, up to a number of connections;
//! * [`connection`]: one connection from its first byte to its last;
//! * [`clock`]: when a connection has waited long enough;
//! * [`io`]: the socket, watched;
//! * [`framing`]: where messages begin and end, read strictly.

mod clock;
mod connection;
mod framing;
mod io;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tollgate_paths::Level;
use tollgate_runtime::tasks::Tasks;

use crate::config::{LimitsConfig, ListenerConfig, Role, Workload};
use crate::pipeline::Proxy;
use crate::stages::address_limit::AddressLimit;

pub(crate) use clock::ConnectionClock;

/// How long accepting rests when the system is out of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(20);

/// What holds for every connection of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    config: ListenerConfig,
    pub(crate) role: Role,
    pub(crate) level: Level,
    pub(crate) limits: LimitsConfig,
    pub(crate) address_limit: Option<AddressLimit>,
    pub(crate) source: Option<Workload>,
    /// Connections that may still come.
    room: Arc<Semaphore>,
}

impl Listener {
    pub(crate) fn new(config: &ListenerConfig) -> Self {
        Self {
            role: config.role,
            level: config.normalize.into(),
            limits: config.limits.clone(),
            address_limit: config.requests_per_address().map(AddressLimit::new),
            source: config.source.clone(),
            room: Arc::new(Semaphore::new(config.limits.max_connections)),
            config: config.clone(),
        }
    }

    pub(crate) fn config(&self) -> &ListenerConfig {
        &self.config
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
}

impl Connection {
    /// The SPIFFE id at the other end: nobody has shown one, until listeners have TLS.
    pub(crate) fn peer_id(&self) -> Option<&str> {
        None
    }
}

/// Accepts until told to stop. The socket closes with it; connections end by themselves.
///
/// Each connection keeps the settings it was accepted under.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    settings: Arc<ArcSwap<Listener>>,
    socket: TcpListener,
    closing: CancellationToken,
) {
    let tasks = proxy.reporter.service.tasks().clone();
    loop {
        let listener = settings.load_full();
        let permit = tokio::select! {
            () = closing.cancelled() => return,
            permit = Arc::clone(&listener.room).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, listener = listener.config.name, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else { continue };
        let _ = stream.set_nodelay(true);
        // The settings may have changed while nobody came.
        let listener = settings.load_full();
        let clock = ConnectionClock::new(listener.limits.head_timeout, listener.limits.idle_timeout);
        let connection = Arc::new(Connection { peer, local, listener, clock });
        // A token of its own: connections that share one would share its lock at every poll.
        let (proxy, closing) = (Arc::clone(&proxy), closing.child_token());
        tasks.spawn("connection", async move {
            let _permit = permit;
            proxy.reporter.metrics.connection(1);
            connection::serve(&proxy, &connection, stream, &closing).await;
            proxy.reporter.metrics.connection(-1);
        });
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
