//! What a proxy tells about itself at its process listener, under `/status`: which configuration it serves by, what
//! was wrong with the last one, and how its clusters do.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::pipeline::Proxy;
use crate::route::Hash;

/// Which configuration is served by.
#[derive(Debug, Default)]
pub(crate) struct Loaded(Mutex<State>);

#[derive(Debug, Clone, Default, Serialize)]
struct State {
    /// The same for the same configuration, on every proxy.
    revision: String,
    since_unix_seconds: u64,
    applied: u64,
    refused: u64,
    last_error: Option<String>,
}

impl Loaded {
    /// `config` is served by from now on.
    pub(crate) fn applied(&self, config: &Config, unix_seconds: u64) {
        let mut hash = Hash::new("revision");
        hash.add(serde_json::to_string(config).unwrap_or_default().as_bytes());
        let mut state = self.0.lock();
        state.revision = format!("{:016x}", hash.finish());
        state.since_unix_seconds = unix_seconds;
        state.applied += 1;
        state.last_error = None;
    }

    /// A new configuration could not be used; the old one stays.
    pub(crate) fn refused(&self, error: &str) {
        let mut state = self.0.lock();
        state.refused += 1;
        state.last_error = Some(error.to_owned());
    }
}

/// Shows the proxy's status from now on.
pub(crate) fn publish(proxy: &Arc<Proxy>) {
    let weak = Arc::downgrade(proxy);
    proxy
        .reporter
        .service
        .published()
        .page("status", move || weak.upgrade().map_or(Value::Null, |proxy| status(&proxy)));
}

fn status(proxy: &Proxy) -> Value {
    let snapshot = proxy.snapshot.load();
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let clusters: Vec<_> = clusters.into_iter().map(|cluster| cluster.report()).collect();
    // Routes may share one.
    let mut rollouts: Vec<_> = snapshot.rollouts.values().collect();
    rollouts.sort_by_key(|rollout| Arc::as_ptr(rollout));
    rollouts.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let mut rollouts: Vec<_> = rollouts.into_iter().map(|rollout| rollout.report()).collect();
    rollouts.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
    json!({
        "name": proxy.reporter.service.name(),
        "ready": proxy.reporter.service.readiness().is_ready(),
        "config": proxy.loaded.0.lock().clone(),
        "overload": proxy.overload.report(&snapshot.overload),
        "clusters": clusters,
        "rollouts": rollouts,
        "unregistered": proxy.strangers.list(),
    })
}
