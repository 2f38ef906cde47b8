//! What people write about each kind of object.
//!
//! Nothing in here is checked beyond its shape; `check` does that, once. The shape itself is strict:
//! an unknown key is an error, so a misspelt `scopes` can never widen a grant.

mod condition;
mod permission;
mod refusing;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use condition::{ConditionSpec, TimeSpec};
pub use permission::{GrpcSpec, PermissionSpec, ScopesSpec};
pub use refusing::{DenialSpec, RevocationSpec};

/// Whether a missing grant refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse.
    #[default]
    Enforce,
    /// Let pass and record what would have been refused. Forgives a missing grant only, never a bad token.
    Audit,
}

/// A service: what is protected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Host names by which a request is known to be about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The identity its workloads run under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Which workloads may talk to it: SPIFFE ids, patterns ending in `/*`, or `external` for what entered by an
    /// ingress. Nobody by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// The issuers whose tokens it accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// The audiences one of which a token must name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Whether a missing grant refuses.
    #[serde(default, skip_serializing_if = "is_enforce")]
    pub mode: Mode,
    /// What its upstream may do to a path.
    #[serde(default, skip_serializing_if = "UpstreamSpec::is_default")]
    pub upstream: UpstreamSpec,
    /// Where a browser that comes without a token is sent, instead of being told 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginSpec>,
}

/// Where people log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginSpec {
    /// The page.
    pub url: String,
    /// The query parameter that tells the page where to send the person back to; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_parameter: Option<String>,
}

fn is_enforce(mode: &Mode) -> bool {
    *mode == Mode::Enforce
}

/// What the upstream may do to a path before it looks at it; the default assumes nearly everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamSpec {
    /// It decodes percent escapes.
    pub decode: bool,
    /// It decodes an escaped slash too. Says nothing where `decode` is false.
    pub decode_slash: bool,
    /// It merges runs of slashes.
    pub merge: bool,
    /// It strips `;parameters`.
    pub strip_params: bool,
    /// It ignores case.
    pub fold_case: bool,
}

impl Default for UpstreamSpec {
    fn default() -> Self {
        Self { decode: true, decode_slash: true, merge: true, strip_params: true, fold_case: false }
    }
}

impl From<UpstreamSpec> for tollgate_paths::Upstream {
    fn from(spec: UpstreamSpec) -> Self {
        let UpstreamSpec { decode, decode_slash, merge, strip_params, fold_case } = spec;
        Self { decode, decode_slash, merge, strip_params, fold_case }
    }
}

impl UpstreamSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A role: named permissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleSpec {
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Roles of the same namespace whose permissions it has too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// What it allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<PermissionSpec>,
}

/// A binding: who holds a role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingSpec {
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A role of the same namespace.
    pub role: String,
    /// Who; all that is given must hold.
    pub who: WhoSpec,
    /// It grants nothing before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// It grants nothing from this moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
    /// What must hold beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionSpec>,
    /// Only record what this would have granted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A conjunction: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoSpec {
    /// The name of the issuer that says the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The token's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// One of the token's groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The token's client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The peer's SPIFFE id, or a namespace of them ending in `/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Whoever has a token that the service accepts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub authenticated: bool,
    /// Everybody, with or without a token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anyone: bool,
}

