//! What checks a signature: a key that was read once, with the algorithm that it is used with.
//!
//! Public keys are `aws_lc_rs`'s, because `jsonwebtoken` reads a key anew for every signature.

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use smallvec::SmallVec;

/// A key for each algorithm that it may be used with.
pub(super) type Verifiers = SmallVec<[(Algorithm, Verifier); 1]>;

/// A key and its algorithm.
pub enum Verifier {
    /// Of an issuer with a key pair.
    Public(ParsedPublicKey),
    /// Of one with whom a secret is shared.
    Shared(Algorithm, DecodingKey),
}

impl Verifier {
    /// Whether `signature`, in base64url, is one of `message`.
    pub fn accepts(&self, message: &[u8], signature: &str) -> bool {
        match self {
            Self::Public(key) => {
                let signature = URL_SAFE_NO_PAD.decode(signature);
                signature.is_ok_and(|signature| key.verify_sig(message, &signature).is_ok())
            }
            Self::Shared(algorithm, key) => {
                matches!(jsonwebtoken::crypto::verify(signature, message, key, *algorithm), Ok(true))
            }
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Public(_)) { "Public" } else { "Shared" })
    }
}
