//! The opening end before it trusts anybody: the authority is known by the hash of its root.

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

/// The path of the id of whoever may sign for a trust domain.
const AUTHORITY_PATH: &str = "/ns/tollgate-system/sa/authz";

/// TLS towards the authority whose root has this SHA-256. We show no certificate: we have none yet.
pub fn pinned_client_config(root: [u8; 32], alpn: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(MinimumVersion::Tls13.versions())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { root, identity: Only(provider) }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn;
    config.enable_sni = false;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Pinned {
    root: [u8; 32],
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
        let root = shown.iter().find(|certificate| sha256(certificate) == self.root).ok_or_else(not_it)?;
        let id = Leaf::read(leaf).map_err(|fault| alert(&fault.into()))?.id;
        if id.path() != AUTHORITY_PATH {
            tracing::warn!(found = %id, "another workload answered in place of the authority");
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let trusted =
            TrustBundles::default().with(id.trust_domain().clone(), vec![root.clone().into_owned()]);
        let trusted = trusted.map_err(|_| not_it())?;
        let now = now.as_secs().cast_signed();
        let verified = trusted.verify(leaf, &[], End::Server, now, self.identity.provider());
        verified.map(|_leaf| ServerCertVerified::assertion()).map_err(|untrusted| alert(&untrusted))
    }

    handshake_signatures!();
}
