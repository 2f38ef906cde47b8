//! A token as it was presented, before anything in it is believed.

use std::sync::Arc;

use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::check::Check;
use super::claims::Claims;
use super::json::{self, Members, Tree};
use super::jws::Jws;
use super::keys::KeySet;
use super::{Issuer, Refusal, VerifiedToken};

/// A well-formed token.
#[derive(Debug)]
pub struct Unverified<'a> {
    jws: &'a Jws<'a>,
    claims: Members<'a>,
}

impl<'a> Unverified<'a> {
    /// Reads a token's payload, as far as that needs no key.
    pub(super) fn of(jws: &'a Jws<'a>) -> Result<Self, Refusal> {
        let claims = json::parse_members(&jws.payload)
            .map_err(|error| Refusal::new(Check::Payload, format!("payload is not usable JSON: {error}")))?;
        Ok(Self { jws, claims })
    }

    /// Who the token says it is from.
    pub fn claimed_issuer(&self) -> Result<&str, Refusal> {
        (self.claims.get("iss").and_then(Tree::as_text))
            .ok_or_else(|| Refusal::new(Check::IssuerKnown, "claim iss is missing or no text"))
    }

    /// Which key the token names.
    pub fn kid(&self) -> Option<&SmolStr> {
        self.jws.kid.as_ref()
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

    pub(super) fn check_signature<'k>(&self, keys: &'k KeySet, now: i64) -> Result<&'k Arc<str>, Refusal> {
        self.jws.verify(keys, now)
    }

    /// What the token says; only to be called once its signature was found good.
    pub(super) fn read(self, issuer: &Arc<Issuer>, key: &Arc<str>) -> Result<VerifiedToken, Refusal> {
        let Self { jws, claims } = self;
        Claims { issuer, text: &jws.payload, members: &claims, key, algorithm: jws.algorithm }.read()
    }

    pub(super) fn members(&self) -> Map<String, Value> {
        self.claims.to_map()
    }
}

fn typ_is_accepted(typ: Option<&str>, accepted: &[Box<str>]) -> bool {
    const MEDIA_TYPE: &str = "application/";
    let Some(typ) = typ else { return accepted.is_empty() };
    let short = match typ.split_at_checked(MEDIA_TYPE.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(MEDIA_TYPE) => rest,
        _ => typ,
    };
    if accepted.is_empty() {
        return ["jwt", "at+jwt"].iter().any(|usual| usual.eq_ignore_ascii_case(short));
    }
    let names = accepted.iter().map(|accepted| accepted.strip_prefix(MEDIA_TYPE).unwrap_or(accepted));
    names.into_iter().any(|accepted| accepted.eq_ignore_ascii_case(short))
}
