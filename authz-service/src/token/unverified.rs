//! A token as it was presented, before anything in it is believed.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::check::Check;
use super::claims::Claims;
use super::jws::Jws;
use super::keys::KeySet;
use super::{Issuer, Refusal, VerifiedToken, json};

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
        let claims = json::parse_object(&jws.payload)
            .map_err(|error| Refusal::new(Check::Payload, format!("payload is not usable JSON: {error}")))?;
        Ok(Self { jws, claims })
    }

    /// Who the token says it is from.
    pub fn claimed_issuer(&self) -> Result<&str, Refusal> {
        (self.claims.get("iss").and_then(Value::as_str))
            .ok_or_else(|| Refusal::new(Check::IssuerKnown, "claim iss is missing or no text"))
    }

    /// Which key the token names.
    pub fn kid(&self) -> Option<&str> {
        self.jws.kid.as_deref()
    }

    /// Believes who said it, or says why not. Whether it holds now, here and for this caller is asked afterwards, of
    /// [`VerifiedToken::admit`]: that answer changes, this one does not.
    pub fn verify(self, issuer: &Arc<Issuer>, keys: &KeySet, now: i64) -> Result<VerifiedToken, Refusal> {
        self.check_type(issuer)?;
        self.check_algorithm(issuer)?;
        let key = self.check_signature(keys, now)?;
        self.read(issuer, key)
    }

    /// `typ` keeps one kind of JWT from being taken for another (RFC 8725 §3.11).
    pub(super) fn check_type(&self, issuer: &Issuer) -> Result<(), Refusal> {
        if typ_is_accepted(self.jws.typ.as_deref(), &issuer.typ) {
            return Ok(());
        }
        Err(Refusal::new(Check::Type, "header member typ names another type of token"))
    }

    pub(super) fn check_algorithm(&self, issuer: &Issuer) -> Result<(), Refusal> {
        if issuer.algorithms.contains(&self.jws.algorithm) {
            return Ok(());
        }
        let detail = format!("issuer {} does not use {:?}", issuer.name, self.jws.algorithm);
        Err(Refusal::new(Check::IssuerAlgorithm, detail))
    }

    pub(super) fn check_signature<'k>(&self, keys: &'k KeySet, now: i64) -> Result<&'k str, Refusal> {
        self.jws.verify(keys, now)
    }

    /// What the token says; only to be called once its signature was found good.
    pub(super) fn read(self, issuer: &Arc<Issuer>, key: &str) -> Result<VerifiedToken, Refusal> {
        Claims { issuer, members: self.claims, key, algorithm: self.jws.algorithm }.read()
    }

    pub(super) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

fn typ_is_accepted(typ: Option<&str>, accepted: &[Box<str>]) -> bool {
    let Some(typ) = typ.map(str::to_ascii_lowercase) else { return accepted.is_empty() };
    let short = typ.strip_prefix("application/").unwrap_or(&typ);
    if accepted.is_empty() {
        return matches!(short, "jwt" | "at+jwt");
    }
    accepted.iter().any(|accepted| accepted.strip_prefix("application/").unwrap_or(accepted) == short)
}
