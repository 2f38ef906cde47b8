//! A compact JWS: its form, its header, its signature. What is in it is `unverified`'s.

use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::check::Check;
use super::json::{self, Members, Tree};
use super::keys::{KeySet, Verifier};
use super::{Refusal, Unverified};

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
    pub typ: Option<SmolStr>,
    /// With which key it says it was signed.
    pub kid: Option<SmolStr>,
}

impl<'a> Jws<'a> {
    /// Takes a compact JWS apart. Everything that needs no key is refused here, before any cryptography.
    pub fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::new(Check::Size, "longer than 16 KiB"));
        }
        let (message, signature, header, payload) = parts(token)?;
        let header = decode(header, "header")?;
        let header = read_header(&header)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Tree::Text(text)) => Ok(Some(&**text)),
            Some(_) => Err(Refusal::new(Check::Header, format!("header member {name} is not a text"))),
        };
        let refused = REFUSED_MEMBERS.iter().find(|(member, _)| header.get(member).is_some());
        if let Some((member, check)) = refused {
            return Err(Refusal::new(*check, format!("header member {member} is not accepted")));
        }
        let algorithm = match text("alg")?.map(Algorithm::from_str) {
            Some(Ok(algorithm)) => algorithm,
            Some(Err(_)) => return Err(Refusal::new(Check::Algorithm, "not an accepted algorithm")),
            None => return Err(Refusal::new(Check::Header, "header member alg is missing")),
        };
        let (typ, kid) = (text("typ")?.map(SmolStr::new), text("kid")?.map(SmolStr::new));
        Ok(Self { message, signature, payload: decode(payload, "payload")?, algorithm, typ, kid })
    }

    /// What the payload claims.
    pub fn claims(&self) -> Result<Unverified<'_>, Refusal> {
        Unverified::of(self)
    }

    /// Which of `keys` made the signature; it is the one that is meant.
    pub fn verify<'k>(&self, keys: &'k KeySet, now: i64) -> Result<&'k Arc<str>, Refusal> {
        let candidates = keys.find(self.kid.as_deref(), self.algorithm, now)?;
        let good = |verifier: &Verifier| verifier.accepts(self.message.as_bytes(), self.signature);
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

/// The header of a token, as far as it is one, to show to an operator.
pub(super) fn header_of(token: &str) -> Option<Map<String, Value>> {
    let header = decode(token.split('.').next()?, "header").ok()?;
    read_header(&header).ok().map(|header| header.to_map())
}

fn read_header(header: &[u8]) -> Result<Members<'_>, Refusal> {
    json::parse_members(header)
        .map_err(|error| Refusal::new(Check::Header, format!("header is not usable JSON: {error}")))
}

fn decode(part: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refusal::new(Check::Encoding, format!("{name} is not base64url")))
}
