//! What an operator may set. Unknown keys are errors; defaults stand beside their field.
//!
//! [`Config::check`] is the only place that checks it: what it lets through, [`crate::snapshot`] can compile.
//! Names of route and match fields are those of Gateway API's HTTPRoute.

mod capture;
mod check;
mod check_capture;
mod check_cluster;
mod check_route;
mod cluster;
mod filter;
mod limit;
mod listener;
mod matching;
mod outline;
mod overload;
mod resilience;
mod rollout;
mod route;
mod route_authz;
mod slices;
mod tcp;
mod tls;
mod trust;
mod words;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_identity::IdPattern;
use tollgate_identity::config::IdentityConfig;
use tollgate_runtime::config::{Invalid, ServiceConfig, duration};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;

pub use capture::{Destination, OriginalDestination};
pub use cluster::{
    Balance, ClusterConfig, Dns, DnsRecord, Endpoint, Endpoints, Locality, Placed, PrivateAddresses, Protocol,
};
pub use filter::{
    Abort, Cors, Credentials, Delay, Deprecation, Fault, Header, HeaderModifier, Key, Mirror, PathModifier,
    PathModifierType, RequestRedirect, Scheme, UrlRewrite,
};
pub use limit::{ConnectionLimit, LocalLimit, QuotaConfig, RateLimitConfig};
pub use listener::{AddressLimit, LimitsConfig, ListenerConfig, Normalize, Role};
pub use matching::{
    Claim, ClaimMatch, Match, PathMatch, PathMatchType, PeerMatch, ValueMatch, ValueMatchType,
};
pub use overload::{OverloadConfig, OverloadMode};
pub use resilience::{
    BreakerConfig, FailurePercentage, HealthCheck, HealthQuestion, Hedge, OutlierDetection, Retry, RetryOn,
    SuccessRate,
};
pub use rollout::{RolloutConfig, RolloutLatency, RolloutStep, RolloutSuccess};
pub use route::{Backend, DescriptorEntry, DirectResponse, Override, RouteConfig, RouteRateLimit};
pub use route_authz::{AuthzMode, Guard, RouteAuthz};
pub use slices::{AddressType, EndpointSlices, SlicePort};
pub use tcp::TcpConfig;
pub use tls::{ClusterTls, ListenerTls, MinimumVersion, Mtls, ServerCertificate};
pub use trust::{Network, ProxyProtocol, ProxyProtocolVersion, Trusted, TrustedHeader};
pub use words::{Percent, Times, Workload};

/// One proxy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this proxy is called in telemetry: its `service.name`.
    #[serde(default = "default_name")]
    pub name: String,
    /// Where telemetry goes.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// The process listener and the grace of a shutdown.
    #[serde(default)]
    pub process: ProcessConfig,
    /// Where this proxy's own certificate comes from, and whom it believes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityConfig>,
    /// What is believed of those outside.
    #[serde(default)]
    pub edge: EdgeConfig,
    /// The authorization service. Without it nothing is asked: sidecars forward what their ingress let pass.
    #[serde(default)]
    pub authz: Option<AuthzConfig>,
    /// The rate-limit service. Without it descriptors are not counted.
    #[serde(default)]
    pub rate_limit: Option<RateLimitConfig>,
    /// What happens when there is more to do than this proxy can.
    #[serde(default)]
    pub overload: OverloadConfig,
    /// Where requests come in.
    pub listeners: Vec<ListenerConfig>,
    /// Where they go. What matches no route is answered 404 and never forwarded.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// The upstreams that routes name.
    #[serde(default)]
    pub clusters: Vec<ClusterConfig>,
}

fn default_name() -> String {
    Config::NAME.to_owned()
}

impl ServiceConfig for Config {
    const NAME: &'static str = "proxy";

    const EXAMPLE: Option<&'static str> = Some(include_str!("../../../config/ingress.yaml"));

    fn schema() -> Option<serde_json::Value> {
        serde_json::to_value(schemars::schema_for!(Self)).ok()
    }

    fn instance_name(&self) -> &str {
        &self.name
    }

    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), Invalid> {
        check::check(self)
    }
}

/// What is believed of those outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Continue a client's trace instead of starting a new one linked to it.
    pub trust_traceparent: bool,
    /// Proxies between clients and the ingresses, and what they are believed.
    pub trusted: Trusted,
}

/// What happens to a request when a service that should judge it cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Refuse it: 503 with `retry-after`.
    Deny,
    /// Let it pass, and count it.
    Allow,
}

impl OnError {
    /// The word in telemetry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// How the authorization service is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthzConfig {
    /// Its gRPC address: `https://127.0.0.1:7001` for mTLS by this proxy's identity, `http://` on this machine.
    pub address: String,
    /// Who must answer there; `ns/tollgate-system/sa/authz` of our trust domain if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<IdPattern>,
    /// How long an answer may take.
    #[serde(default = "authz_timeout", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// What happens without an answer.
    #[serde(default = "deny")]
    pub on_error: OnError,
    /// What a refused client is told to wait.
    #[serde(default = "one_second", with = "duration")]
    #[schemars(with = "String")]
    pub retry_after: Duration,
    /// HTTP/2 connections that are kept to it.
    #[serde(default = "two")]
    pub connections: usize,
}

fn authz_timeout() -> Duration {
    Duration::from_millis(200)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn two() -> usize {
    2
}

fn deny() -> OnError {
    OnError::Deny
}
