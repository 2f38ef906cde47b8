//! What there is to say about a cluster: for the process listener and `tollgate proxy status`.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::breaker::UnderWay;
use super::cluster::Cluster as Running;

/// A cluster as it is now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cluster {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// How many endpoints may be used.
    usable: usize,
    /// So few may be used that all are.
    panic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery_error: Option<String>,
    breaker: UnderWay,
    endpoints: Vec<Endpoint>,
}

/// An endpoint as it is now.
#[derive(Debug, Clone, Serialize)]
struct Endpoint {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<String>,
    /// `in_use`, `ejected` or `ill`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_for_seconds: Option<u64>,
    times_ejected: u32,
    in_flight: usize,
    idle_connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<String>,
    /// Why it was left out, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event: Option<String>,
}

pub(super) fn of(cluster: &Running) -> Cluster {
    let members = cluster.members.lock();
    let selection = cluster.selection.load();
    let endpoints = members.list.iter().map(|member| {
        let endpoint = &member.endpoint;
        let (until, times_ejected) = members.ejector.standing(endpoint.address);
        let state = match (until, member.health.is_ill()) {
            (Some(_), _) => "ejected",
            (None, true) => "ill",
            (None, false) => "in_use",
        };
        Endpoint {
            address: endpoint.address.to_string(),
            locality: member.locality.clone(),
            state,
            ejected_for_seconds: until.map(|until| until.saturating_sub(cluster.age()).as_secs()),
            times_ejected,
            in_flight: endpoint.in_flight.load(Ordering::Relaxed),
            idle_connections: endpoint.pool.idle(),
            latency_ms: endpoint.latency().map(|seconds| seconds * 1000.0),
            last_check: member.last_check.clone(),
            last_event: member.last_event.clone(),
        }
    });
    Cluster {
        name: cluster.name.to_string(),
        version: cluster.version.as_deref().map(str::to_owned),
        usable: selection.usable,
        panic: selection.panic && selection.of > 0,
        discovery_error: members.discovery_error.clone(),
        breaker: cluster.breaker.under_way(),
        endpoints: endpoints.collect(),
    }
}
