//! Where our certificate and the bundles come from.

mod authority;
mod files;
mod workload_api;

use futures_util::future::BoxFuture;

pub use authority::{Authority, AuthorityConfig};
pub use files::{Files, FilesConfig};
pub use workload_api::{WorkloadApi, WorkloadApiConfig};

use crate::bundle::BundleFault;
use crate::credential::CredentialFault;
use crate::identity::Material;
use crate::pem::PemFault;

/// A source of identity.
pub trait Source: Send + 'static {
    /// What it is, for the log.
    fn name(&self) -> &'static str;

    /// What there is, at the first call; what is new since, at the later ones, once it has come.
    fn next(&mut self) -> BoxFuture<'_, Result<Material, SourceFault>>;
}

/// Why a source brings nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// A file is missing or damaged.
    #[error(transparent)]
    File(#[from] PemFault),
    /// Certificate and key do not make a credential.
    #[error(transparent)]
    Credential(#[from] CredentialFault),
    /// A bundle does not make roots.
    #[error(transparent)]
    Bundle(#[from] BundleFault),
    /// Nobody answers, which may pass.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody answered, and the answer stays no until a person acts.
    #[error("{0}")]
    Refused(String),
    /// Telemetry cannot be sent as configured.
    #[error("{0}")]
    Telemetry(String),
    /// The service is stopping.
    #[error("stopped while waiting for an identity")]
    Stopped,
}
