//! Whether a verified token holds now, here, and for who shows it.
//!
//! Apart from verification, because a token that was verified once stays verified, while this has to be asked again
//! for every request.

use super::check::Check;
use super::{Binding, Issuer, Refusal, VerifiedToken};

/// Where a token is shown.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// Audiences one of which it must name; any when empty.
    pub audiences: &'a [Box<str>],
    /// The client certificate that a proxy of ours has seen itself, by its thumbprint (`x5t#S256`).
    pub holder: Option<&'a str>,
    /// Unix seconds.
    pub now: i64,
}

/// All that is asked, in order.
pub(super) const ADMISSION: [(Check, Asked); 7] = [
    (Check::Expiry, not_expired),
    (Check::NotBefore, valid_already),
    (Check::IssuedAt, issued_already),
    (Check::Lifetime, not_too_long),
    (Check::ServiceAudience, for_the_service),
    (Check::IssuerAudience, for_the_issuers_audience),
    (Check::Binding, shown_by_its_holder),
];

type Asked = fn(&VerifiedToken, &Issuer, &Occasion<'_>) -> Result<(), &'static str>;

impl VerifiedToken {
    /// Whether the token holds on this occasion. `issuer` is the token's own.
    pub fn admit(&self, issuer: &Issuer, occasion: &Occasion<'_>) -> Result<(), Refusal> {
        ADMISSION.iter().try_for_each(|(check, holds)| {
            holds(self, issuer, occasion).map_err(|detail| Refusal::new(*check, detail))
        })
    }
}

fn not_expired(token: &VerifiedToken, issuer: &Issuer, at: &Occasion<'_>) -> Result<(), &'static str> {
    if at.now >= token.expires_at.saturating_add(issuer.leeway) { Err("exp has passed") } else { Ok(()) }
}

fn valid_already(token: &VerifiedToken, issuer: &Issuer, at: &Occasion<'_>) -> Result<(), &'static str> {
    match token.not_before {
        Some(from) if from > at.now.saturating_add(issuer.leeway) => Err("nbf lies in the future"),
        _ => Ok(()),
    }
}

fn issued_already(token: &VerifiedToken, issuer: &Issuer, at: &Occasion<'_>) -> Result<(), &'static str> {
    match token.issued_at {
        Some(issued) if issued > at.now.saturating_add(issuer.leeway) => Err("iat lies in the future"),
        _ => Ok(()),
    }
}

fn not_too_long(token: &VerifiedToken, issuer: &Issuer, _: &Occasion<'_>) -> Result<(), &'static str> {
    match (issuer.max_lifetime, token.issued_at) {
        (None, _) => Ok(()),
        (Some(_), None) => Err("iat is missing where a longest lifetime is set"),
        (Some(longest), Some(issued)) if token.expires_at.saturating_sub(issued) > longest => {
            Err("valid for longer than its issuer may make it")
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

fn for_the_service(token: &VerifiedToken, _: &Issuer, at: &Occasion<'_>) -> Result<(), &'static str> {
    names_one(token, at.audiences)
}

fn for_the_issuers_audience(
    token: &VerifiedToken,
    issuer: &Issuer,
    _: &Occasion<'_>,
) -> Result<(), &'static str> {
    names_one(token, &issuer.audiences)
}

fn names_one(token: &VerifiedToken, accepted: &[Box<str>]) -> Result<(), &'static str> {
    let named = |audience: &str| token.audience.iter().any(|aud| aud == audience);
    if accepted.is_empty() || accepted.iter().any(|audience| named(audience)) {
        Ok(())
    } else {
        Err("aud names no accepted audience")
    }
}

/// A token that is bound to a key is worth nothing without it. We know one binding, to a client certificate; whoever
/// is bound in another way has proved nothing that we could see.
fn shown_by_its_holder(token: &VerifiedToken, _: &Issuer, at: &Occasion<'_>) -> Result<(), &'static str> {
    match (&token.binding, at.holder) {
        (Binding::None, _) => Ok(()),
        (Binding::Unknown, _) => Err("bound to a key in a way that we cannot check"),
        (Binding::Certificate(_), None) => {
            Err("bound to a client certificate, and the caller has shown none")
        }
        (Binding::Certificate(bound_to), Some(shown)) if *shown == **bound_to => Ok(()),
        (Binding::Certificate(_), Some(_)) => Err("bound to another client certificate"),
    }
}
