//! The authority's own workloads: services in the same process as the authority need no token and no wire.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tollgate_identity::renewal;
use tollgate_identity::signing::Profile;
use tollgate_identity::source::{Source, SourceFault};
use tollgate_identity::spiffe_id::SpiffeId;
use tollgate_identity::{Credential, FreshKey, Material, TrustBundles, provider};

use super::CertificateAuthority;

/// How often it is looked at whom to believe: a new root must be trusted before it signs, and what is revoked is refused
/// from the next handshake on.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Certificates for one id, straight from the authority.
#[derive(Debug)]
pub struct OwnSource {
    ca: CertificateAuthority,
    id: SpiffeId,
    profile: Profile,
    given: Option<Given>,
}

#[derive(Debug)]
struct Given {
    material: Material,
    renew_at: f64,
}

impl OwnSource {
    /// Certificates for `id`; `profile` names where it can be reached.
    pub fn new(ca: CertificateAuthority, id: SpiffeId, profile: Profile) -> Self {
        Self { ca, id, profile, given: None }
    }

    async fn renew(&mut self) -> anyhow::Result<Material> {
        let key = FreshKey::generate(None)?;
        let certified =
            self.ca.issue(&key.csr_der, &self.id, &self.profile, None, "the authority itself").await?;
        // Who enrols knows no root yet, only the hash of one: so the roots are shown along.
        let chain = std::iter::once(certified.certificate).chain(certified.roots.iter().cloned()).collect();
        let credential = Credential::new(chain, key.private_key(), &provider())?;
        let bundles = TrustBundles::default().with(self.ca.trust_domain().clone(), certified.roots)?;
        let bundles = bundles.with_revocations(self.ca.revocations());
        let material = Material { credential, bundles };
        let leaf = &material.credential.leaf;
        let renew_at = renewal::renew_at(leaf.not_before, leaf.not_after, rand::random());
        self.given = Some(Given { material: material.clone(), renew_at });
        Ok(material)
    }

    /// Waits until there is something new: a certificate that is due, or another set of roots.
    async fn wait(&mut self) -> Option<Material> {
        loop {
            let given = self.given.as_mut()?;
            let left = renewal::until(given.renew_at, self.ca.now());
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
            if let Err(error) = self.ca.reload().await {
                tracing::warn!(%error, "cannot look for new roots");
            }
            if let Err(error) = self.ca.reload_revoked().await {
                tracing::warn!(%error, "cannot look for what is revoked");
            }
            if left <= LOOK_EVERY {
                return None;
            }
            let domain = self.ca.trust_domain().clone();
            let bundle = self.ca.bundle();
            let Ok(bundles) = TrustBundles::default().with(domain, bundle) else { continue };
            let bundles = bundles.with_revocations(self.ca.revocations());
            if bundles != given.material.bundles {
                given.material.bundles = bundles;
                return Some(given.material.clone());
            }
        }
    }
}

impl Source for OwnSource {
    fn name(&self) -> &'static str {
        "built-in authority, same process"
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Material, SourceFault>> {
        Box::pin(async {
            if let Some(material) = self.wait().await {
                return Ok(material);
            }
            self.renew().await.map_err(|error| SourceFault::Unavailable(format!("{error:#}")))
        })
    }
}
