//! TLS by identity: who is at the other end, checked in the handshake, by material that may change between two.
//!
//! Sessions are never resumed where a client shows a certificate: a resumed session would carry the verdict of an
//! older handshake past a revocation or a changed bundle.

mod certificates;
mod channel;
mod client;
mod door;
mod incoming;
mod lifetime;
mod listening;
mod origin;
mod pinned;
mod port;
mod server;

use rustls::pki_types::CertificateDer;
use rustls::{CommonState, SupportedProtocolVersion, version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use certificates::{CertificatesFault, FileRoots, NamedCertificates, ServerCertificate};
pub use channel::GrpcChannel;
pub use client::{client_config, connect};
pub use door::{Clients, Door, DoorFault, DoorTls, Plaintext};
pub use incoming::{Accepted, ConnectionBounds, Peer, incoming};
pub use lifetime::Lifetime;
pub use listening::{Ask, Listening, listening_config};
pub use origin::{Origin, origin_config};
pub use pinned::{bundled_client_config, pinned_client_config};
pub use port::{Callers, PortStream, PortStreams, caller, port};
pub use server::{ServerOptions, server_config};

use crate::bundle::Untrusted;
use crate::certificate::{CertificateFault, Leaf};

/// What a listener asks of whoever connects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mtls {
    /// TLS with a certificate that we trust.
    #[default]
    Strict,
    /// TLS with or without a certificate, or none at all: for the time of moving in.
    Permissive,
    /// No TLS.
    Off,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MinimumVersion {
    /// TLS 1.2, with forward secrecy and authenticated encryption only.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

impl MinimumVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        static FROM_13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
        match self {
            Self::Tls12 => &FROM_12,
            Self::Tls13 => &FROM_13,
        }
    }
}

/// The first byte of a TLS connection (RFC 8446, section 5.1: a handshake record). No HTTP request begins so.
pub const HANDSHAKE_RECORD: u8 = 0x16;

/// What the other end's certificate says, after the handshake has verified it; `None` where it showed none.
pub fn peer(connection: &CommonState) -> Result<Option<Leaf>, CertificateFault> {
    let chain = connection.peer_certificates().unwrap_or_default();
    chain.first().map(|leaf: &CertificateDer<'_>| Leaf::read(leaf)).transpose()
}

/// The alert that fits what is wrong; the words are for our own log.
fn alert(untrusted: &Untrusted) -> rustls::Error {
    use rustls::{CertificateError, Error};

    tracing::info!(peer = tracing::field::Empty, reason = %untrusted, "handshake refused");
    let certificate = match untrusted {
        Untrusted::Nothing => return Error::NoCertificatesPresented,
        Untrusted::Certificate(CertificateFault::Unreadable(_)) => CertificateError::BadEncoding,
        Untrusted::LongChain | Untrusted::Certificate(_) => CertificateError::ApplicationVerificationFailure,
        Untrusted::Revoked { .. } => CertificateError::Revoked,
        Untrusted::TrustDomain(_) => CertificateError::UnknownIssuer,
        Untrusted::Chain { problem, .. } => match problem {
            webpki::Error::CertExpired { .. } => CertificateError::Expired,
            webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
            webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
            webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
            webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
            _ => CertificateError::ApplicationVerificationFailure,
        },
    };
    Error::InvalidCertificate(certificate)
}

/// Signatures within the handshake, by the provider's algorithms.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.identity.provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.identity.provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.identity.provider().signature_verification_algorithms.supported_schemes()
        }
    };
}
use handshake_signatures;
