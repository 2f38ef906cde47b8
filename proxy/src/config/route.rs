//! Which requests go where, and what is asked about them on the way.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, MapAccess, Visitor, value};
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

use super::OnError;
use super::words::{Workload, switch_word};

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name, in telemetry and in what authorization is told.
    pub name: String,
    /// Hosts it is for, exact or `*.example.org`. Empty: every host.
    #[serde(default)]
    pub hostnames: Vec<String>,
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
    /// How long the upstream may take to begin its answer.
    #[serde(default = "route_timeout", with = "duration")]
    pub timeout: Duration,
    /// Whether authorization is asked: `on`, `off`, or `{mode: on, on_error: allow}`.
    #[serde(default)]
    pub authz: RouteAuthz,
    /// What this route changes about rate limiting.
    #[serde(default)]
    pub rate_limit: RouteRateLimit,
    /// What its requests are counted by. A descriptor of which one value is missing is left out.
    #[serde(default)]
    pub descriptors: Vec<Vec<DescriptorEntry>>,
    /// Bytes of a request's body, in place of the listener's limit.
    #[serde(default)]
    pub body_bytes: Option<u64>,
}

fn route_timeout() -> Duration {
    Duration::from_secs(15)
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// The path; without one, every path.
    pub path: PathMatch,
    /// The method; without one, every method.
    pub method: Option<String>,
    /// Headers that must be there.
    pub headers: Vec<HeaderMatch>,
}

/// A path, and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathMatch {
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// The path, prefix or template.
    pub value: String,
}

impl Default for PathMatch {
    fn default() -> Self {
        Self { kind: PathMatchType::PathPrefix, value: "/".to_owned() }
    }
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole segments from the start.
    #[default]
    PathPrefix,
    /// A template such as `/policies/{id}`.
    PathTemplate,
}

/// A header that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub kind: HeaderMatchType,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// How a header's value is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderMatchType {
    /// Byte for byte.
    #[default]
    Exact,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// An answer of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a route changes about authorization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RouteAuthz {
    /// Whether it is asked.
    pub mode: AuthzMode,
    /// What happens without an answer, in place of `authz.on_error`.
    pub on_error: Option<OnError>,
}

/// Whether authorization is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthzMode {
    /// It is asked about every request.
    #[default]
    On,
    /// The route is open to anyone.
    Off,
}

impl<'de> Deserialize<'de> for AuthzMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match switch_word(deserializer)?.as_str() {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(D::Error::custom(format!("`{other}` is neither `on` nor `off`"))),
        }
    }
}

impl<'de> Deserialize<'de> for RouteAuthz {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        struct Long {
            mode: AuthzMode,
            on_error: Option<OnError>,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RouteAuthz;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`on`, `off` or a map with `mode` and `on_error`")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<RouteAuthz, E> {
                let mode = if on { AuthzMode::On } else { AuthzMode::Off };
                Ok(RouteAuthz { mode, on_error: None })
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<RouteAuthz, E> {
                let mode = AuthzMode::deserialize(value::StrDeserializer::<E>::new(word))?;
                Ok(RouteAuthz { mode, on_error: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteAuthz, A::Error> {
                let Long { mode, on_error } = Long::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(RouteAuthz { mode, on_error })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// What a route changes about rate limiting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRateLimit {
    /// What happens without an answer, in place of `rate_limit.on_error`.
    pub on_error: Option<OnError>,
}

/// One entry of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptorEntry {
    /// Its key, as the limits name it.
    pub key: String,
    /// Its value: text, with `{token.subject}` and its like filled in.
    pub value: String,
}
