//! The accepting end of a port that may be met by others than workloads: browsers, partners, a company's own clients.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::certificates::{FileRoots, NamedCertificates};
use super::{MinimumVersion, server};
use crate::identity::{Identity, provider};
use crate::shown::Shown;

/// What a listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// No certificate.
    Nothing,
    /// One, if they have one.
    Offer,
    /// One without which there is no connection.
    Certificate,
}

/// Which certificate a listener shows, and whose it believes.
#[derive(Debug)]
pub struct Listening {
    /// Shown where no other certificate fits; its bundles are believed unless `client_roots` are given.
    pub identity: Option<Identity>,
    /// Shown to clients that ask for their names.
    pub certificates: NamedCertificates,
    /// Who signs for clients, instead of our trust domains.
    pub client_roots: Option<FileRoots>,
    /// What is asked of clients.
    pub ask: Ask,
    /// The oldest version.
    pub minimum: MinimumVersion,
    /// Protocols by ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
}

/// TLS for such a listener. What files and identity bring later is in force at the next handshake.
pub fn listening_config(listening: Listening) -> Result<Arc<ServerConfig>, rustls::Error> {
    let Listening { identity, certificates, client_roots, ask, minimum, alpn } = listening;
    let believed = believed(ask, client_roots, identity.as_ref())?;
    config(ByName { identity, certificates }, believed, minimum, alpn)
}

/// As [`listening_config`], for a port whose own certificates, where it has any, are for all of its clients: then
/// `identity` says only whose certificates to believe.
pub(super) fn door_config(listening: Listening) -> Result<Arc<ServerConfig>, rustls::Error> {
    let Listening { identity, certificates, client_roots, ask, minimum, alpn } = listening;
    let believed = believed(ask, client_roots, identity.as_ref())?;
    let shown = identity.filter(|_| certificates.first().is_none());
    config(ByName { identity: shown, certificates }, believed, minimum, alpn)
}

/// Who says which certificates of clients are good; nobody, where none is asked for.
fn believed(
    ask: Ask,
    client_roots: Option<FileRoots>,
    identity: Option<&Identity>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, rustls::Error> {
    let required = ask == Ask::Certificate;
    match (ask, client_roots, identity) {
        (Ask::Nothing, _, _) => Ok(None),
        (_, Some(roots), _) => Ok(Some(Arc::new(Clients { roots, required }))),
        (_, None, Some(identity)) => Ok(Some(server::workloads(identity, required))),
        (_, None, None) => Err(rustls::Error::General("nobody says whose clients to believe".to_owned())),
    }
}

fn config(
    shown: ByName,
    believed: Option<Arc<dyn ClientCertVerifier>>,
    minimum: MinimumVersion,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(minimum.versions())?;
    let (asks, shown) = (believed.is_some(), Arc::new(shown));
    let mut config = match believed {
        Some(verifier) => builder.with_client_cert_verifier(verifier).with_cert_resolver(shown),
        None => builder.with_no_client_auth().with_cert_resolver(shown),
    };
    if asks {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct ByName {
    identity: Option<Identity>,
    certificates: NamedCertificates,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = || self.identity.as_ref().map(|own| Arc::clone(own.material().credential.certified()));
        self.certificates.resolve(hello.server_name()).or_else(own).or_else(|| self.certificates.first())
    }
}

/// Clients that somebody else signs for. None of them is a workload: a company's authority can make no identity of
/// ours, and a certificate that claims one is refused.
#[derive(Debug)]
struct Clients {
    roots: FileRoots,
    required: bool,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.roots.verifiers().clients.verify_client_cert(leaf, intermediates, now)?;
        match Shown::read(leaf) {
            Ok(shown) if !shown.claims_an_id() => Ok(verified),
            Ok(shown) => {
                tracing::warn!(peer = tracing::field::Empty, subject = shown.subject, uris = ?shown.uris, "handshake refused: a client CA signed a workload's id");
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verifiers().clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verifiers().clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.verifiers().clients.supported_verify_schemes()
    }
}
