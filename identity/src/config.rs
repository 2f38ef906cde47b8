//! What an operator may say about identity: exactly one source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::Service;
use tollgate_runtime::config::Invalid;

use crate::identity::Identity;
use crate::source::{
    Authority, AuthorityConfig, Files, FilesConfig, Source, SourceFault, WorkloadApi, WorkloadApiConfig,
};

/// Where the identity of this process comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentityConfig {
    /// Files that somebody else keeps current: cert-manager, Vault, or a person.
    Files(FilesConfig),
    /// A SPIFFE Workload API.
    WorkloadApi(WorkloadApiConfig),
    /// Tollgate's built-in authority.
    Authority(AuthorityConfig),
}

impl IdentityConfig {
    /// What serde cannot check; `key` is where this stands.
    pub fn check(&self, key: &str) -> Result<(), Invalid> {
        match self {
            Self::Authority(config) => config.check(&format!("{key}.authority")),
            Self::Files(_) | Self::WorkloadApi(_) => Ok(()),
        }
    }

    /// Gets the identity and keeps it current.
    pub async fn follow(&self, service: &Service) -> Result<Identity, SourceFault> {
        let source: Box<dyn Source> = match self {
            Self::Files(config) => Box::new(Files::new(config.clone(), service)),
            Self::WorkloadApi(config) => Box::new(WorkloadApi::new(config.clone())),
            Self::Authority(config) => Box::new(Authority::new(config.clone(), service.clock().clone())),
        };
        Identity::follow(source, service).await
    }
}
