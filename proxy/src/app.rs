//! The wiring: sockets, the shared state of requests, reload, drain.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tollgate_runtime::Service;

use crate::config::Config;
use crate::listener::{HandshakeTurns, Listener};
use crate::overload::{self, Overload};
use crate::pipeline::Proxy;
use crate::probe::Probes;
use crate::record::Reporter;
use crate::reload::{Bound, Listeners, bind, captures};
use crate::snapshot::Snapshot;
use crate::stages::registry::Strangers;
use crate::status::{self, Loaded};

/// Where a built proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Each listener's name and address, in the order of the configuration.
    pub listeners: Vec<(String, SocketAddr)>,
}

impl Addresses {
    /// The address of a listener by its name.
    pub fn of(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(other, _)| other == name).map(|(_, address)| *address)
    }
}

/// A proxy whose sockets are bound.
#[derive(Debug)]
pub struct App {
    service: Service,
    proxy: Arc<Proxy>,
    config: Config,
    bound: Vec<Bound>,
    addresses: Addresses,
}

impl App {
    /// Binds the listeners and compiles the configuration; serves nothing yet.
    pub async fn build(config: Config, service: Service) -> anyhow::Result<Self> {
        tollgate_identity::report_outside(&service).context("telemetry.ca_file")?;
        let reporter = Arc::new(Reporter::new(service.clone()));
        let identity = match &config.identity {
            Some(identity) => Some(identity.follow(&service).await.context("no identity")?),
            None => None,
        };
        let snapshot = Snapshot::compile(&config, &reporter, identity.as_ref(), None)?;
        let mut bound = Vec::with_capacity(config.listeners.len());
        let mut addresses = Vec::with_capacity(config.listeners.len());
        for one in &config.listeners {
            let listener = Arc::new(Listener::build(one, identity.as_ref(), &service, None)?);
            let one = bind(&service, listener)?;
            addresses.push((one.listener.config().name.clone(), one.address));
            bound.push(one);
        }
        let served = bound.iter().map(|one| (Arc::clone(&one.listener), one.address));
        snapshot.loops.capture_at(captures(served));
        let probes = Probes::new(service.clone());
        probes.follow(&config);
        let threads = Handle::current().metrics().num_workers();
        let proxy = Arc::new(Proxy {
            snapshot: ArcSwap::from_pointee(snapshot),
            identity,
            reporter,
            probes,
            loaded: Loaded::default(),
            strangers: Strangers::default(),
            overload: Overload::new(threads),
            handshake_turns: HandshakeTurns::new(threads),
        });
        proxy.loaded.applied(&config, service.clock().unix_seconds());
        status::publish(&proxy);
        Ok(Self { service, proxy, config, bound, addresses: Addresses { listeners: addresses } })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}

impl tollgate_runtime::App for App {
    const HANDS_OVER: bool = true;

    async fn run(self) -> anyhow::Result<()> {
        let Self { service, proxy, config, bound, addresses } = self;
        let tasks = service.tasks();
        let (leaving, stopping) = (tasks.leaving(), tasks.stopping());
        proxy.snapshot.load().start();
        let probing = Arc::clone(&proxy);
        tasks.spawn("probes", async move { probing.probes.run().await });
        let watched = Arc::clone(&proxy);
        tasks.spawn_essential("overload", async move {
            let stopping = watched.reporter.service.tasks().stopping();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = overload::watch(Arc::clone(&watched)) => {}
            }
        });
        tokio::select! {
            () = service.succession().turn(&service) => {}
            () = stopping.cancelled() => return Ok(()),
        }
        let listeners = Listeners::start(Arc::clone(&proxy), config, bound);
        for (name, address) in &addresses.listeners {
            tracing::info!(listener = name, %address, "listening");
        }
        // Reading a large configuration again may take longer than the process before this one waits.
        service.succession().serves().await;
        let listeners = Arc::new(parking_lot::Mutex::new(listeners));
        crate::reload::watch(&service, &listeners);
        leaving.cancelled().await;
        // Whoever comes is served, and told that others go on.
        listeners.lock().leave();
        stopping.cancelled().await;
        // Sockets close now; connections finish what they began, and each keeps its snapshot.
        listeners.lock().close();
        proxy.snapshot.load().close_what_is_not_in(None);
        Ok(())
    }
}
