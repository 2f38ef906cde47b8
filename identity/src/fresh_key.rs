//! A new private key, and the request for a certificate of it.

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::spiffe_id::SpiffeId;

/// A key that nobody has seen yet (ECDSA on P-256).
pub struct FreshKey {
    key: KeyPair,
    /// The certificate signing request (PKCS#10) in DER.
    pub csr_der: Vec<u8>,
}

/// The system gives no randomness, or the id cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key: {0}")]
pub struct KeyFault(#[from] rcgen::Error);

impl FreshKey {
    /// Makes a key and a request, which names `id` if one is given.
    pub fn generate(id: Option<&SpiffeId>) -> Result<Self, KeyFault> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        if let Some(id) = id {
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        }
        let csr_der = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr_der })
    }

    /// The private key, for a handshake.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The private key as PEM, for a file that only its owner can read.
    pub fn private_key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl std::fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshKey").finish_non_exhaustive()
    }
}
