//! The keys that an issuer signs with.
//!
//! A set is read once, when a snapshot is made, and every key in it is parsed then. Whatever a key
//! says about itself (`use`, `key_ops`, `alg`, curve) binds.

mod jwk;
pub mod refresh;
pub mod source;

use jsonwebtoken::{Algorithm, DecodingKey};
use rustc_hash::FxHashMap;
use serde_json::Value;
use tollgate_proto::Reason;

use super::{Refusal, json};
use jwk::Key;

/// More keys than this in one set are a mistake.
const MAX_KEYS: usize = 64;

/// The usable keys of a JWK set.
#[derive(Debug, Default)]
pub struct KeySet {
    by_id: FxHashMap<Box<str>, Key>,
    unnamed: Vec<Key>,
}

impl KeySet {
    /// Reads a JWK set that is text.
    pub fn parse_text(text: &[u8]) -> Result<Self, String> {
        let members = json::parse_object(text).map_err(|error| format!("not a JWK set: {error}"))?;
        Self::parse(&Value::Object(members))
    }

    /// Reads a JWK set. Keys that are not for verifying signatures are passed over; a set in which it is
    /// unclear which key is meant, or in which there is a secret, is refused whole.
    pub fn parse(jwks: &Value) -> Result<Self, String> {
        let keys =
            jwks.get("keys").and_then(Value::as_array).ok_or("not a JWK set: there is no list `keys`")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        let mut set = Self::default();
        let mut passed_over = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            if key.get("kty").and_then(Value::as_str) == Some("oct") {
                return Err(format!("keys[{index}] is symmetric: whoever verifies with it could also sign"));
            }
            if key.get("d").is_some() {
                return Err(format!("keys[{index}] is a private key; give its public part only"));
            }
            match Key::parse(key) {
                Err(why) => passed_over.push(format!("keys[{index}]: {why}")),
                Ok((None, key)) => set.unnamed.push(key),
                Ok((Some(id), key)) => {
                    if set.by_id.insert(id.clone(), key).is_some() {
                        return Err(format!("two keys have the kid `{id}`"));
                    }
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

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.unnamed.is_empty()
    }

    /// The key for a token's header. A token that names no key means the only one that fits.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, Refusal> {
        if let Some(kid) = kid {
            let key = self.by_id.get(kid).ok_or_else(|| unknown("no key of the issuer has this kid"))?;
            return key.for_algorithm(algorithm).ok_or_else(|| {
                Refusal::new(Reason::TokenAlgorithm, format!("the key is not for {algorithm:?}"))
            });
        }
        let mut fitting =
            self.by_id.values().chain(&self.unnamed).filter_map(|key| key.for_algorithm(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(unknown("no key of the issuer is for this algorithm")),
            (Some(_), Some(_)) => Err(unknown("kid is missing and several keys could be meant")),
        }
    }
}

fn unknown(detail: &str) -> Refusal {
    Refusal::new(Reason::TokenKeyUnknown, detail)
}
