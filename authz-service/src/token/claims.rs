//! What a token with a good signature says: every claim that we know, with the type that it must have.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Number, Value};
use smol_str::SmolStr;

use super::check::Check;
use super::json::{Members, Tree};
use super::{Binding, ClaimSet, Issuer, Refusal, VerifiedToken};

/// The claims of a token whose signature is good.
pub(super) struct Claims<'a> {
    pub(super) issuer: &'a Arc<Issuer>,
    pub(super) text: &'a [u8],
    pub(super) members: &'a Members<'a>,
    pub(super) key: &'a Arc<str>,
    pub(super) algorithm: Algorithm,
}

impl<'a> Claims<'a> {
    /// Reads what policy will ask for.
    pub(super) fn read(&self) -> Result<VerifiedToken, Refusal> {
        let names = &self.issuer.claims;
        let subject = self.text(&names.subject)?.filter(|subject| !subject.is_empty());
        Ok(VerifiedToken {
            issuer: Arc::clone(&self.issuer.name),
            issuer_url: Arc::clone(&self.issuer.url),
            subject: subject.ok_or_else(|| wrong(&names.subject[..], "is missing"))?,
            client_id: self.text(&names.client_id)?,
            scopes: self.words(&names.scopes)?,
            groups: self.list(&names.groups)?,
            audience: self.audience()?,
            jti: self.text(&["jti".to_owned()])?,
            kid: Some(Arc::clone(self.key)),
            algorithm: Some(self.algorithm),
            not_before: self.seconds("nbf")?,
            issued_at: self.seconds("iat")?,
            expires_at: self.seconds("exp")?.ok_or_else(|| wrong(&["exp".to_owned()], "is missing"))?,
            binding: self.binding(),
            claims: ClaimSet::of(self.text, self.members),
        })
    }

    /// The first claim of these names.
    fn first(&self, names: &[String]) -> Option<&'a Tree<'a>> {
        names.iter().find_map(|name| find(self.members, name))
    }

    fn text(&self, names: &[String]) -> Result<Option<SmolStr>, Refusal> {
        match self.first(names) {
            None => Ok(None),
            Some(Tree::Text(text)) => Ok(Some(SmolStr::new(text))),
            Some(_) => Err(wrong(names, "is not a text")),
        }
    }

    fn list(&self, names: &[String]) -> Result<Vec<SmolStr>, Refusal> {
        match self.first(names) {
            None => Ok(Vec::new()),
            Some(value) => texts(value).ok_or_else(|| wrong(names, "is not a list of texts")),
        }
    }

    fn words(&self, names: &[String]) -> Result<Vec<SmolStr>, Refusal> {
        match self.first(names) {
            Some(Tree::Text(words)) => {
                Ok(words.split_ascii_whitespace().map(SmolStr::new).collect::<Box<[_]>>().into_vec())
            }
            _ => self.list(names),
        }
    }

    fn audience(&self) -> Result<Vec<SmolStr>, Refusal> {
        match self.members.get("aud") {
            None => Ok(Vec::new()),
            Some(Tree::Text(audience)) => Ok(vec![SmolStr::new(audience)]),
            Some(value) => {
                texts(value).ok_or_else(|| Refusal::new(Check::AudienceType, "aud has the wrong type"))
            }
        }
    }

    /// A NumericDate (RFC 7519 §2), fractions cut off.
    fn seconds(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let whole = match self.members.get(name) {
            None => return Ok(None),
            Some(Tree::Number(number)) => seconds(number),
            Some(_) => None,
        };
        whole.map(Some).ok_or_else(|| wrong(&[name.to_owned()], "is not a number of seconds"))
    }

    /// Two ways at once are a way that we do not know: we would look at one of them.
    fn binding(&self) -> Binding {
        let Some(confirmation) = self.members.get("cnf") else { return Binding::None };
        let only = confirmation.as_object().and_then(Members::only);
        match only {
            Some(("x5t#S256", Tree::Text(thumbprint))) => Binding::Certificate((**thumbprint).into()),
            _ => Binding::Unknown,
        }
    }
}

/// The claim of this name. A name that is no claim may be a path into nested objects: `realm_access.roles`.
pub(super) fn claim<'c>(members: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    members.get(name).or_else(|| {
        let (head, rest) = name.split_once('.')?;
        rest.split('.').try_fold(members.get(head)?, |value, part| value.get(part))
    })
}

/// As [`claim`], in a token that was just read.
fn find<'c>(members: &'c Members<'c>, name: &str) -> Option<&'c Tree<'c>> {
    members.get(name).or_else(|| {
        let (head, rest) = name.split_once('.')?;
        rest.split('.').try_fold(members.get(head)?, |value, part| value.as_object()?.get(part))
    })
}

fn seconds(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        // Beyond 2^53 a float does not mean seconds any more.
        number.as_f64().filter(|float| float.abs() < 9e15).map(|float| float.floor() as i64)
    })
}

fn texts(value: &Tree<'_>) -> Option<Vec<SmolStr>> {
    let texts: Option<Box<[_]>> =
        value.as_list()?.iter().map(|item| item.as_text().map(SmolStr::new)).collect();
    texts.map(<[_]>::into_vec)
}

fn wrong(names: &[String], problem: &str) -> Refusal {
    Refusal::new(Check::ClaimTypes, format!("claim {} {problem}", names.join(" or ")))
}
