//! A compact JWS: its form, its header, its signature. What is in it is `unverified`'s.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::Value;
use tollgate_proto::Reason;

use super::keys::KeySet;
use super::{Refusal, json};

/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Header members that would let the token choose its own key, or that make it something else than a JWS.
const REFUSED_MEMBERS: [&str; 7] = ["jwk", "jku", "x5u", "x5c", "enc", "zip", "b64"];

/// A JWS with a header that we understand.
#[derive(Debug)]
pub struct Jws<'a> {
    /// `header.payload`, as signed.
    message: &'a str,
    signature: &'a str,
    /// The payload.
    pub payload: Vec<u8>,
    /// With what it says it was signed; never a shared secret, never `none`.
    pub algorithm: Algorithm,
    /// What it says it is.
    pub typ: Option<String>,
    /// With which key it says it was signed.
    pub kid: Option<String>,
}

impl<'a> Jws<'a> {
    /// Takes a compact JWS apart. Everything that needs no key is refused here, before any cryptography.
    pub fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("longer than 16 KiB"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(|| malformed("not three parts"))?;
        let (header, payload) = message.split_once('.').ok_or_else(|| malformed("not three parts"))?;
        if payload.contains('.') {
            return Err(malformed("not three parts"));
        }
        let header = json::parse_object(&decode(header, "header")?)
            .map_err(|error| malformed(format!("header is not usable JSON: {error}")))?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(malformed(format!("header member {name} is not a text"))),
        };
        if let Some(member) = REFUSED_MEMBERS.iter().find(|member| header.contains_key(**member)) {
            return Err(malformed(format!("header member {member} is not accepted")));
        }
        if header.contains_key("crit") {
            // We know no extension, so whatever it names is one that we do not understand (RFC 7515 §4.1.11).
            return Err(malformed("header member crit names extensions that are not understood"));
        }
        let algorithm = match text("alg")?.map(|name| Algorithm::from_str(&name)) {
            Some(Ok(algorithm)) if algorithm.family() != AlgorithmFamily::Hmac => algorithm,
            Some(_) => {
                return Err(Refusal::new(Reason::TokenAlgorithm, "not an accepted asymmetric algorithm"));
            }
            None => return Err(malformed("header member alg is missing")),
        };
        let (typ, kid) = (text("typ")?, text("kid")?);
        Ok(Self { message, signature, payload: decode(payload, "payload")?, algorithm, typ, kid })
    }

    /// Whether one of `keys`, namely the one that is meant, made the signature.
    pub fn verify(&self, keys: &KeySet) -> Result<(), Refusal> {
        let key = keys.find(self.kid.as_deref(), self.algorithm)?;
        let good = jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm);
        if matches!(good, Ok(true)) {
            return Ok(());
        }
        Err(Refusal::new(Reason::TokenSignature, "the signature does not verify"))
    }
}

fn decode(part: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(format!("{name} is not base64url")))
}

fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::TokenMalformed, detail)
}
