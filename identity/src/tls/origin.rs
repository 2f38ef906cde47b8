//! The opening end towards servers that are found by name, such as those outside the mesh.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::certificates::FileRoots;
use super::{MinimumVersion, client};
use crate::identity::{Identity, provider};
use crate::shown::Shown;

/// How a server outside is known.
#[derive(Debug)]
pub struct Origin {
    /// Who signs for it.
    pub roots: FileRoots,
    /// Names of which it must show one, beside the one that is asked for.
    pub subject_names: Vec<String>,
    /// Shown to it if it asks who we are.
    pub identity: Option<Identity>,
    /// The oldest version.
    pub minimum: MinimumVersion,
    /// Protocols by ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
}

/// TLS towards such a server; what it is called is said where a connection is opened.
pub fn origin_config(origin: Origin) -> Result<Arc<ClientConfig>, rustls::Error> {
    let Origin { roots, subject_names, identity, minimum, alpn } = origin;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(minimum.versions())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Named { roots, subject_names }));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(client::ours(&identity)),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would carry an older verdict past a change of the roots.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Named {
    roots: FileRoots,
    subject_names: Vec<String>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let servers = &self.roots.verifiers().servers;
        let verified = servers.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        if self.subject_names.is_empty() {
            return Ok(verified);
        }
        let shown = Shown::read(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let known = |name: &String| self.subject_names.contains(name);
        if shown.names.iter().chain(&shown.uris).any(known) {
            return Ok(verified);
        }
        tracing::warn!(peer = tracing::field::Empty, found = ?shown.names, expected = ?self.subject_names, "another server answered than was asked for");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verifiers().servers.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verifiers().servers.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.verifiers().servers.supported_verify_schemes()
    }
}
