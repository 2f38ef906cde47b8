//! Whose signature counts for which trust domain.
//!
//! A certificate is believed only by the roots of the trust domain that its own id names: a partner whose root we
//! hold for `partner.example` can make no identity of ours. An alias is another name of a domain, so that a mesh can
//! be renamed while workloads still carry both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{CertificateFault, Leaf};
use crate::revoked::Revocations;
use crate::spiffe_id::{IdPattern, SpiffeId, TrustDomain};

/// The longest chain that a peer may send, its own certificate among them.
const MAX_CHAIN: usize = 8;

/// Roots by trust domain.
#[derive(Clone, Default, PartialEq)]
pub struct TrustBundles {
    roots: BTreeMap<TrustDomain, Roots>,
    aliases: BTreeMap<TrustDomain, TrustDomain>,
    revoked: Arc<Revocations>,
}

#[derive(Clone, PartialEq)]
struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleFault {
    /// A bundle that trusts nobody is surely a mistake.
    #[error("the bundle of trust domain `{0}` holds no certificate")]
    Empty(TrustDomain),
    /// Not a certificate.
    #[error("certificate {index} of the bundle of trust domain `{domain}` cannot be a root: {problem}")]
    Root { domain: TrustDomain, index: usize, problem: webpki::Error },
    /// Another name of something unknown.
    #[error("`{alias}` is an alias of trust domain `{domain}`, which has no bundle")]
    AliasOfNothing { alias: TrustDomain, domain: TrustDomain },
    /// Two meanings of one name.
    #[error("`{0}` is both a trust domain with a bundle and an alias")]
    AliasOfItself(TrustDomain),
}

/// Why a peer is not who it says.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// No certificate.
    #[error("the peer showed no certificate")]
    Nothing,
    /// More of them than anybody needs.
    #[error("the peer showed more than {MAX_CHAIN} certificates")]
    LongChain,
    /// A certificate that names no workload.
    #[error("the peer's certificate {0}")]
    Certificate(#[from] CertificateFault),
    /// Nobody we know speaks for it.
    #[error("there is no bundle for trust domain `{0}`")]
    TrustDomain(TrustDomain),
    /// It was believed once.
    #[error("the certificate of {id} with serial number {serial} is revoked")]
    Revoked { id: SpiffeId, serial: String },
    /// Nobody we trust has signed it, or not for this use, or not for now.
    #[error("the certificate of {id} is not valid: {problem}")]
    Chain { id: SpiffeId, problem: webpki::Error },
}

/// For which end of a connection a certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who accepted it.
    Server,
    /// Who opened it.
    Client,
}

impl TrustBundles {
    /// Adds (or replaces) the roots of a trust domain.
    pub fn with(
        mut self,
        domain: TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleFault> {
        if certificates.is_empty() {
            return Err(BundleFault::Empty(domain));
        }
        let mut anchors = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(certificate)
                .map_err(|problem| BundleFault::Root { domain: domain.clone(), index: index + 1, problem })?;
            anchors.push(anchor.to_owned());
        }
        self.roots.insert(domain, Roots { certificates, anchors });
        Ok(self)
    }

    /// Says that ids of `alias` mean the same workloads of `domain`, and are signed by the same roots.
    pub fn with_alias(mut self, alias: TrustDomain, domain: TrustDomain) -> Result<Self, BundleFault> {
        if self.roots.contains_key(&alias) {
            return Err(BundleFault::AliasOfItself(alias));
        }
        if !self.roots.contains_key(&domain) {
            return Err(BundleFault::AliasOfNothing { alias, domain });
        }
        self.aliases.insert(alias, domain);
        Ok(self)
    }

    /// Says which certificates are not to be believed any more, in place of what was said before.
    #[must_use]
    pub fn with_revocations(mut self, revoked: Arc<Revocations>) -> Self {
        self.revoked = revoked;
        self
    }

    /// Reads a peer's chain and believes it, or says why not. The id is by its domain's own name, not by an alias.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        end: End,
        now: i64,
        provider: &CryptoProvider,
    ) -> Result<Leaf, Untrusted> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(Untrusted::LongChain);
        }
        let mut read = Leaf::read(leaf)?;
        let said = read.id.trust_domain();
        let domain = self.aliases.get(said).unwrap_or(said);
        let roots = self.roots.get(domain).ok_or_else(|| Untrusted::TrustDomain(said.clone()))?;
        let wrong = |problem| Untrusted::Chain { id: read.id.clone(), problem };
        let usage = match end {
            End::Server => KeyUsage::server_auth(),
            End::Client => KeyUsage::client_auth(),
        };
        let (seconds, now) =
            (now, UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or(0))));
        EndEntityCert::try_from(leaf)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        provider.signature_verification_algorithms.all,
                        &roots.anchors,
                        intermediates,
                        now,
                        usage,
                        None,
                        None,
                    )
                    .map(|_path| ())
            })
            .map_err(wrong)?;
        if domain != said {
            read.id = read.id.within(domain);
        }
        if self.revoked.include(&read, seconds) {
            return Err(Untrusted::Revoked { id: read.id, serial: read.serial });
        }
        Ok(read)
    }

    /// An id by its trust domain's own name, not by an alias.
    pub fn canonical(&self, id: &SpiffeId) -> SpiffeId {
        self.aliases.get(id.trust_domain()).map_or_else(|| id.clone(), |domain| id.within(domain))
    }

    /// Whether a workload is one of `pattern`, which may call its trust domain by an alias. `id` is by the domain's own
    /// name.
    pub fn matches(&self, pattern: &IdPattern, id: &SpiffeId) -> bool {
        match self.aliases.get(pattern.trust_domain()) {
            Some(domain) => pattern.matches_within(domain, id),
            None => pattern.matches(id),
        }
    }

    /// A workload by the other names of its trust domain.
    pub fn other_names(&self, id: &SpiffeId) -> impl Iterator<Item = SpiffeId> {
        let of_its_domain = |(_, domain): &(&TrustDomain, &TrustDomain)| *domain == id.trust_domain();
        self.aliases.iter().filter(of_its_domain).map(|(alias, _)| id.within(alias))
    }

    /// The trust domains that have roots, with how many.
    pub fn domains(&self) -> impl Iterator<Item = (&TrustDomain, usize)> {
        self.roots.iter().map(|(domain, roots)| (domain, roots.certificates.len()))
    }

    /// The roots of a trust domain.
    pub fn roots(&self, domain: &TrustDomain) -> &[CertificateDer<'static>] {
        self.roots.get(domain).map_or(&[], |roots| &roots.certificates)
    }
}

impl fmt::Debug for TrustBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.domains()).finish()
    }
}