/// An issuer: whom we believe about users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerSpec {
    /// The name by which services and bindings speak of it.
    pub name: String,
    /// The exact value of the `iss` claim.
    pub issuer: String,
    /// Where its keys are fetched. Exactly one of `jwks_url`, `discovery`, `jwks`, `pem` and `shared_secret` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Its keys are found by OpenID Connect Discovery, below the URL that `issuer` is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discovery: bool,
    /// Its keys as a JWK set, where they are not fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub jwks: Option<serde_json::Value>,
    /// Its keys as PEM: public keys, or certificates that hold them. They stand for every `kid`; a key in a certificate
    /// verifies nothing before or after the certificate's dates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// The name, in the configuration of this service (`keys.shared_secrets`), of what we and the issuer know and
    /// nobody else. Its tokens are signed with HMAC and `algorithms` has to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_secret: Option<String>,
    /// The algorithms it may use; every asymmetric one that its keys allow when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    /// Audiences one of which its tokens must name, whatever the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Values of the header `typ` that are accepted; absent, `JWT` and `at+jwt` when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub typ: Vec<String>,
    /// Where its tokens may be presented; `Authorization: Bearer` when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_places: Vec<TokenPlaceSpec>,
    /// Whether the token is taken out of the request before the upstream gets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip: bool,
    /// Claims that the upstream gets in headers. A client's own header of such a name is always removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claim_headers: Vec<ClaimHeaderSpec>,
    /// Claims that the upstream gets in query parameters. A client's own parameter of such a name is always removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claim_parameters: Vec<ClaimParameterSpec>,
    /// Claims that go into the dynamic metadata under `claims`, for rate limits and logs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata_claims: Vec<String>,
    /// How far its clock may be from ours.
    #[serde(default = "default_leeway", skip_serializing_if = "is_default_leeway")]
    pub leeway_seconds: u32,
    /// The longest that a token may be valid, from `iat` to `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_seconds: Option<u32>,
    /// What it calls the claims that policy reads.
    #[serde(default, skip_serializing_if = "ClaimNames::is_default")]
    pub claims: ClaimNames,
}

const DEFAULT_LEEWAY_SECONDS: u32 = 5;

fn default_leeway() -> u32 {
    DEFAULT_LEEWAY_SECONDS
}

fn is_default_leeway(leeway: &u32) -> bool {
    *leeway == DEFAULT_LEEWAY_SECONDS
}

/// A claim and the header in which an upstream gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimHeaderSpec {
    /// The claim, or a path into nested objects: `realm_access.roles`.
    pub claim: String,
    /// The header. Anything but printable ASCII is percent-encoded; a list is joined by commas.
    pub header: String,
}

/// A claim and the query parameter in which an upstream gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimParameterSpec {
    /// The claim, or a path into nested objects: `realm_access.roles`.
    pub claim: String,
    /// The parameter.
    pub parameter: String,
}

/// One place in a request where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenPlaceSpec {
    /// A header; in `authorization` the scheme is `Bearer`, elsewhere the value is the token.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// What an issuer calls the claims that policy reads; the first that is present counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    /// The subject.
    pub subject: Vec<String>,
    /// Scopes: a text of words or a list.
    pub scopes: Vec<String>,
    /// Groups: a list.
    pub groups: Vec<String>,
    /// The client.
    pub client_id: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            subject: names(&["sub"]),
            scopes: names(&["scope", "scp"]),
            groups: names(&["groups"]),
            client_id: names(&["client_id", "azp"]),
        }
    }
}

impl ClaimNames {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where in the mesh an enforcer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// Where requests enter.
    Ingress,
    /// Before a workload.
    SidecarIn,
    /// Behind a workload.
    SidecarOut,
    /// Where requests leave.
    Egress,
    /// A gateway that is not ours.
    ExternalGateway,
}

impl Point {
    /// Whether what passes here has entered from outside.
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Ingress | Self::ExternalGateway)
    }

    /// Reads the value of the context extension `tollgate.point`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ingress" => Self::Ingress,
            "sidecar-in" => Self::SidecarIn,
            "sidecar-out" => Self::SidecarOut,
            "egress" => Self::Egress,
            "external-gateway" => Self::ExternalGateway,
            _ => return None,
        })
    }
}

/// An enforcer: who may ask this service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnforcerSpec {
    /// Its name; `local` is whoever asks in plaintext on loopback.
    pub name: String,
    /// The identity it asks with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Where it stands.
    pub point: Point,
    /// The services it may ask about, as `namespace/name` or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The source workloads it may assert: SPIFFE ids or patterns ending in `/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}
