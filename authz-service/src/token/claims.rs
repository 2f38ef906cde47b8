//! What a token with a good signature says: every claim that we know, with the type that it must have.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::check::Check;
use super::{Issuer, Refusal, VerifiedToken};

/// The claims of a token whose signature is good.
pub(super) struct Claims<'a> {
    pub(super) issuer: &'a Arc<Issuer>,
    pub(super) members: Map<String, Value>,
    pub(super) key: &'a str,
    pub(super) algorithm: Algorithm,
}

impl Claims<'_> {
    /// Reads what policy will ask for.
    pub(super) fn read(self) -> Result<VerifiedToken, Refusal> {
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
            kid: Some(self.key.to_owned()),
            algorithm: Some(self.algorithm),
            not_before: self.seconds("nbf")?,
            issued_at: self.seconds("iat")?,
            expires_at: self.seconds("exp")?.ok_or_else(|| wrong(&["exp".to_owned()], "is missing"))?,
            claims: self.members,
        })
    }

    /// The first claim of these names.
    fn first(&self, names: &[String]) -> Option<&Value> {
        names.iter().find_map(|name| claim(&self.members, name))
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
                texts(value).ok_or_else(|| Refusal::new(Check::AudienceType, "aud has the wrong type"))
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

/// The claim of this name. A name that is no claim may be a path into nested objects: `realm_access.roles`.
pub(super) fn claim<'c>(members: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    members.get(name).or_else(|| {
        let (head, rest) = name.split_once('.')?;
        rest.split('.').try_fold(members.get(head)?, |value, part| value.get(part))
    })
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn wrong(names: &[String], problem: &str) -> Refusal {
    Refusal::new(Check::ClaimTypes, format!("claim {} {problem}", names.join(" or ")))
}
