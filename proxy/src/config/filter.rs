//! What a route does to requests and answers on their way.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

use super::words::Percent;

/// Headers that are set, added and removed, in this order: removed, set, added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderModifier {
    /// In place of whatever is there.
    pub set: Vec<Header>,
    /// Beside what is there.
    pub add: Vec<Header>,
    /// Not to be there.
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
    /// A file with its value in place of `value`, for secrets; read with the configuration.
    #[serde(default)]
    pub value_file: Option<PathBuf>,
}

/// What the upstream is asked for instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlRewrite {
    /// In place of the host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// In place of the path.
    #[serde(default)]
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathModifier {
    /// What `value` replaces.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// What stands there instead.
    pub value: String,
}

/// What a path modifier replaces. The query stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathModifierType {
    /// The whole path.
    ReplaceFullPath,
    /// The prefix that matched; the route must match by `PathPrefix` alone.
    ReplacePrefixMatch,
}

/// Where the client is sent. What is left out stays as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// Another host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Another port. Without one: none, when scheme or host change.
    #[serde(default)]
    pub port: Option<u16>,
    /// Another path.
    #[serde(default)]
    pub path: Option<PathModifier>,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    pub status_code: u16,
}

fn found() -> u16 {
    302
}

/// A scheme to be redirected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Plaintext.
    Http,
    /// TLS.
    Https,
}

/// Which pages of other origins may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// `https://app.example.org`, `https://*.example.org`, or `*`.
    pub allow_origins: Vec<String>,
    /// Methods beyond GET, HEAD and POST; `*` for any.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Headers that pages may send; `*` for any.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Headers of answers that pages may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Whether browsers send cookies along.
    #[serde(default)]
    pub allow_credentials: bool,
    /// How long browsers remember the answer to a preflight.
    #[serde(default = "five_seconds", with = "duration")]
    #[schemars(with = "String")]
    pub max_age: Duration,
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

/// What of a request decides where it always goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// This header's value.
    Header(String),
    /// This cookie's value.
    Cookie(String),
    /// This query parameter's value.
    QueryParam(String),
    /// The subject of the verified token, with its issuer.
    Subject,
    /// The client's address.
    ClientAddress,
}

/// A copy of some requests, whose answers nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where copies go.
    pub cluster: String,
    /// How many of the requests are copied.
    #[serde(default = "Percent::all")]
    pub percent: Percent,
    /// What decides which ones; without it chance does.
    #[serde(default)]
    pub key: Option<Key>,
    /// Copy requests that change something, too.
    #[serde(default)]
    pub unsafe_methods: bool,
    /// Whether tokens and cookies are copied.
    #[serde(default)]
    pub credentials: Credentials,
    /// Copies under way at once; more are dropped and counted.
    #[serde(default = "thirty_two")]
    pub max_in_flight: usize,
    /// The largest body that is copied.
    #[serde(default = "body_bytes")]
    pub body_bytes: usize,
    /// How long a copy may take.
    #[serde(default = "five_seconds", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Compare status and latency with the real answer's, as a metric.
    #[serde(default)]
    pub compare: bool,
}

/// Whether a copy carries what proves who asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// Without `authorization`, cookies, API keys, and tokens in the query.
    #[default]
    Redact,
    /// As they came.
    Keep,
}

fn thirty_two() -> usize {
    32
}

fn body_bytes() -> usize {
    64 << 10
}

/// What goes wrong on purpose, to see who copes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Some requests wait.
    #[serde(default)]
    pub delay: Option<Delay>,
    /// Some requests fail.
    #[serde(default)]
    pub abort: Option<Abort>,
}

/// A wait before a request goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// How many requests.
    pub percent: Percent,
    /// How long.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub duration: Duration,
}

/// A failure in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// How many requests.
    pub percent: Percent,
    /// With which status.
    pub status: u16,
}

/// Says that something is going away: `Deprecation` (RFC 9745) and `Sunset` (RFC 8594).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deprecation {
    /// Since when it should not be used.
    pub since: Timestamp,
    /// When it will be gone.
    #[serde(default)]
    pub sunset: Option<Timestamp>,
    /// Where people read about it.
    #[serde(default)]
    pub link: Option<String>,
}
