//! From a proof to a certificate.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tollgate_identity::certificate::Leaf;
use tollgate_identity::pki_types::CertificateDer;
use tollgate_identity::signing::{Issued, Profile, Request};
use tollgate_identity::spiffe_id::SpiffeId;

use super::join_token::JoinToken;
use super::{CaError, CertificateAuthority, HeldRoot};
use crate::store::{NewCertificate, TokenUse, hex};

/// A workload that got its answer lost on the way may ask again for this long, with the same key.
const RETRY_SECONDS: i64 = 60;

/// By what an id was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A join token.
    JoinToken,
    /// A token of a Kubernetes service account.
    Kubernetes,
    /// The certificate before this one.
    Renewal,
    /// Whoever can write the database: `tollgate ca issue`.
    DataFolder,
}

impl Proof {
    const fn as_str(self) -> &'static str {
        match self {
            Self::JoinToken => "join-token",
            Self::Kubernetes => "kubernetes",
            Self::Renewal => "renewal",
            Self::DataFolder => "data-folder",
        }
    }
}

/// A certificate with the roots to trust.
#[derive(Debug, Clone)]
pub struct Certified {
    /// In DER.
    pub certificate: CertificateDer<'static>,
    /// What it says.
    pub leaf: Leaf,
    /// In DER.
    pub roots: Vec<CertificateDer<'static>>,
}

impl CertificateAuthority {
    /// The first certificate of a workload, for a join token. The token is used up in the transaction that records
    /// the certificate: two that come at once get one certificate, and only if they have the same key.
    pub async fn enrol(&self, csr_der: &[u8], token: &str) -> Result<Certified, CaError> {
        let request = Request::read(csr_der)?;
        let hash = token.parse::<JoinToken>()?.hash();
        let now = self.now();
        let enrolment = self.inner.store.begin_enrolment(&hash).await?.ok_or(CaError::UnknownToken)?;
        let id: SpiffeId = enrolment.spiffe_id.parse().map_err(|_| CaError::UnknownToken)?;
        match &enrolment.used {
            None if now >= enrolment.expires_at => return Err(CaError::ExpiredToken),
            None => {}
            Some(TokenUse { at, key_hash, certificate })
                if *key_hash == hex(&request.key_hash) && now < at.saturating_add(RETRY_SECONDS) =>
            {
                let certificate = STANDARD.decode(certificate).map_err(|_| CaError::UsedToken)?;
                return self.certified(CertificateDer::from(certificate));
            }
            Some(_) => return Err(CaError::UsedToken),
        }
        request.agrees_with(&id)?;
        self.not_revoked(&id, None).await?;
        let signer = self.signer()?;
        let issued = self.sign(&signer, &request, &id, &self.profile(&id), self.inner.config.leaf_life)?;
        let by = enrolment.created_by.clone();
        let record = record(&issued, &request, &signer, (Proof::JoinToken, by), now);
        enrolment.finish(&record).await?;
        self.certified(issued.certificate)
    }

    /// A certificate of the workload that a Kubernetes service-account token is for. The same token may come again: it is
    /// the cluster that says for how long it is good.
    pub async fn enrol_by_kubernetes(&self, csr_der: &[u8], token: &str) -> Result<Certified, CaError> {
        let request = Request::read(csr_der)?;
        let cluster = self.inner.cluster.as_ref().ok_or(CaError::NoCluster)?;
        let id = cluster.workload(token, self.trust_domain()).await?;
        request.agrees_with(&id)?;
        self.not_revoked(&id, None).await?;
        let signer = self.signer()?;
        let issued = self.sign(&signer, &request, &id, &self.profile(&id), self.inner.config.leaf_life)?;
        // The cluster's own audit knows who made the account.
        let record = record(&issued, &request, &signer, (Proof::Kubernetes, String::new()), self.now());
        self.inner.store.put_certificate(&record).await?;
        self.certified(issued.certificate)
    }

    /// The next certificate of a workload that has shown `shown` in its handshake.
    pub async fn renew(&self, csr_der: &[u8], shown: &Leaf) -> Result<Certified, CaError> {
        let request = Request::read(csr_der)?;
        self.ours(&shown.id)?;
        request.agrees_with(&shown.id)?;
        let now = self.now();
        if !shown.holds_at(now) {
            return Err(CaError::NotRenewable("it has ended"));
        }
        self.not_revoked(&shown.id, Some(&shown.serial)).await?;
        let known = self.inner.store.certificate(&shown.serial).await?;
        let known = known.filter(|known| known.spiffe_id == shown.id.as_str());
        let known = known.ok_or(CaError::NotRenewable("it was not signed here"))?;
        let attested_at = known.attested_at;
        let longest = i64::try_from(self.inner.config.attestation.as_secs()).unwrap_or(i64::MAX);
        if now >= attested_at.saturating_add(longest) {
            return Err(CaError::NotRenewable("its attestation is too old; use a new join token"));
        }
        let signer = self.signer()?;
        let profile = self.profile(&shown.id);
        let issued = self.sign(&signer, &request, &shown.id, &profile, self.inner.config.leaf_life)?;
        let record = NewCertificate {
            attested_at,
            ..record(&issued, &request, &signer, (Proof::Renewal, known.issued_by), now)
        };
        self.inner.store.put_certificate(&record).await?;
        self.certified(issued.certificate)
    }

    /// A certificate for whoever can write the database; `by` is remembered.
    pub async fn issue(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        profile: &Profile,
        life: Option<Duration>,
        by: &str,
    ) -> Result<Certified, CaError> {
        let request = Request::read(csr_der)?;
        self.ours(id)?;
        request.agrees_with(id)?;
        self.not_revoked(id, None).await?;
        let signer = self.signer()?;
        let life = life.unwrap_or(self.inner.config.leaf_life).min(self.inner.config.leaf_life);
        let issued = self.sign(&signer, &request, id, profile, life)?;
        let record = record(&issued, &request, &signer, (Proof::DataFolder, by.to_owned()), self.now());
        self.inner.store.put_certificate(&record).await?;
        self.certified(issued.certificate)
    }

    fn sign(
        &self,
        signer: &HeldRoot,
        request: &Request,
        id: &SpiffeId,
        profile: &Profile,
        life: Duration,
    ) -> Result<Issued, CaError> {
        Ok(signer.root.sign(request, id, profile, self.now(), life)?)
    }

    /// Asks the database and not the snapshot: nobody waits for this on a request's path, and it is never behind.
    async fn not_revoked(&self, id: &SpiffeId, serial: Option<&str>) -> Result<(), CaError> {
        match self.inner.store.workload_revocation(id.as_str(), serial).await? {
            Some(name) => Err(CaError::Revoked { id: id.clone(), revocation: name }),
            None => Ok(()),
        }
    }

    fn certified(&self, certificate: CertificateDer<'static>) -> Result<Certified, CaError> {
        let leaf = Leaf::read(&certificate).map_err(tollgate_identity::signing::RootFault::Made)?;
        Ok(Certified { certificate, leaf, roots: self.bundle() })
    }
}

fn record(
    issued: &Issued,
    request: &Request,
    signer: &HeldRoot,
    (proof, issued_by): (Proof, String),
    now: i64,
) -> NewCertificate {
    NewCertificate {
        serial: issued.leaf.serial.clone(),
        spiffe_id: issued.leaf.id.to_string(),
        root: signer.fingerprint.clone(),
        certificate: STANDARD.encode(&issued.certificate),
        key_hash: hex(&request.key_hash),
        proof: proof.as_str(),
        issued_by,
        issued_at: now,
        attested_at: now,
        not_after: issued.leaf.not_after,
    }
}
