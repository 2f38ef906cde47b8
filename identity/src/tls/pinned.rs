//! The opening end before it has an identity: the authority is known by the hash of its root, or by a file of roots.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::{MinimumVersion, alert, handshake_signatures};
use crate::bundle::{End, TrustBundles};
use crate::certificate::{Leaf, sha256};
use crate::identity::provider;
use crate::spiffe_id::SpiffeId;

/// The path of the id of whoever may sign for a trust domain.
const AUTHORITY_PATH: &str = "/ns/tollgate-system/sa/authz";

/// TLS towards the authority whose root has this SHA-256. We show no certificate: we have none yet.
pub fn pinned_client_config(root: [u8; 32], alpn: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    config(Known::ByHash(root), alpn)
}

/// TLS towards the authority that one of these roots has signed for; it is `authority`, where that is said.
pub fn bundled_client_config(
    roots: Vec<CertificateDer<'static>>,
    authority: Option<SpiffeId>,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    config(Known::ByRoots(roots, authority), alpn)
}

fn config(known: Known, alpn: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(MinimumVersion::Tls13.versions())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { known, identity: Only(provider) }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn;
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// How the authority is known.
#[derive(Debug)]
enum Known {
    /// One of the certificates that it shows has this SHA-256, and has signed for it.
    ByHash([u8; 32]),
    ByRoots(Vec<CertificateDer<'static>>, Option<SpiffeId>),
}

impl Known {
    /// The roots that may have signed, of those that it shows or we have.
    fn roots(&self, shown: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
        match self {
            Self::ByHash(hash) => {
                let root = shown.iter().find(|certificate| sha256(certificate) == *hash);
                root.map(|root| root.clone().into_owned()).into_iter().collect()
            }
            Self::ByRoots(roots, _) => roots.clone(),
        }
    }

    fn is_authority(&self, id: &SpiffeId) -> bool {
        match self {
            Self::ByRoots(_, Some(authority)) => id == authority,
            Self::ByRoots(_, None) | Self::ByHash(_) => id.path() == AUTHORITY_PATH,
        }
    }
}

#[derive(Debug)]
struct Pinned {
    known: Known,
    identity: Only,
}

/// No identity, just the cryptography.
#[derive(Debug)]
struct Only(Arc<CryptoProvider>);

impl Only {
    fn provider(&self) -> &CryptoProvider {
        &self.0
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let not_it = || rustls::Error::from(CertificateError::UnknownIssuer);
        let roots = self.known.roots(shown);
        let id = Leaf::read(leaf).map_err(|fault| alert(&fault.into()))?.id;
        if !self.known.is_authority(&id) {
            tracing::warn!(found = %id, "another workload answered in place of the authority");
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let trusted = TrustBundles::default().with(id.trust_domain().clone(), roots);
        let trusted = trusted.map_err(|_| not_it())?;
        let now = now.as_secs().cast_signed();
        let verified = trusted.verify(leaf, &[], End::Server, now, self.identity.provider());
        verified.map(|_leaf| ServerCertVerified::assertion()).map_err(|untrusted| alert(&untrusted))
    }

    handshake_signatures!();
}
