//! The authority's roots: the first, the next, and who signs now.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tollgate_identity::pki_types::CertificateDer;
use tollgate_identity::signing::{Reign, Root, Succession, succession};

use super::{CaError, CertificateAuthority, HeldRoot};
use crate::store::{NewRoot, StoreError, fingerprint};

impl CertificateAuthority {
    /// Reads the roots from the database, where another replica may have put a new one.
    pub async fn reload(&self) -> Result<(), CaError> {
        let inner = &*self.inner;
        let mut held = Vec::new();
        for stored in inner.store.ca_roots().await? {
            let bad = |problem: String| StoreError::BadRow {
                what: format!("ca_roots {}", stored.fingerprint),
                problem,
            };
            let decode = |text: &str| STANDARD.decode(text).map_err(|error| bad(error.to_string()));
            let certificate = CertificateDer::from(decode(&stored.certificate)?);
            let key = inner.wrapping.unseal(&decode(&stored.sealed_key)?, &certificate)?;
            held.push(Arc::new(HeldRoot {
                fingerprint: stored.fingerprint.clone(),
                takes_over: stored.takes_over,
                not_after: stored.not_after,
                root: Root::restore(certificate, &key)?,
            }));
        }
        *inner.roots.write() = held;
        Ok(())
    }

    /// Makes the first root, which signs at once. Of two replicas that try, one does.
    pub(super) async fn found(&self) -> Result<(), CaError> {
        let first = self.make_root(self.now(), "first start")?;
        self.inner.store.put_ca_root(&first, true).await?;
        self.reload().await
    }

    /// Makes the next root: trusted from now on, signing after the overlap. Answers when it takes over.
    pub async fn rotate(&self, by: &str) -> Result<i64, CaError> {
        let overlap = i64::try_from(self.inner.config.overlap.as_secs()).unwrap_or(i64::MAX);
        let next = self.make_root(self.now().saturating_add(overlap), by)?;
        self.inner.store.put_ca_root(&next, false).await?;
        self.reload().await?;
        Ok(next.takes_over)
    }

    fn make_root(&self, takes_over: i64, by: &str) -> Result<NewRoot, CaError> {
        let inner = &*self.inner;
        let (now, life) = (self.now(), inner.config.root_life);
        let root = Root::generate(&inner.config.trust_domain, now, life)?;
        let sealed = inner.wrapping.seal(&root.key(), root.certificate())?;
        Ok(NewRoot {
            fingerprint: fingerprint(root.certificate()),
            certificate: STANDARD.encode(root.certificate()),
            sealed_key: STANDARD.encode(sealed),
            takes_over,
            not_after: now.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX)),
            created_by: by.to_owned(),
        })
    }

    /// The root that signs now.
    pub(super) fn signer(&self) -> Result<Arc<HeldRoot>, CaError> {
        let roots = self.inner.roots.read();
        let signer = self.state(&roots).signer;
        signer
            .map(|index| Arc::clone(&roots[index]))
            .ok_or_else(|| CaError::NoRoot(self.trust_domain().clone()))
    }

    /// The roots to trust now, in DER.
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        let roots = self.inner.roots.read();
        let trusted = self.state(&roots).trusted;
        trusted.into_iter().map(|index| roots[index].root.certificate().clone()).collect()
    }

    fn state(&self, roots: &[Arc<HeldRoot>]) -> Succession {
        let reigns: Vec<Reign> = (roots.iter())
            .map(|held| Reign { takes_over: held.takes_over, not_after: held.not_after })
            .collect();
        succession(&reigns, self.inner.config.leaf_life, self.now())
    }
}
