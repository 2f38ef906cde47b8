//! The accepting end.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::{MinimumVersion, Mtls, alert, handshake_signatures};
use crate::bundle::End;
use crate::identity::Identity;

/// How a listener speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// What it asks of clients. `off` is the listener's own matter and means `permissive` here.
    pub mtls: Mtls,
    /// The oldest version it speaks.
    pub minimum: MinimumVersion,
    /// Protocols by ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
}

/// TLS for a listener. What identity brings later is in force at the next handshake.
pub fn server_config(
    identity: &Identity,
    options: &ServerOptions,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let clients = workloads(identity, options.mtls == Mtls::Strict);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(identity.provider()))
        .with_protocol_versions(options.minimum.versions())?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(Ours(identity.clone())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols.clone_from(&options.alpn);
    Ok(Arc::new(config))
}

/// Believes the workloads of our trust domains.
pub(super) fn workloads(identity: &Identity, required: bool) -> Arc<dyn ClientCertVerifier> {
    Arc::new(Clients { identity: identity.clone(), required })
}

#[derive(Debug)]
struct Ours(Identity);

impl ResolvesServerCert for Ours {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.material().credential.certified()))
    }
}

#[derive(Debug)]
struct Clients {
    identity: Identity,
    required: bool,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: the roots change, and a client that has several certificates chooses by its own rules.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let material = self.identity.material();
        let now = now.as_secs().cast_signed();
        let verified =
            material.bundles.verify(leaf, intermediates, End::Client, now, self.identity.provider());
        verified.map(|_leaf| ClientCertVerified::assertion()).map_err(|untrusted| alert(&untrusted))
    }

    handshake_signatures!();
}
