//! Certificate signing requests (PKCS#10), of which only the key is believed.

use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData as _, SanType};
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Key;

use crate::certificate::sha256;
use crate::spiffe_id::SpiffeId;

/// Larger requests are refused before they are read.
const MAX_BYTES: usize = 16 * 1024;
/// The smallest RSA key that is signed.
const MIN_RSA_BITS: usize = 2048;
/// The largest: verifying with it is work that others would have to do.
const MAX_RSA_BITS: usize = 4096;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// Too large.
    #[error("the request is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not a request, or not signed with its own key.
    #[error("this is no certificate signing request (PKCS#10, DER) signed with its own key: {0}")]
    Unreadable(String),
    /// A weak or strange key.
    #[error("the key is {0}; use P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    Key(String),
    /// It asks for another identity than was proved.
    #[error("the request names `{found}`, but `{proved}` was proved")]
    OtherId { found: String, proved: SpiffeId },
}

/// A request whose sender has the private key.
#[derive(Debug)]
pub struct Request {
    pub(super) public_key: PublicKey,
    /// SHA-256 of the public key, by which a repeated request is known.
    pub key_hash: [u8; 32],
    uris: Vec<String>,
}

impl Request {
    /// Reads a request in DER and verifies its signature.
    pub fn read(der: &[u8]) -> Result<Self, RequestFault> {
        if der.len() > MAX_BYTES {
            return Err(RequestFault::TooLarge);
        }
        let unreadable = |error: &dyn std::fmt::Display| RequestFault::Unreadable(error.to_string());
        let (rest, parsed) = X509CertificationRequest::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(RequestFault::Unreadable("bytes follow its end".to_owned()));
        }
        let key = &parsed.certification_request_info.subject_pki;
        check_key(&key.parsed().map_err(|error| unreadable(&error))?)?;
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| unreadable(&error))?;
        let spki = request.public_key.subject_public_key_info();
        // The library takes the curve from the signature's algorithm; the key alone says which curve it is on.
        if spki != key.raw {
            return Err(RequestFault::Key("on another elliptic curve than its signature says".to_owned()));
        }
        let uris = request.params.subject_alt_names.into_iter().filter_map(|name| match name {
            SanType::URI(uri) => Some(uri.to_string()),
            _ => None,
        });
        Ok(Self { uris: uris.collect(), key_hash: sha256(&spki), public_key: request.public_key })
    }

    /// Whoever proved one id and asks for another is mistaken, or worse. Asking for none is fine.
    pub fn agrees_with(&self, proved: &SpiffeId) -> Result<(), RequestFault> {
        match self.uris.iter().find(|uri| uri.as_str() != proved.as_str()) {
            Some(found) => Err(RequestFault::OtherId { found: found.clone(), proved: proved.clone() }),
            None => Ok(()),
        }
    }
}

fn check_key(key: &Key<'_>) -> Result<(), RequestFault> {
    const ED25519_BYTES: usize = 32;
    match key {
        Key::RSA(rsa) if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size()) => Ok(()),
        Key::RSA(rsa) => Err(RequestFault::Key(format!("RSA of {} bits", rsa.key_size()))),
        Key::EC(point) if matches!(point.key_size(), 256 | 384) => Ok(()),
        Key::EC(_) => Err(RequestFault::Key("on another elliptic curve".to_owned())),
        Key::Unknown(bytes) if bytes.len() == ED25519_BYTES => Ok(()),
        _ => Err(RequestFault::Key("of an unknown kind".to_owned())),
    }
}
