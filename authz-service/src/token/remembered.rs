//! Tokens whose signature was verified before: the same bytes need it no second time.
//!
//! What is remembered is that one issuer, as it is written, signed one token with one set of keys. Whether it holds now,
//! for this service and for whoever shows it, is asked again every time, and so is every revocation. A new key set or a
//! change to the issuer makes another of them, and what was verified with the old one counts no more.
//!
//! ```text
//! SHA-256 of the token ──> shard ─┬─> young   what is found among the old moves to the young; when these are full
//!                                 └─> old     they become the old, and the old are forgotten
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use super::keys::KeySet;
use super::{Issuer, VerifiedToken};

/// How many locks share the work.
const SHARDS: usize = 16;
/// So many tokens are remembered at most.
const MAX_TOKENS: usize = 65_536;
/// So much memory they take at most, by a count that is rather too high.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What the allocator and the table take beside, and the texts that a token has one of.
const OTHER_BYTES: usize = 512;

/// A token by its bytes: nobody can make another one with the same digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl TokenDigest {
    /// Of a token as it was presented.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// A verification that went well.
#[derive(Debug, Clone)]
pub struct Verification {
    /// What the token says.
    pub token: Arc<VerifiedToken>,
    /// By whose word. Held, so that no other issuer can come to lie at its address.
    pub(super) issuer: Arc<Issuer>,
    /// With which keys.
    pub(super) keys: Arc<KeySet>,
}

/// Verifications of late, within bounds.
#[derive(Debug, Default)]
pub struct Remembered {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    // A digest is as good as random already.
    tokens: HashMap<TokenDigest, Verification, FxBuildHasher>,
    bytes: usize,
}

impl Remembered {
    /// The verification of the token with this digest.
    pub fn get(&self, digest: &TokenDigest) -> Option<Verification> {
        let mut shard = self.shard(digest).lock();
        if let Some(known) = shard.young.tokens.get(digest) {
            return Some(known.clone());
        }
        let known = shard.old.tokens.get(digest)?.clone();
        shard.keep(*digest, known.clone());
        Some(known)
    }

    /// Remembers a verification.
    pub fn keep(&self, digest: TokenDigest, verification: Verification) {
        self.shard(&digest).lock().keep(digest, verification);
    }

    /// How many tokens are remembered, and how many bytes they are counted as.
    pub fn held(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| {
            let Shard { young, old } = &*shard.lock();
            (young.tokens.len() + old.tokens.len(), young.bytes + old.bytes)
        });
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }

    fn shard(&self, digest: &TokenDigest) -> &Mutex<Shard> {
        &self.shards[usize::from(digest.0[digest::SHA256_OUTPUT_LEN - 1]) % SHARDS]
    }
}

impl Shard {
    fn keep(&mut self, digest: TokenDigest, verification: Verification) {
        // Both generations together stay within a shard's share.
        const TOKENS: usize = MAX_TOKENS / SHARDS / 2;
        const BYTES: usize = MAX_BYTES / SHARDS / 2;
        let bytes = weight(&verification.token);
        if bytes > BYTES {
            return;
        }
        if self.young.tokens.len() >= TOKENS || self.young.bytes + bytes > BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        if let Some(before) = self.young.tokens.insert(digest, verification) {
            self.young.bytes -= weight(&before.token);
        }
        self.young.bytes += bytes;
    }
}

/// What a token takes: its claims as they were written and taken apart, and what was read out of them.
fn weight(token: &VerifiedToken) -> usize {
    let texts = [&token.scopes, &token.groups, &token.audience].into_iter().flatten();
    let read: usize = texts.map(size_of_val).sum();
    size_of::<VerifiedToken>() + size_of::<Verification>() + OTHER_BYTES + read + token.claims.weight()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::spec::IssuerSpec;
    use crate::token::ClaimSet;
    use crate::token::json::parse_members;

    fn verification(subject: &str, claim: &str) -> Verification {
        let spec: IssuerSpec =
            serde_json::from_value(json!({"name": "i", "issuer": "https://i", "jwks_url": "https://i/keys"}))
                .unwrap();
        let mut token = VerifiedToken::of_subject("i", subject);
        let claims = json!({"claim": claim}).to_string();
        token.claims = ClaimSet::of(claims.as_bytes(), &parse_members(claims.as_bytes()).unwrap());
        let issuer = Arc::new(Issuer::from_spec(&spec).unwrap());
        Verification { token: Arc::new(token), issuer, keys: Arc::default() }
    }

    #[test]
    fn what_is_used_stays_and_the_bounds_hold() {
        let remembered = Remembered::default();
        let often = TokenDigest::of("often");
        let small = verification("often", "");
        remembered.keep(often, small.clone());
        for n in 0..2 * MAX_TOKENS {
            remembered.keep(TokenDigest::of(&n.to_string()), small.clone());
            assert!(n % 1000 > 0 || remembered.get(&often).is_some(), "lost after {n}");
        }
        let (tokens, bytes) = remembered.held();
        assert!(tokens <= MAX_TOKENS && bytes <= MAX_BYTES, "{tokens} tokens, {bytes} bytes");
        assert!(remembered.get(&TokenDigest::of("0")).is_none(), "what nobody asks for is forgotten");
    }

    #[test]
    fn large_tokens_fill_it_by_their_bytes() {
        let remembered = Remembered::default();
        let large = verification("large", &"x".repeat(60_000));
        for n in 0..4000 {
            remembered.keep(TokenDigest::of(&n.to_string()), large.clone());
        }
        let (tokens, bytes) = remembered.held();
        assert!(tokens > 0 && bytes <= MAX_BYTES, "{tokens} tokens, {bytes} bytes");
    }
}
