//! Listeners that carry bytes, whatever they mean, to one cluster.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

use super::route_authz::RouteAuthz;
use super::words::Workload;

/// Where the connections of a listener go, and who may open one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpConfig {
    /// Where they go. Each counts as one request of the cluster for as long as it lasts.
    pub cluster: String,
    /// The service behind it, as authorization and records call it: `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Workload>,
    /// Whether authorization is asked about each connection: `on`, `off`, or `{mode: on, on_error: allow}`.
    #[serde(default)]
    pub authz: RouteAuthz,
    /// How long a connection may last; none, as long as the certificates at its ends.
    #[serde(default, with = "duration::option")]
    #[schemars(with = "Option<String>")]
    pub max_duration: Option<Duration>,
}
