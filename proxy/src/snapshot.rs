//! A configuration, compiled: everything a request looks at, swapped whole.
//!
//! A request takes the snapshot once and keeps it to its end, so that a reload never changes the rules under it.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tollgate_identity::Identity;

use crate::config::{ClusterConfig, Config, Endpoints, PrivateAddresses, Role};
use crate::record::Reporter;
use crate::route::Table;
use crate::stages::authorize::Authorizer;
use crate::stages::caller::Caller;
use crate::stages::rate_limit::Limiter;
use crate::upstream::Cluster;

/// What a request looks at.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) trust_traceparent: bool,
    pub(crate) routes: Table,
    pub(crate) clusters: FxHashMap<String, Arc<Cluster>>,
    pub(crate) authorizer: Option<Arc<Authorizer>>,
    pub(crate) limiter: Option<Arc<Limiter>>,
}

impl Snapshot {
    /// Compiles a checked configuration. What has not changed since `before` is taken over with its connections.
    pub(crate) fn compile(
        config: &Config,
        reporter: &Arc<Reporter>,
        identity: Option<&Identity>,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let routes = Table::compile(&config.routes).map_err(|invalid| {
            anyhow::anyhow!("{}: {}; expected {}", invalid.key, invalid.problem, invalid.remedy)
        })?;
        let is_egress = config.listeners.iter().any(|listener| listener.role == Role::Egress);
        let clusters = config
            .clusters
            .iter()
            .map(|cluster| {
                let config = &guarded(cluster, is_egress);
                let kept = before
                    .and_then(|before| before.clusters.get(&config.name))
                    .filter(|cluster| cluster.config() == config);
                let cluster = match kept {
                    Some(kept) => Arc::clone(kept),
                    None => Cluster::build(config, identity, reporter)?,
                };
                Ok((config.name.clone(), cluster))
            })
            .collect::<anyhow::Result<_>>()?;
        let caller = Caller { identity, clock: reporter.service.clock() };
        let authorizer = match &config.authz {
            None => None,
            Some(config) => {
                let kept = before.and_then(|before| before.authorizer.as_ref());
                match kept.filter(|authorizer| authorizer.config() == config) {
                    Some(authorizer) => Some(Arc::clone(authorizer)),
                    None => Some(Arc::new(Authorizer::new(config, &caller)?)),
                }
            }
        };
        let limiter = match &config.rate_limit {
            None => None,
            Some(config) => {
                let kept = before.and_then(|before| before.limiter.as_ref());
                match kept.filter(|limiter| limiter.config() == config) {
                    Some(limiter) => Some(Arc::clone(limiter)),
                    None => Some(Arc::new(Limiter::new(config, &caller)?)),
                }
            }
        };
        let trust_traceparent = config.edge.trust_traceparent;
        Ok(Self { trust_traceparent, routes, clusters, authorizer, limiter })
    }

    /// Looks after its clusters from now on; those taken over are looked after already.
    pub(crate) fn start(&self) {
        for cluster in self.clusters.values() {
            cluster.start();
        }
    }

    /// Closes the unused connections of clusters that `after` does not have.
    pub(crate) fn close_what_is_not_in(&self, after: Option<&Self>) {
        for (name, cluster) in &self.clusters {
            let kept = after.and_then(|after| after.clusters.get(name));
            if !kept.is_some_and(|kept| Arc::ptr_eq(kept, cluster)) {
                cluster.close();
            }
        }
    }
}

/// On the way out a name must not lead inside, unless the configuration says that it may.
fn guarded(cluster: &ClusterConfig, is_egress: bool) -> ClusterConfig {
    let mut cluster = cluster.clone();
    if let Endpoints::Dns(dns) = &mut cluster.endpoints
        && is_egress
    {
        dns.private_addresses.get_or_insert(PrivateAddresses::Refuse);
    }
    cluster
}
