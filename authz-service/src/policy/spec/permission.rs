//! What a role allows: requests, by method and path or by gRPC method, and what must hold beside.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ConditionSpec;

/// One thing that a role allows. Requests are named by `methods` and `paths`, or by `grpc`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PermissionSpec {
    /// Its name within the role.
    pub name: String,
    /// A service of the role's namespace, or `*` for all of them.
    pub service: String,
    /// Methods, or `["*"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Path templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Methods of a gRPC service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcSpec>,
    /// Hosts it is limited to; every host of the service when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Scopes that the token must have.
    #[serde(default, skip_serializing_if = "ScopesSpec::is_empty")]
    pub scopes: ScopesSpec,
    /// What must hold beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionSpec>,
    /// Only record what this would have allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Methods of a gRPC service: `POST` on `/service/method`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcSpec {
    /// The service with its package: `shop.v1.Orders`.
    pub service: String,
    /// Its methods; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// Scopes that a token must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopesSpec {
    /// Every one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// At least one of these, unless empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
}

impl ScopesSpec {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.any.is_empty()
    }
}
