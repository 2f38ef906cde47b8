//! Changing the configuration while requests are under way: parse all, then swap all, or keep the old.
//!
//! Listeners that did not change keep their socket and their connections. A new socket is bound before anything
//! is swapped, so a port that is taken leaves the old configuration whole. Connections count against the limits of the
//! listener that has the name of theirs.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tollgate_runtime::Service;
use tollgate_runtime::config::watch_files;
use tollgate_runtime::supervisor::Reloading;

use crate::config::{Config, ListenerConfig};
use crate::listener::{self, Closing, Listener};
use crate::pipeline::Proxy;
use crate::snapshot::Snapshot;

/// A listener and its socket.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: Arc<Listener>,
    pub(crate) socket: Arc<TcpListener>,
    /// Where the socket is, which need not be what is configured.
    pub(crate) address: SocketAddr,
}

/// The listeners that serve, and the configuration they serve by.
#[derive(Debug)]
pub(crate) struct Listeners {
    proxy: Arc<Proxy>,
    config: Config,
    serving: Vec<Serving>,
}

#[derive(Debug)]
struct Serving {
    /// What holds for connections that are accepted from now on.
    listener: Arc<ArcSwap<Listener>>,
    address: SocketAddr,
    closing: Closing,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.closing.close();
    }
}

impl Listeners {
    /// Serves sockets that are bound already.
    pub(crate) fn start(proxy: Arc<Proxy>, config: Config, bound: Vec<Bound>) -> Self {
        let serving = bound.into_iter().map(|bound| Serving::start(&proxy, bound)).collect();
        Self { proxy, config, serving }
    }

    /// Tells connections to go, those that come from now on too.
    pub(crate) fn leave(&self) {
        for serving in &self.serving {
            serving.closing.leave();
        }
    }

    /// Stops accepting, everywhere; connections finish what they began.
    pub(crate) fn close(&mut self) {
        self.serving.clear();
    }

    /// Serves by `config` from now on, or changes nothing.
    pub(crate) fn apply(&mut self, config: Config) -> anyhow::Result<()> {
        let service = self.proxy.reporter.service.clone();
        let before = self.proxy.snapshot.load_full();
        let after =
            Snapshot::compile(&config, &self.proxy.reporter, self.proxy.identity.as_ref(), Some(&before))?;
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for one in &config.listeners {
            let mut served = self.serving.iter().map(|serving| serving.listener.load_full());
            let before = served.find(|listener| listener.config().name == one.name);
            let build = || {
                Listener::build(one, self.proxy.identity.as_ref(), &service, before.as_deref()).map(Arc::new)
            };
            match self.serving.iter().find(|serving| serving.is_at(one)) {
                None => new.push(bind(&service, build()?)?),
                Some(serving) if serving.listener.load().config() != one => {
                    changed.push((Arc::clone(&serving.listener), build()?));
                }
                Some(_) => {}
            }
        }
        // From here on nothing can fail.
        let fixed = |config: &Config| (config.process.listen, config.name.clone(), config.identity.clone());
        if fixed(&config) != fixed(&self.config) {
            tracing::warn!("changes to `name`, `process`, `telemetry` and `identity` need a restart");
        }
        self.proxy.probes.follow(&config);
        service.published().config(&config);
        self.proxy.loaded.applied(&config, service.clock().unix_seconds());
        before.close_what_is_not_in(Some(&after));
        let after = Arc::new(after);
        self.proxy.snapshot.store(Arc::clone(&after));
        self.serving.retain(|serving| config.listeners.iter().any(|one| serving.is_at(one)));
        for (serving, listener) in changed {
            serving.store(Arc::clone(&listener));
            listener.has_changed();
        }
        self.serving.extend(new.into_iter().map(|bound| Serving::start(&self.proxy, bound)));
        let served = self.serving.iter().map(|serving| (serving.listener.load_full(), serving.address));
        after.loops.capture_at(captures(served));
        after.start();
        self.config = config;
        Ok(())
    }
}

/// Where connections are taken that were redirected.
pub(crate) fn captures(served: impl Iterator<Item = (Arc<Listener>, SocketAddr)>) -> Vec<SocketAddr> {
    served.filter(|(listener, _)| listener.config().transparent).map(|(_, address)| address).collect()
}

impl Serving {
    fn start(proxy: &Arc<Proxy>, bound: Bound) -> Self {
        let listener = Arc::new(ArcSwap::new(bound.listener));
        let closing = Closing::default();
        let accepting =
            listener::serve(Arc::clone(proxy), Arc::clone(&listener), bound.socket, closing.clone());
        let reporter = &proxy.reporter;
        reporter.service.tasks().spawn("listener", reporter.doors.track_future(accepting));
        Self { listener, address: bound.address, closing }
    }

    /// Whether this is the socket that `config` speaks of.
    fn is_at(&self, config: &ListenerConfig) -> bool {
        let serving = self.listener.load();
        serving.config().bind == config.bind && serving.config().name == config.name
    }
}

/// A listener with its socket: one that was passed on to this process, or a new one. Plaintext stays on this machine.
pub(crate) fn bind(service: &Service, listener: Arc<Listener>) -> anyhow::Result<Bound> {
    let config = listener.config();
    let (sockets, what) = (service.sockets(), format!("listener `{}`", config.name));
    let socket = if config.speaks_tls() {
        sockets.bind_tls(&config.name, config.bind, &what)?
    } else {
        sockets.bind(&config.name, config.bind, &what, None)?
    };
    let address = socket.local_addr()?;
    Ok(Bound { listener, socket, address })
}

/// Reads the configuration again whenever its file changes or SIGHUP comes.
pub(crate) fn watch(service: &Service, listeners: &Arc<Mutex<Listeners>>) {
    let Some(source) = service.source().cloned() else { return };
    let listeners = Arc::clone(listeners);
    let files = vec![source.file().to_owned()];
    let read_again = move || {
        let mut listeners = listeners.lock();
        let outcome = source
            .load::<Config>()
            .map_err(anyhow::Error::from)
            .and_then(|loaded| listeners.apply(loaded.config));
        let metrics = &listeners.proxy.reporter.metrics;
        match outcome {
            Ok(()) => {
                metrics.reload("applied");
                tracing::info!(file = %source.file().display(), "configuration reloaded");
            }
            Err(error) => {
                listeners.proxy.loaded.refused(&format!("{error:#}"));
                metrics.reload("refused");
                tracing::error!("configuration not reloaded, the old one stays: {error:#}");
            }
        }
    };
    if service.succession().succeeds() {
        // It may have changed while the process before this one still served.
        read_again();
    }
    watch_files(service, files, move || {
        let _reloading = Reloading::begin();
        read_again();
    });
}
