//! The built-in certificate authority: which workload may have which certificate.
//!
//! ```text
//! join token ───────┐
//! Kubernetes token ─┼──> proof of an id ──> sign (identity::signing) ──> certificate, recorded
//! certificate ──────┘
//! ```
//!
//! What a certificate looks like is `tollgate_identity::signing`'s to say. Here it is decided whether there is to be
//! one: a token is good for one id and one key, a certificate is renewed only by whoever holds it, and neither of
//! them where the id is revoked. Everything that was signed is in the database before it is given out.

mod enrol;
mod join_token;
mod kubernetes;
mod own;
mod revoked;
mod roots;
mod serve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tollgate_identity::signing::{Profile, RequestFault, Root, RootFault, SealFault, WrappingKey};
use tollgate_identity::spiffe_id::{SpiffeId, TrustDomain};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::duration;

pub use enrol::{Certified, Proof};
pub use join_token::JoinToken;
pub use kubernetes::{KubernetesConfig, KubernetesFault};
pub use own::OwnSource;
pub use serve::Enrolment;

use crate::store::{Store, StoreError};
use kubernetes::Cluster;
use revoked::Revoked;

/// What an operator may say about the built-in authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaConfig {
    /// The trust domain that it speaks for.
    pub trust_domain: TrustDomain,
    /// Where workloads enrol and renew, over TLS.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The file with the key that root keys are sealed with; made if it is not there. Never in the database.
    #[serde(default = "default_wrapping_key")]
    pub wrapping_key: PathBuf,
    /// DNS names and addresses that certificates of an id hold beside it, for servers that are found by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<SpiffeId, Vec<String>>,
    /// How long a workload's certificate is valid.
    #[serde(default = "default_leaf_life", with = "duration")]
    pub leaf_life: Duration,
    /// How long a root is valid.
    #[serde(default = "default_root_life", with = "duration")]
    pub root_life: Duration,
    /// How long a new root is trusted before it signs: long enough for every workload to have heard of it.
    #[serde(default = "default_overlap", with = "duration")]
    pub overlap: Duration,
    /// How long after its attestation a workload may go on renewing.
    #[serde(default = "default_attestation", with = "duration")]
    pub attestation: Duration,
    /// The Kubernetes cluster whose service accounts may enrol; without this none may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesConfig>,
}

const DAY: Duration = Duration::from_secs(86_400);

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7004))
}

fn default_wrapping_key() -> PathBuf {
    PathBuf::from("data/ca/wrapping.key")
}

fn default_leaf_life() -> Duration {
    Duration::from_secs(6 * 3600)
}

fn default_root_life() -> Duration {
    DAY * 3650
}

fn default_overlap() -> Duration {
    DAY
}

fn default_attestation() -> Duration {
    DAY * 30
}

impl CaConfig {
    /// The defaults, for `trust_domain`.
    pub fn new(trust_domain: TrustDomain, wrapping_key: PathBuf) -> Self {
        Self {
            trust_domain,
            listen: default_listen(),
            wrapping_key,
            names: BTreeMap::new(),
            leaf_life: default_leaf_life(),
            root_life: default_root_life(),
            overlap: default_overlap(),
            attestation: default_attestation(),
            kubernetes: None,
        }
    }
}

/// Why the authority did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The wrapping key.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// A root.
    #[error(transparent)]
    Root(#[from] RootFault),
    /// The request.
    #[error(transparent)]
    Request(#[from] RequestFault),
    /// The token is unknown, or of another shape. Which of them is not said.
    #[error("the join token is not one of ours")]
    UnknownToken,
    /// Too late.
    #[error("the join token has expired; ask for a new one")]
    ExpiredToken,
    /// By another key, or once more after its time.
    #[error("the join token was used already; ask for a new one")]
    UsedToken,
    /// A Kubernetes token that proves nothing.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesFault),
    /// There is no cluster that could be asked.
    #[error("Kubernetes tokens are not taken here (ca.kubernetes); use a join token")]
    NoCluster,
    /// Somebody else's domain.
    #[error("{id} is not in trust domain `{ours}`, for which alone certificates are signed here")]
    OtherDomain { id: SpiffeId, ours: TrustDomain },
    /// The certificate shown is none that was signed here, or has ended.
    #[error("the certificate shown is not in force: {0}")]
    NotRenewable(&'static str),
    /// It is revoked.
    #[error("{id} is revoked (revocation `{revocation}`)")]
    Revoked { id: SpiffeId, revocation: String },
    /// No root is in force.
    #[error("no root of trust domain `{0}` is in force; rotate it: tollgate ca rotate")]
    NoRoot(TrustDomain),
}

/// The authority; cheap to clone.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: CaConfig,
    store: Store,
    wrapping: WrappingKey,
    clock: Clock,
    cluster: Option<Cluster>,
    revoked: RwLock<Arc<Revoked>>,
    /// As last read from the database, the oldest first.
    roots: RwLock<Vec<Arc<HeldRoot>>>,
}

/// A root whose key we could open.
#[derive(Debug)]
struct HeldRoot {
    fingerprint: String,
    takes_over: i64,
    not_after: i64,
    root: Root,
}

impl CertificateAuthority {
    /// Opens the authority; makes its first root where there is none.
    pub async fn open(config: CaConfig, store: Store, clock: Clock) -> Result<Self, CaError> {
        let wrapping = WrappingKey::open_or_create(&config.wrapping_key)?;
        let (roots, cluster) = (RwLock::default(), config.kubernetes.clone().map(Cluster::new));
        let revoked = RwLock::default();
        let ca = Self { inner: Arc::new(Inner { config, store, wrapping, clock, cluster, revoked, roots }) };
        ca.reload().await?;
        ca.reload_revoked().await?;
        if ca.inner.roots.read().is_empty() {
            ca.found().await?;
        }
        Ok(ca)
    }

    /// The trust domain that it speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.config.trust_domain
    }

    /// What certificates of an id hold beside it.
    fn profile(&self, id: &SpiffeId) -> Profile {
        let mut profile = Profile::default();
        for name in self.inner.config.names.get(id).into_iter().flatten() {
            match name.parse() {
                Ok(address) => profile.ips.push(address),
                Err(_) => profile.dns.push(name.clone()),
            }
        }
        profile
    }

    fn now(&self) -> i64 {
        self.inner.clock.unix_seconds().cast_signed()
    }

    fn ours(&self, id: &SpiffeId) -> Result<(), CaError> {
        if id.trust_domain() == self.trust_domain() {
            return Ok(());
        }
        Err(CaError::OtherDomain { id: id.clone(), ours: self.trust_domain().clone() })
    }
}
