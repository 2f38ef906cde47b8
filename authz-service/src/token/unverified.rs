//! A token as it was presented, before anything in it is believed.

use serde_json::{Map, Value};
use tollgate_proto::Reason;

use super::claims::Claims;
use super::jws::Jws;
use super::{Refusal, TrustedIssuer, VerifiedToken, json};

/// A well-formed token.
#[derive(Debug)]
pub struct Unverified<'a> {
    jws: Jws<'a>,
    claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    /// Reads a token as far as that needs no key.
    pub fn parse(token: &'a str) -> Result<Self, Refusal> {
        let jws = Jws::parse(token)?;
        let claims = json::parse_object(&jws.payload).map_err(|error| {
            Refusal::new(Reason::TokenMalformed, format!("payload is not usable JSON: {error}"))
        })?;
        Ok(Self { jws, claims })
    }

    /// Who the token says it is from.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Believes the token, or says why not. `audiences` are those of the service.
    pub fn verify(
        self,
        trusted: &TrustedIssuer,
        audiences: &[Box<str>],
        now: i64,
    ) -> Result<VerifiedToken, Refusal> {
        let (issuer, jws) = (&trusted.issuer, self.jws);
        if !typ_is_accepted(jws.typ.as_deref(), &issuer.typ) {
            return Err(Refusal::new(
                Reason::TokenMalformed,
                "header member typ names another type of token",
            ));
        }
        if !issuer.algorithms.contains(&jws.algorithm) {
            let detail = format!("issuer {} does not use {:?}", issuer.name, jws.algorithm);
            return Err(Refusal::new(Reason::TokenAlgorithm, detail));
        }
        jws.verify(&trusted.keys)?;
        Claims { issuer, members: self.claims, kid: jws.kid, algorithm: jws.algorithm }.check(audiences, now)
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
