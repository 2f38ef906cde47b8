//! A configuration, compiled: everything a request looks at, swapped whole.
//!
//! A request takes the snapshot once and keeps it to its end, so that a reload never changes the rules under it.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tollgate_identity::Identity;

use crate::config::{
    self, ClusterConfig, Config, Endpoints, OverloadConfig, PrivateAddresses, Role, Trusted,
};
use crate::record::Reporter;
use crate::rollout::{self, Rollouts};
use crate::route::Table;
use crate::route::descriptor::Descriptor;
use crate::stages::authorize::Authorizer;
use crate::stages::caller::Caller;
use crate::stages::local_limit::LocalLimit;
use crate::stages::quota::Quota;
use crate::stages::rate_limit::Limiter;
use crate::upstream::{Cluster, Loops};

/// What a request looks at.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) trust_traceparent: bool,
    pub(crate) trusted: Trusted,
    pub(crate) overload: OverloadConfig,
    /// Paths at which it is asked whether this proxy is ready; they are cheap, and never refused for an overload.
    pub(crate) ready_paths: Vec<String>,
    pub(crate) routes: Table,
    pub(crate) clusters: FxHashMap<String, Arc<Cluster>>,
    pub(crate) authorizer: Option<Arc<Authorizer>>,
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// Shares of divided limits, where a route has some.
    pub(crate) quota: Option<Arc<Quota>>,
    /// Limits of this proxy's own, by the routes that have some.
    pub(crate) local_limits: FxHashMap<String, Arc<RouteLimits>>,
    /// Canaries that move by themselves, by the routes that have one.
    pub(crate) rollouts: Rollouts,
    /// Our own connections: the same under every configuration.
    pub(crate) loops: Arc<Loops>,
}

/// What one route may take; its buckets outlive a reload that does not change it.
#[derive(Debug)]
pub(crate) struct RouteLimits {
    config: Vec<config::LocalLimit>,
    limits: Vec<LocalLimit>,
}

impl RouteLimits {
    pub(crate) fn limits(&self) -> &[LocalLimit] {
        &self.limits
    }
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
        let loops = before.map(|before| Arc::clone(&before.loops)).unwrap_or_default();
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
                    None => Cluster::build(config, identity, reporter, &loops)?,
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
        let trusted = config.edge.trusted.clone();
        let quota = quota(config, reporter, &caller, before)?;
        let local_limits = local_limits(config, before)?;
        let rollouts = rollout::of(config, &caller, reporter, before.map(|before| &before.rollouts))?;
        Ok(Self {
            trust_traceparent,
            trusted,
            overload: config.overload.clone(),
            ready_paths: ready_paths(config),
            routes,
            clusters,
            authorizer,
            limiter,
            quota,
            local_limits,
            rollouts,
            loops,
        })
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

fn ready_paths(config: &Config) -> Vec<String> {
    let asked = |route: &&config::RouteConfig| {
        route.direct_response.as_ref().is_some_and(|direct| !direct.when_ready.is_empty())
    };
    let matches = config.routes.iter().filter(asked).flat_map(|route| &route.matches);
    let exact = matches.map(|one| &one.path).filter(|path| path.kind == config::PathMatchType::Exact);
    exact.map(|path| path.value.clone()).collect()
}

/// The shares of divided limits, with those that are held already.
fn quota(
    config: &Config,
    reporter: &Arc<Reporter>,
    caller: &Caller<'_>,
    before: Option<&Snapshot>,
) -> anyhow::Result<Option<Arc<Quota>>> {
    let Some(limit) = config.rate_limit.as_ref() else { return Ok(None) };
    let descriptors = || config.routes.iter().flat_map(|route| &route.quota);
    if descriptors().next().is_none() {
        return Ok(None);
    }
    for keys in descriptors().map(|entries| Descriptor::compile(entries).map(|one| one.keys())) {
        reporter.metrics.quota_bound(&limit.domain, keys?, limit.quota.unassigned_per_second);
    }
    let kept = before.and_then(|before| before.quota.as_ref()).filter(|quota| quota.config() == limit);
    Ok(Some(match kept {
        Some(quota) => Arc::clone(quota),
        None => Arc::new(Quota::start(limit, caller, reporter)?),
    }))
}

fn local_limits(
    config: &Config,
    before: Option<&Snapshot>,
) -> anyhow::Result<FxHashMap<String, Arc<RouteLimits>>> {
    let mut all = FxHashMap::default();
    for route in config.routes.iter().filter(|route| !route.local_limits.is_empty()) {
        let kept = before.and_then(|before| before.local_limits.get(&route.name));
        let limits = match kept.filter(|kept| kept.config == route.local_limits) {
            Some(kept) => Arc::clone(kept),
            None => {
                let limits = LocalLimit::compile_all(&route.local_limits, "local_limits")
                    .map_err(|invalid| anyhow::anyhow!("{}: {}", invalid.key, invalid.problem))?;
                Arc::new(RouteLimits { config: route.local_limits.clone(), limits })
            }
        };
        all.insert(route.name.clone(), limits);
    }
    Ok(all)
}

/// On the way out a name must not lead inside, unless the configuration says that it may. Where the client says which
/// endpoint it wants, none is left out.
fn guarded(cluster: &ClusterConfig, is_egress: bool) -> ClusterConfig {
    let mut cluster = cluster.clone();
    match &mut cluster.endpoints {
        Endpoints::Dns(dns) if is_egress => {
            dns.private_addresses.get_or_insert(PrivateAddresses::Refuse);
        }
        Endpoints::OriginalDestination(_) => cluster.outlier_detection.enabled = false,
        _ => {}
    }
    cluster
}
