//! What a token with a good signature says, and whether it may be believed now and here.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use tollgate_proto::Reason;

use super::{Issuer, Refusal, VerifiedToken};

/// The claims of a token whose signature is good.
pub(super) struct Claims<'a> {
    pub(super) issuer: &'a Arc<Issuer>,
    pub(super) members: Map<String, Value>,
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
}

impl Claims<'_> {
    /// Reads and checks the claims. A token that is refused for its time or audience still tells who it was.
    pub(super) fn check(self, audiences: &[Box<str>], now: i64) -> Result<VerifiedToken, Refusal> {
        let token = self.read()?;
        let refuse = |reason, detail: &str| {
            Err(Refusal { token: Some(Box::new(token.clone())), ..Refusal::new(reason, detail) })
        };
        let leeway = self.issuer.leeway;
        let not_before = self.seconds("nbf")?;
        if now >= token.expires_at.saturating_add(leeway) {
            return refuse(Reason::TokenExpired, "exp has passed");
        }
        if not_before.is_some_and(|from| from > now.saturating_add(leeway)) {
            return refuse(Reason::TokenNotYet, "nbf lies in the future");
        }
        if token.issued_at.is_some_and(|at| at > now.saturating_add(leeway)) {
            return refuse(Reason::TokenNotYet, "iat lies in the future");
        }
        if let Some(longest) = self.issuer.max_lifetime {
            match token.issued_at {
                None => return refuse(Reason::TokenClaims, "iat is missing where a longest lifetime is set"),
                Some(at) if token.expires_at.saturating_sub(at) > longest => {
                    return refuse(Reason::TokenClaims, "valid for longer than its issuer may make it");
                }
                Some(_) => {}
            }
        }
        for accepted in [audiences, &self.issuer.audiences] {
            let names_one =
                || accepted.iter().any(|audience| token.audience.iter().any(|aud| **audience == *aud));
            if !accepted.is_empty() && !names_one() {
                return refuse(Reason::TokenAudience, "aud names no accepted audience");
            }
        }
        if self.members.get("cnf").is_some() {
            return refuse(Reason::TokenBinding, "bound to a key that the caller has not proved to hold");
        }
        Ok(token)
    }

    fn read(&self) -> Result<VerifiedToken, Refusal> {
        let names = &self.issuer.claims;
        let subject = self.text(&names.subject)?.filter(|subject| !subject.is_empty());
        Ok(VerifiedToken {
            issuer: Arc::clone(&self.issuer.name),
            issuer_url: self.issuer.url.clone(),
            subject: subject.ok_or_else(|| wrong(&names.subject[..], "is missing"))?,
            client_id: self.text(&names.client_id)?,
            scopes: self.words(&names.scopes)?,
            groups: self.list(&names.groups)?,
            audience: self.audience()?,
            jti: self.text(&["jti".to_owned()])?,
            kid: self.kid.clone(),
            algorithm: Some(self.algorithm),
            issued_at: self.seconds("iat")?,
            expires_at: self.seconds("exp")?.ok_or_else(|| wrong(&["exp".to_owned()], "is missing"))?,
            claims: self.members.clone(),
        })
    }

    /// The first claim of these names. A name that is no claim may be a path: `realm_access.roles`.
    fn first(&self, names: &[String]) -> Option<&Value> {
        names.iter().find_map(|name| {
            self.members.get(name).or_else(|| {
                let (head, rest) = name.split_once('.')?;
                rest.split('.').try_fold(self.members.get(head)?, |value, part| value.get(part))
            })
        })
    }

    fn text(&self, names: &[String]) -> Result<Option<String>, Refusal> {
        match self.first(names) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(names, "is not a text")),
        }
    }

    fn list(&self, names: &[String]) -> Result<Vec<String>, Refusal> {
        match self.first(names) {
            None => Ok(Vec::new()),
            Some(value) => texts(value).ok_or_else(|| wrong(names, "is not a list of texts")),
        }
    }

    fn words(&self, names: &[String]) -> Result<Vec<String>, Refusal> {
        match self.first(names) {
            Some(Value::String(words)) => Ok(words.split_ascii_whitespace().map(str::to_owned).collect()),
            _ => self.list(names),
        }
    }

    fn audience(&self) -> Result<Vec<String>, Refusal> {
        match self.members.get("aud") {
            None => Ok(Vec::new()),
            Some(Value::String(audience)) => Ok(vec![audience.clone()]),
            Some(value) => {
                texts(value).ok_or_else(|| Refusal::new(Reason::TokenAudience, "aud has the wrong type"))
            }
        }
    }

    /// A NumericDate (RFC 7519 §2), fractions cut off.
    fn seconds(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| {
            // Beyond 2^53 a float does not mean seconds any more.
            value.as_f64().filter(|float| float.abs() < 9e15).map(|float| float.floor() as i64)
        });
        whole.map(Some).ok_or_else(|| wrong(&[name.to_owned()], "is not a number of seconds"))
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn wrong(names: &[String], problem: &str) -> Refusal {
    Refusal::new(Reason::TokenClaims, format!("claim {} {problem}", names.join(" or ")))
}
