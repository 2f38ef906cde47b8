//! Our own certificate with its key: what a handshake is signed with.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::certificate::{CertificateFault, Leaf};

/// A certificate chain, its key, and what it says. The key can be used but not read.
#[derive(Clone)]
pub struct Credential {
    /// What the certificate says.
    pub leaf: Leaf,
    certified: Arc<CertifiedKey>,
}

/// Why a certificate and a key are no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFault {
    /// An empty chain.
    #[error("there is no certificate")]
    Nothing,
    /// The certificate names no workload.
    #[error("our certificate {0}")]
    Certificate(#[from] CertificateFault),
    /// A kind of key that we cannot sign with.
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    /// A rotation that is half written looks like this.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

impl Credential {
    /// Puts a chain (our own certificate first) and its key together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, CredentialFault> {
        let leaf = Leaf::read(chain.first().ok_or(CredentialFault::Nothing)?)?;
        let key = provider.key_provider.load_private_key(key).map_err(CredentialFault::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CredentialFault::Mismatch)?;
        Ok(Self { leaf, certified: Arc::new(certified) })
    }

    /// For rustls.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}
