//! Which requests go where, and what is asked about them on the way.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

use super::filter::{
    Cors, Credentials, Deprecation, Fault, HeaderModifier, Key, Mirror, RequestRedirect, UrlRewrite,
};
use super::limit::LocalLimit;
use super::matching::{ClaimMatch, Match, PeerMatch, ValueMatch};
use super::resilience::{Hedge, Retry};
use super::rollout::RolloutConfig;
use super::words::Workload;
use super::{OnError, RouteAuthz};

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name, in telemetry and in what authorization is told.
    pub name: String,
    /// Hosts it is for, exact or `*.example.org`. Empty: every host.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Listeners it is for, by their names. Empty: every listener.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Requests it is for; one that matches is enough.
    pub matches: Vec<Match>,
    /// The service behind it, `namespace/name`: what authorization decides about.
    #[serde(default)]
    pub service: Option<Workload>,
    /// Where its requests go, by weight.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Answer here instead of forwarding.
    #[serde(default)]
    pub direct_response: Option<DirectResponse>,
    /// Send the client elsewhere instead of forwarding.
    #[serde(default)]
    pub request_redirect: Option<RequestRedirect>,
    /// What the upstream is asked for in place of what the client asked for. Authorization sees the client's words.
    #[serde(default)]
    pub url_rewrite: Option<UrlRewrite>,
    /// What changes about the headers for the upstream.
    #[serde(default)]
    pub request_header_modifier: HeaderModifier,
    /// What changes about the headers for the client.
    #[serde(default)]
    pub response_header_modifier: HeaderModifier,
    /// Whether the upstream gets what the client proves itself with. Kept, unless the listener is an `egress`.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Which pages of other origins may call this route; answered here, on refusals too.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// What keeps a caller at one of several backends.
    #[serde(default)]
    pub sticky: Option<Key>,
    /// Who goes to a backend whatever the weights are; the first that fits.
    #[serde(default)]
    pub overrides: Vec<Override>,
    /// A backend whose share moves by itself, as long as it does no worse than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutConfig>,
    /// Where a copy of some requests goes.
    #[serde(default)]
    pub request_mirror: Option<Mirror>,
    /// What goes wrong on purpose.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Says that what is behind this route is going away.
    #[serde(default)]
    pub deprecation: Option<Deprecation>,
    /// How long the upstream may take to begin its answer, all tries together.
    #[serde(default = "route_timeout", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// How long an answer may stand still once it has begun; none, as long as it likes.
    #[serde(default, with = "duration::option")]
    #[schemars(with = "Option<String>")]
    pub idle_timeout: Option<Duration>,
    /// How long an answer may take to its last byte; none, as long as it likes.
    #[serde(default, with = "duration::option")]
    #[schemars(with = "Option<String>")]
    pub stream_timeout: Option<Duration>,
    /// When a request is tried again.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// When a second try begins beside the first.
    #[serde(default)]
    pub hedge: Option<Hedge>,
    /// Whether authorization is asked: `on`, `off`, or `{mode: on, on_error: allow}`.
    #[serde(default)]
    pub authz: RouteAuthz,
    /// What this route changes about rate limiting.
    #[serde(default)]
    pub rate_limit: RouteRateLimit,
    /// What its requests are counted by. A descriptor of which one value is missing is left out.
    #[serde(default)]
    pub descriptors: Vec<Vec<DescriptorEntry>>,
    /// As `descriptors`, for limits with `enforcement: quota`: decided here, by the share that the rate-limit service
    /// has assigned to this proxy, without asking.
    #[serde(default)]
    pub quota: Vec<Vec<DescriptorEntry>>,
    /// Limits that this proxy holds by itself.
    #[serde(default)]
    pub local_limits: Vec<LocalLimit>,
    /// Translates the calls of browsers (gRPC-Web) for its backends, which speak gRPC.
    #[serde(default)]
    pub grpc_web: bool,
    /// Protocols that its requests may go over to, such as `websocket`; none, unless given. For backends that speak HTTP/1.1.
    #[serde(default)]
    pub upgrades: Vec<String>,
    /// Bytes of a request's body, in place of the listener's limit.
    #[serde(default)]
    pub body_bytes: Option<u64>,
}

fn route_timeout() -> Duration {
    Duration::from_secs(15)
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The cluster's name.
    pub cluster: String,
    /// Its share of the sum of all weights.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// A dark launch: requests for which all that is given holds go to `cluster`, one of the route's backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The backend, by its cluster's name; its weight may be 0.
    pub cluster: String,
    /// Headers that must be there.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Claims of the verified token that must be there.
    #[serde(default)]
    pub claims: Vec<ClaimMatch>,
    /// Who must be calling.
    #[serde(default)]
    pub peer: Option<PeerMatch>,
}

/// An answer of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectResponse {
    /// Its status.
    pub status: u16,
    /// Its body.
    #[serde(default)]
    pub body: String,
    /// Answer so only when all of these are ready, else 503: `self`, or URLs that then answer 200.
    #[serde(default)]
    pub when_ready: Vec<String>,
}

/// What a route changes about rate limiting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRateLimit {
    /// What happens without an answer, in place of `rate_limit.on_error`.
    pub on_error: Option<OnError>,
}

/// One entry of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DescriptorEntry {
    /// Its key, as the limits name it.
    pub key: String,
    /// Its value: text, with `{token.subject}` and its like filled in.
    pub value: String,
}
