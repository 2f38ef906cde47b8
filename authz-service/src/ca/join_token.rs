//! Join tokens: what a workload shows once to get its first certificate.
//!
//! ```text
//! tgj_<secret>.<SHA-256 of the signing root>
//! ```
//!
//! The secret proves the workload to us; the hash proves us to the workload, which knows no root yet.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tollgate_identity::spiffe_id::SpiffeId;

use super::{CaError, CertificateAuthority};
use crate::store::{NewJoinToken, SecretHash, hash_secret};

const PREFIX: &str = "tgj_";
/// How long a token waits to be used.
const TOKEN_SECONDS: i64 = 600;

/// A join token, in the open: it is shown once and kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    /// SHA-256 of the root that signed when the token was made.
    pub root: [u8; 32],
}

impl JoinToken {
    fn new(root: &[u8]) -> Self {
        let bits: [u8; 32] = rand::random();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, root).as_ref());
        Self { secret: URL_SAFE_NO_PAD.encode(bits), root: hash }
    }

    /// As it is kept.
    pub(super) fn hash(&self) -> SecretHash {
        hash_secret(&self.secret)
    }

    /// The whole token.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}.{}", self.secret, URL_SAFE_NO_PAD.encode(self.root))
    }
}

impl FromStr for JoinToken {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(CaError::UnknownToken)?;
        let (secret, root) = rest.split_once('.').ok_or(CaError::UnknownToken)?;
        let root = URL_SAFE_NO_PAD.decode(root).ok().and_then(|root| root.try_into().ok());
        Ok(Self { secret: secret.to_owned(), root: root.ok_or(CaError::UnknownToken)? })
    }
}

/// Never shows itself by accident.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken([redacted])")
    }
}

impl CertificateAuthority {
    /// Makes a token with which one workload can get its first certificate as `id`, within ten minutes.
    pub async fn join_token(&self, id: &SpiffeId, by: &str) -> Result<JoinToken, CaError> {
        self.ours(id)?;
        let token = JoinToken::new(self.signer()?.root.certificate());
        let (hash, expires_at) = (token.hash(), self.now() + TOKEN_SECONDS);
        let new = NewJoinToken { hash, spiffe_id: id.to_string(), expires_at, created_by: by.to_owned() };
        self.inner.store.put_join_token(&new).await?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_written_and_never_shows_itself() {
        let token = JoinToken::new(b"root");
        let text = token.expose();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret));
        for wrong in ["", "tgj_", "tgj_abc", "tgj_abc.def", &text[1..], &text[..text.len() - 1]] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
