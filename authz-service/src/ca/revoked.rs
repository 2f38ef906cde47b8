//! Which workloads and certificates are not to be believed, as every workload is told.

use std::fmt::Write as _;
use std::sync::Arc;

use tollgate_identity::Revocations;
use tollgate_proto::identity::revocation::What;
use tollgate_proto::identity::{BundleResponse, Revocation};

use super::{CaError, CertificateAuthority};
use crate::store::{RevokedCaller, fingerprint};

/// More of them are not told to workloads; the newest are.
const MOST: u32 = 20_000;

/// What is revoked, as it was read last.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    said: Vec<RevokedCaller>,
    known: Arc<Revocations>,
    /// Names what is said.
    version: String,
}

impl Revoked {
    fn of(said: Vec<RevokedCaller>) -> Self {
        let (mut known, mut text) = (Revocations::default(), String::new());
        for RevokedCaller { workload, serial, until } in &said {
            if let Some(serial) = serial {
                known.serial(serial, *until);
            }
            match workload.as_deref().map(str::parse) {
                Some(Ok(pattern)) => known.workloads(pattern, *until),
                Some(Err(fault)) => tracing::error!(workload, %fault, "a revocation cannot be understood"),
                None => {}
            }
            let _ = write!(text, "{workload:?} {serial:?} {until};");
        }
        Self { said, known: Arc::new(known), version: fingerprint(text.as_bytes()) }
    }
}

impl CertificateAuthority {
    /// Reads what is revoked from the database.
    pub(super) async fn reload_revoked(&self) -> Result<(), CaError> {
        let mut said = self.inner.store.caller_revocations(MOST).await?;
        if said.len() >= MOST as usize {
            tracing::error!(MOST, "more is revoked than workloads are told; the oldest are left out");
        }
        let now = self.now();
        said.retain(|revoked| revoked.until > now);
        if self.inner.revoked.read().said != said {
            *self.inner.revoked.write() = Arc::new(Revoked::of(said));
        }
        Ok(())
    }

    /// What is revoked, for our own handshakes.
    pub(super) fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.inner.revoked.read().known)
    }

    /// Whom to believe, for a workload that knows what `version` was.
    pub fn whom_to_believe(&self, version: &str) -> BundleResponse {
        let revoked = Arc::clone(&*self.inner.revoked.read());
        let roots_der: Vec<Vec<u8>> = self.bundle().iter().map(|root| root.to_vec()).collect();
        let mut named = revoked.version.clone().into_bytes();
        roots_der.iter().for_each(|root| named.extend(fingerprint(root).bytes()));
        let now_version = fingerprint(&named);
        if now_version == version {
            return BundleResponse { version: now_version, ..BundleResponse::default() };
        }
        let revocations = revoked.said.iter().flat_map(|RevokedCaller { workload, serial, until }| {
            let whats = [workload.clone().map(What::Workload), serial.clone().map(What::Serial)];
            whats.into_iter().flatten().map(|what| Revocation { what: Some(what), until: *until })
        });
        BundleResponse { roots_der, revocations: revocations.collect(), version: now_version }
    }
}
