//! A compact JWS: its form, its header, its signature. What is in it is `unverified`'s.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::check::Check;
use super::keys::KeySet;
use super::{Refusal, json};

/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Header members that are refused, whatever they say: the token would choose its own key, or is something else than
/// the JWS that we read. We know no extension, so whatever `crit` names is one that we do not understand, and an empty
/// list is forbidden (RFC 7515 §4.1.11).
const REFUSED_MEMBERS: [(&str, Check); 8] = [
    ("jwk", Check::EmbeddedKey),
    ("jku", Check::EmbeddedKey),
    ("x5u", Check::EmbeddedKey),
    ("x5c", Check::EmbeddedKey),
    ("enc", Check::Encrypted),
    ("zip", Check::Encrypted),
    ("b64", Check::Unencoded),
    ("crit", Check::Critical),
];

/// A JWS with a header that we understand.
#[derive(Debug)]
pub struct Jws<'a> {
    /// `header.payload`, as signed.
    message: &'a str,
    signature: &'a str,
    /// The payload.
    pub payload: Vec<u8>,
    /// With what it says it was signed; never `none`.
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
            return Err(Refusal::new(Check::Size, "longer than 16 KiB"));
        }
        let (message, signature, header, payload) = parts(token)?;
        let header = read_header(header)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Refusal::new(Check::Header, format!("header member {name} is not a text"))),
        };
        if let Some((member, check)) = REFUSED_MEMBERS.iter().find(|(member, _)| header.contains_key(*member))
        {
            return Err(Refusal::new(*check, format!("header member {member} is not accepted")));
        }
        let algorithm = match text("alg")?.map(|name| Algorithm::from_str(&name)) {
            Some(Ok(algorithm)) => algorithm,
            Some(Err(_)) => return Err(Refusal::new(Check::Algorithm, "not an accepted algorithm")),
            None => return Err(Refusal::new(Check::Header, "header member alg is missing")),
        };
        let (typ, kid) = (text("typ")?, text("kid")?);
        Ok(Self { message, signature, payload: decode(payload, "payload")?, algorithm, typ, kid })
    }

    /// Which of `keys` made the signature; it is the one that is meant.
    pub fn verify<'k>(&self, keys: &'k KeySet, now: i64) -> Result<&'k str, Refusal> {
        let good = |key| {
            let message = self.message.as_bytes();
            matches!(jsonwebtoken::crypto::verify(self.signature, message, key, self.algorithm), Ok(true))
        };
        let candidates = keys.find(self.kid.as_deref(), self.algorithm, now)?;
        let found = candidates.into_iter().find(|candidate| good(candidate.key));
        found
            .map(|candidate| candidate.id)
            .ok_or_else(|| Refusal::new(Check::Signature, "the signature does not verify"))
    }
}

/// Message, signature, header and payload.
fn parts(token: &str) -> Result<(&str, &str, &str, &str), Refusal> {
    let three = || {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        (!payload.contains('.')).then_some((message, signature, header, payload))
    };
    three().ok_or_else(|| match token.bytes().filter(|byte| *byte == b'.').count() {
        4 => Refusal::new(Check::Encrypted, "five parts are a JWE; tokens are signed, not encrypted"),
        _ => Refusal::new(Check::Form, "not three parts"),
    })
}

/// The header of a token, as far as it is one; for [`Jws::parse`], and to show to an operator.
pub(super) fn read_header(part: &str) -> Result<Map<String, Value>, Refusal> {
    json::parse_object(&decode(part, "header")?)
        .map_err(|error| Refusal::new(Check::Header, format!("header is not usable JSON: {error}")))
}

fn decode(part: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refusal::new(Check::Encoding, format!("{name} is not base64url")))
}
