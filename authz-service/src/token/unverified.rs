//! A token as it was presented, before anything in it is believed.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};
use tollgate_proto::Reason;

use super::claims::Claims;
use super::{Refusal, TrustedIssuer, VerifiedToken, json};

/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Header members that would let the token choose its own key, or that make it something else than a JWS.
const REFUSED_MEMBERS: [&str; 7] = ["jwk", "jku", "x5u", "x5c", "enc", "zip", "b64"];

/// A well-formed token.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// `header.payload`, as signed.
    message: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    typ: Option<String>,
    kid: Option<String>,
    claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    /// Takes a compact JWS apart. Everything that needs no key is refused here, before any cryptography.
    pub fn parse(token: &'a str) -> Result<Self, Refusal> {
        let malformed = |detail: &str| Refusal::new(Reason::TokenMalformed, detail);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("longer than 16 KiB"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(|| malformed("not three parts"))?;
        let (header, payload) = message.split_once('.').ok_or_else(|| malformed("not three parts"))?;
        if payload.contains('.') {
            return Err(malformed("not three parts"));
        }
        let object = |part: &str, name: &str| {
            let bytes =
                URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(&format!("{name} is not base64url")))?;
            json::parse_object(&bytes)
                .map_err(|error| malformed(&format!("{name} is not usable JSON: {error}")))
        };
        let header = object(header, "header")?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(malformed(&format!("header member {name} is not a text"))),
        };
        if let Some(member) = REFUSED_MEMBERS.iter().find(|member| header.contains_key(**member)) {
            return Err(malformed(&format!("header member {member} is not accepted")));
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
        let claims = object(payload, "payload")?;
        Ok(Self { message, signature, algorithm, typ, kid, claims })
    }

    /// Who the token says it is from.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The id of the key that the token says it was signed with.
    pub fn key_id(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Believes the token, or says why not. `audiences` are those of the service.
    pub fn verify(
        self,
        trusted: &TrustedIssuer,
        audiences: &[Box<str>],
        now: i64,
    ) -> Result<VerifiedToken, Refusal> {
        let issuer = &trusted.issuer;
        if !typ_is_accepted(self.typ.as_deref(), &issuer.typ) {
            return Err(Refusal::new(
                Reason::TokenMalformed,
                "header member typ names another type of token",
            ));
        }
        if !issuer.algorithms.contains(&self.algorithm) {
            let detail = format!("issuer {} does not use {:?}", issuer.name, self.algorithm);
            return Err(Refusal::new(Reason::TokenAlgorithm, detail));
        }
        let key = trusted.keys.find(self.kid.as_deref(), self.algorithm)?;
        let good = jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm);
        if !matches!(good, Ok(true)) {
            return Err(Refusal::new(Reason::TokenSignature, "the signature does not verify"));
        }
        Claims { issuer, members: self.claims, kid: self.kid, algorithm: self.algorithm }
            .check(audiences, now)
    }
}

/// `typ` keeps one kind of JWT from being taken for another (RFC 8725 §3.11).
fn typ_is_accepted(typ: Option<&str>, accepted: &[Box<str>]) -> bool {
    let Some(typ) = typ.map(str::to_ascii_lowercase) else { return accepted.is_empty() };
    let short = typ.strip_prefix("application/").unwrap_or(&typ);
    if accepted.is_empty() {
        return matches!(short, "jwt" | "at+jwt");
    }
    accepted.iter().any(|accepted| accepted.strip_prefix("application/").unwrap_or(accepted) == short)
}
