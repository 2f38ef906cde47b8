//! What takes away: denials within a namespace, revocations of what was once issued.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ConditionSpec, GrpcSpec, WhoSpec};

/// A denial: who may not do something, whatever is granted. Looked at before every grant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DenialSpec {
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whom; all that is given must hold.
    pub who: WhoSpec,
    /// A service of the namespace, or `*` for all of them.
    pub service: String,
    /// Methods, or `["*"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Path templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Methods of a gRPC service, instead of methods and paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcSpec>,
    /// Hosts it is limited to; every host of the service when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What must hold beside; a condition that errors denies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionSpec>,
    /// It denies nothing before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// It denies nothing from this moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
    /// Only record what this would have denied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Why, for operators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A revocation: what was issued once and is good no more. Exactly one thing is revoked: an issuer's `jti`, `subject`,
/// `client` or `key_id`, or a `workload`, or a `certificate_serial`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationSpec {
    /// Its name.
    pub name: String,
    /// The name of the issuer that said what is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The one token with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// All tokens of this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// All tokens of this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// All tokens signed with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The workload with this SPIFFE id, or all below a path ending in `/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The client certificate with this serial number, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_serial: Option<String>,
    /// Only tokens issued before this moment; one that does not say when it was issued counts as older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub issued_before: Option<Timestamp>,
    /// When the revocation ends: once nothing is left that it is about.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Why, for operators.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
