//! A token explained to an operator: every check ticked or crossed, what it claims, what policy would read.
//!
//! The same checks as on the request path, by the same functions; here the walk goes on after a failure where the next
//! check still means something. The signature is never shown: header and claims alone are nothing to log in with.

use serde::Serialize;
use serde_json::{Map, Value};
use smol_str::SmolStr;
use utoipa::ToSchema;

use super::admission::ADMISSION;
use super::check::Check;
use super::judge::{Judge, accepted_by};
use super::jws::header_of;
use super::{Jws, Occasion, Refusal, Unverified, VerifiedToken};
use crate::policy::model::Service;

/// What is to be said about a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// `ok`, or the reason of the first check that failed.
    pub verdict: &'static str,
    /// The checks in the order in which they are made.
    pub checks: Vec<Step>,
    /// The header, as far as it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub header: Option<Map<String, Value>>,
    /// The claims, as far as they could be read. They are the token's word, whatever came of the checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub claims: Option<Map<String, Value>>,
    /// What policy would read, where the signature is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
}

/// One check and what came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    /// The check.
    pub check: &'static str,
    /// What has to hold, said of the token.
    pub says: &'static str,
    /// Whether it does.
    pub passed: bool,
    /// What a failure is counted under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What policy reads of a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reads {
    /// The issuer's name in the policy.
    pub issuer: String,
    /// The user.
    pub subject: String,
    /// The application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Audiences.
    pub audience: Vec<String>,
    /// The token's id, by which it could be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The key's id, by which all its tokens could be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<i64>,
    /// Unix seconds.
    pub expires_at: i64,
}

/// Notes what came of each check.
#[derive(Default)]
struct Trail {
    steps: Vec<Step>,
    first: Option<&'static str>,
}

impl Trail {
    /// Notes that everything in `checks` holds.
    fn passed(&mut self, checks: &[Check]) {
        for check in checks {
            self.steps.push(Step {
                check: check.code(),
                says: check.says(),
                passed: true,
                reason: None,
                detail: None,
            });
        }
    }

    /// Notes the outcome of some checks that are made together: those before the one that failed have passed.
    fn note<T>(&mut self, checks: &[Check], outcome: Result<T, Refusal>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.passed(checks);
                Some(value)
            }
            Err(refusal) => {
                let before = checks.iter().position(|check| *check == refusal.check).unwrap_or(0);
                self.passed(&checks[..before]);
                self.first.get_or_insert(refusal.reason.as_str());
                self.steps.push(Step {
                    check: refusal.check.code(),
                    says: refusal.check.says(),
                    passed: false,
                    reason: Some(refusal.reason.as_str()),
                    detail: Some(refusal.detail),
                });
                None
            }
        }
    }
}

/// What parsing looks at.
const PARSED: [Check; 10] = [
    Check::Size,
    Check::Form,
    Check::Encoding,
    Check::Header,
    Check::EmbeddedKey,
    Check::Encrypted,
    Check::Unencoded,
    Check::Critical,
    Check::Algorithm,
    Check::Payload,
];

impl Judge<'_> {
    /// Explains a token, presented to `service` if one is named.
    pub fn explain(&self, token: &str, service: Option<&Service>, at: &Occasion<'_>) -> Explanation {
        let mut trail = Trail::default();
        let (mut claims, mut reads) = (None, None);
        let jws = Jws::parse(token);
        let parsed = jws.as_ref().map_err(Clone::clone).and_then(Jws::claims);
        if let Some(unverified) = trail.note(&PARSED, parsed) {
            claims = Some(unverified.members());
            reads = self.walk(&mut trail, unverified, service, at).as_ref().map(Reads::of);
        }
        let verdict = trail.first.unwrap_or("ok");
        Explanation { verdict, checks: trail.steps, header: header_of(token), claims, reads }
    }

    fn walk(
        &self,
        trail: &mut Trail,
        unverified: Unverified<'_>,
        service: Option<&Service>,
        at: &Occasion<'_>,
    ) -> Option<VerifiedToken> {
        let trusted = trail.note(&[Check::IssuerKnown], self.issuer_of(&unverified))?;
        let issuer = &trusted.issuer;
        if service.is_some() {
            trail.note(&[Check::IssuerAccepted], accepted_by(service, trusted));
        }
        trail.note(&[Check::Type], unverified.check_type(issuer));
        trail.note(&[Check::IssuerAlgorithm], unverified.check_algorithm(issuer))?;
        let keys = trail.note(&[Check::KeysAtHand], self.keys_of(trusted, at.now))?;
        let by_key = [Check::Key, Check::KeyAlgorithm, Check::KeyValid, Check::Signature];
        let key = trail.note(&by_key, unverified.check_signature(keys, at.now))?;
        let token = trail.note(&[Check::ClaimTypes], unverified.read(issuer, key))?;
        for (check, holds) in &ADMISSION {
            let outcome = holds(&token, issuer, at).map_err(|detail| Refusal::new(*check, detail));
            trail.note(&[*check], outcome);
        }
        Some(token)
    }
}

impl Reads {
    fn of(token: &VerifiedToken) -> Self {
        let owned = |texts: &[SmolStr]| texts.iter().map(SmolStr::to_string).collect();
        Self {
            issuer: token.issuer.to_string(),
            subject: token.subject.to_string(),
            client: token.client_id.as_ref().map(SmolStr::to_string),
            scopes: owned(&token.scopes),
            groups: owned(&token.groups),
            audience: owned(&token.audience),
            jti: token.jti.as_ref().map(SmolStr::to_string),
            key_id: token.kid.as_deref().map(str::to_owned),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        }
    }
}
