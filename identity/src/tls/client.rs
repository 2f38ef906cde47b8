//! The opening end.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{MinimumVersion, alert, handshake_signatures};
use crate::bundle::End;
use crate::identity::Identity;
use crate::spiffe_id::IdPattern;

/// mTLS towards workloads. Whoever answers must be one of `expected`; with none of them nobody is.
pub fn client_config(
    identity: &Identity,
    expected: Vec<IdPattern>,
    minimum: MinimumVersion,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let servers = Arc::new(Servers { identity: identity.clone(), expected });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(identity.provider()))
        .with_protocol_versions(minimum.versions())?
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(ours(identity));
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn;
    // A workload is known by its id and not by a name that was looked up somewhere.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Opens a TLS connection to `address` (`host:port`). Who answers is checked by `config`, not by the address.
pub async fn connect(config: Arc<ClientConfig>, address: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    TlsConnector::from(config).connect(name, stream).await
}

/// As [`connect`], to a server that is asked for by its name.
pub(super) async fn connect_to(
    config: Arc<ClientConfig>,
    address: &str,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Shows our own certificate, the one that is in force then.
pub(super) fn ours(identity: &Identity) -> Arc<dyn ResolvesClientCert> {
    Arc::new(Ours(identity.clone()))
}

#[derive(Debug)]
struct Ours(Identity);

impl ResolvesClientCert for Ours {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.material().credential.certified()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Servers {
    identity: Identity,
    expected: Vec<IdPattern>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let material = self.identity.material();
        let now = now.as_secs().cast_signed();
        let peer = material
            .bundles
            .verify(leaf, intermediates, End::Server, now, self.identity.provider())
            .map_err(|untrusted| alert(&untrusted))?;
        if self.expected.iter().any(|pattern| material.bundles.matches(pattern, &peer.id)) {
            return Ok(ServerCertVerified::assertion());
        }
        tracing::warn!(peer = tracing::field::Empty, found = %peer.id, expected = ?self.expected, "another workload answered than was asked for");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    handshake_signatures!();
}
