//! A set of endpoints that answer alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tollgate_runtime::tasks::Tasks;

use super::balance;
use super::pool::Pool;
use crate::config::{ClusterConfig, Protocol};

/// One cluster, running.
#[derive(Debug)]
pub(crate) struct Cluster {
    config: ClusterConfig,
    pub(crate) name: Arc<str>,
    pub(crate) version: Option<Arc<str>>,
    endpoints: Vec<Arc<Endpoint>>,
    turn: AtomicUsize,
}

/// One address and the connections to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) pool: Pool,
    in_flight: AtomicUsize,
}

/// An endpoint that was picked for a request, counted as busy until this is dropped.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(super) endpoint: Arc<Endpoint>,
}

impl Cluster {
    pub(crate) fn new(config: &ClusterConfig, tasks: &Tasks) -> Self {
        let endpoints = config
            .endpoints
            .fixed
            .iter()
            .map(|address| {
                let pool = Pool::new(*address, config, tasks.clone());
                Arc::new(Endpoint { address: *address, pool, in_flight: AtomicUsize::new(0) })
            })
            .collect();
        let name = config.name.as_str().into();
        let version = config.version.as_deref().map(Arc::from);
        Self { config: config.clone(), name, version, endpoints, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    /// An endpoint for the next request.
    pub(crate) fn pick(&self) -> Option<Picked> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let draw = if self.endpoints.len() > 1 { rand::random() } else { 0 };
        let load = |index: usize| self.endpoints[index].in_flight.load(Ordering::Relaxed);
        let index = balance::pick(self.config.balance, self.endpoints.len(), turn, draw, load)?;
        let endpoint = Arc::clone(&self.endpoints[index]);
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Picked { endpoint })
    }

    /// Closes the connections that nobody uses; those in use close with their request.
    pub(crate) fn close(&self) {
        for endpoint in &self.endpoints {
            endpoint.pool.close();
        }
    }
}

impl Picked {
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
