//! The keys that an issuer signs with.
//!
//! A set is read once, when a snapshot is made, and every key in it is parsed then. Whatever a key
//! says about itself (`use`, `key_ops`, `alg`, curve) binds.

mod absent;
mod address;
mod discovery;
pub mod ending;
mod freshness;
mod jwk;
pub mod refresh;
mod shared;
pub mod source;
mod verifier;

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;
use smallvec::SmallVec;

use super::check::Check;
use super::{Refusal, json};
use crate::x509;
pub use discovery::{document_of, key_url};
pub use freshness::Freshness;
use jwk::Key;
use jwk::Kind;
pub use shared::SharedSecrets;
pub use verifier::Verifier;

/// More keys than this in one set are a mistake.
const MAX_KEYS: usize = 64;
/// More keys than this in one PEM text are a mistake: each may have to be tried.
const MAX_PEM_KEYS: usize = 8;

/// The usable keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    by_id: FxHashMap<Arc<str>, Key>,
    unnamed: Vec<Key>,
    /// Keys that an administrator wrote down without a name; they stand for every `kid`.
    pinned: Vec<Key>,
}

/// A key that a token may have been signed with.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'k> {
    /// What revocations call it.
    pub id: &'k Arc<str>,
    /// The key.
    pub key: &'k Verifier,
}

/// The keys that a token may have been signed with; one, but for keys given as PEM.
pub type Candidates<'k> = SmallVec<[Candidate<'k>; 1]>;

impl KeySet {
    /// Reads a JWK set that is text.
    pub fn parse_text(text: &[u8]) -> Result<Self, String> {
        let members = json::parse_object(text).map_err(|error| format!("not a JWK set: {error}"))?;
        Self::parse(&Value::Object(members))
    }

    /// Reads a JWK set of public keys. Keys that are not for verifying signatures are passed over; a set in which it
    /// is unclear which key is meant, or in which there is a secret, is refused whole.
    pub fn parse(jwks: &Value) -> Result<Self, String> {
        Self::read(jwks, Kind::Public)
    }

    /// Reads a JWK set of secrets; one with any other key in it is refused whole.
    pub fn parse_shared(jwks: &Value) -> Result<Self, String> {
        Self::read(jwks, Kind::Shared)
    }

    fn read(jwks: &Value, kind: Kind) -> Result<Self, String> {
        let keys =
            jwks.get("keys").and_then(Value::as_array).ok_or("not a JWK set: there is no list `keys`")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        let mut set = Self::default();
        let (mut names, mut passed_over) = (FxHashSet::default(), Vec::new());
        for (index, key) in keys.iter().enumerate() {
            let symmetric = key.get("kty").and_then(Value::as_str) == Some("oct");
            if symmetric && kind == Kind::Public {
                return Err(format!("keys[{index}] is symmetric: whoever verifies with it could also sign"));
            }
            if !symmetric && kind == Kind::Shared {
                return Err(format!("keys[{index}] is no secret, and the two kinds do not mix"));
            }
            if key.get("d").is_some() {
                return Err(format!("keys[{index}] is a private key; give its public part only"));
            }
            // Also where one of the two cannot be used: the issuer may mean that one.
            let kid = key.get("kid").and_then(Value::as_str).filter(|_| is_for_signatures(key));
            if let Some(kid) = kid.filter(|kid| !names.insert(*kid)) {
                return Err(format!("two keys have the kid `{kid}`"));
            }
            match Key::parse(key, kind) {
                Err(why) => passed_over.push(format!("keys[{index}]: {why}")),
                Ok((false, key)) => set.unnamed.push(key),
                Ok((true, key)) => {
                    set.by_id.insert(key.id.clone(), key);
                }
            }
        }
        if set.is_empty() {
            return Err(format!(
                "no usable key{}{}",
                if keys.is_empty() { "" } else { ": " },
                passed_over.join("; ")
            ));
        }
        Ok(set)
    }

    /// Reads public keys or certificates in PEM. They have no `kid`, so they stand for whatever a token names; a key
    /// in a certificate verifies nothing outside the certificate's dates.
    pub fn parse_pem(text: &str) -> Result<Self, String> {
        let keys = x509::keys_of_pem(text)?;
        if keys.len() > MAX_PEM_KEYS {
            return Err(format!("more than {MAX_PEM_KEYS} keys"));
        }
        let mut pinned = Vec::with_capacity(keys.len());
        for (index, pem) in keys.into_iter().enumerate() {
            let (_, mut key) = Key::parse(&pem.key.to_jwk(), Kind::Public)
                .map_err(|why| format!("block {}: {why}", index + 1))?;
            key.valid = pem.valid;
            pinned.push(key);
        }
        Ok(Self { pinned, ..Self::default() })
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.unnamed.is_empty() && self.pinned.is_empty()
    }

    /// Whether there is a key of this id.
    pub fn has(&self, kid: &str) -> bool {
        self.by_id.contains_key(kid)
    }

    /// The last moment at which every key may be used, where they came in certificates.
    pub fn valid_until(&self) -> Option<i64> {
        self.pinned.iter().filter_map(|key| key.valid).map(|(_, until)| until).min()
    }

    /// The keys for a token's header. A token that names no key means the only one that fits.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm, now: i64) -> Result<Candidates<'_>, Refusal> {
        if !self.pinned.is_empty() {
            return self.find_pinned(algorithm, now);
        }
        if let Some(kid) = kid {
            let found = self.by_id.get(kid).ok_or_else(|| unknown("no key of the issuer has this kid"))?;
            let key = found.for_algorithm(algorithm).ok_or_else(|| {
                Refusal::new(Check::KeyAlgorithm, format!("the key is not for {algorithm:?}"))
            })?;
            return Ok(SmallVec::from_buf([Candidate { id: &found.id, key }]));
        }
        let mut fitting = (self.by_id.values().chain(&self.unnamed))
            .filter_map(|found| Some(Candidate { id: &found.id, key: found.for_algorithm(algorithm)? }));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(SmallVec::from_buf([only])),
            (None, _) => Err(unknown("no key of the issuer is for this algorithm")),
            (Some(_), Some(_)) => Err(unknown("kid is missing and several keys could be meant")),
        }
    }

    fn find_pinned(&self, algorithm: Algorithm, now: i64) -> Result<Candidates<'_>, Refusal> {
        let fitting = self.pinned.iter().filter(|key| key.for_algorithm(algorithm).is_some());
        let in_time = |key: &&Key| key.valid.is_none_or(|(from, until)| (from..=until).contains(&now));
        if fitting.clone().next().is_none() {
            return Err(Refusal::new(Check::KeyAlgorithm, format!("no key is for {algorithm:?}")));
        }
        let found: Candidates<'_> = fitting
            .filter(in_time)
            .filter_map(|key| Some(Candidate { id: &key.id, key: key.for_algorithm(algorithm)? }))
            .collect();
        if found.is_empty() {
            return Err(Refusal::new(Check::KeyValid, "the certificate that holds the key is not valid now"));
        }
        Ok(found)
    }
}

/// Some issuers give one name to a pair of keys, one to sign and one to encrypt.
fn is_for_signatures(jwk: &Value) -> bool {
    jwk.get("use").is_none_or(|purpose| purpose == "sig")
}

fn unknown(detail: &str) -> Refusal {
    Refusal::new(Check::Key, detail)
}
