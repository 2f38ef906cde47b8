//! Which requests a route is for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// The path; without one, every path.
    pub path: PathMatch,
    /// The method; without one, every method.
    pub method: Option<String>,
    /// Headers that must be there.
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query that must be there.
    pub query_params: Vec<ValueMatch>,
    /// Which workload must be calling, as its certificate says.
    pub peer: Option<PeerMatch>,
}

/// A path, and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole segments from the start.
    #[default]
    PathPrefix,
    /// A template such as `/policies/{id}`.
    PathTemplate,
}

/// A header or query parameter that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueMatch {
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Its name.
    pub name: String,
    /// Its value, or the expression that the whole value fits.
    pub value: String,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// Byte for byte.
    #[default]
    Exact,
    /// A regular expression for the whole value.
    RegularExpression,
}

/// Which workload must be calling. Nobody matches on a listener without client certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerMatch {
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// The URI of the certificate, such as `spiffe://example.org/ns/shop/sa/cart`.
    pub value: String,
}

/// A claim of the verified token that must be there. One of several scopes or groups is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimMatch {
    /// Which claim.
    pub name: Claim,
    /// How `value` is compared.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Its value.
    pub value: String,
}

/// What authorization tells about a token that it has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Whom it is about.
    Subject,
    /// Who issued it.
    Issuer,
    /// The client it was issued to.
    ClientId,
    /// What it is good for.
    Scope,
    /// Where its subject belongs.
    Group,
}
