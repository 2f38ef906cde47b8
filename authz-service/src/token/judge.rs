//! One token against the rules in force: whose is it, is it believed, does it hold here.
//!
//! Pure. Where the answer might change if an issuer were asked for its keys, the failure says which one.

use std::sync::Arc;

use smol_str::SmolStr;

use super::check::Check;
use super::keys::{KeySet, SharedSecrets};
use super::{
    Jws, KeyOrigin, Occasion, Refusal, TokenPlace, TrustedIssuer, Unverified, Verification, VerifiedToken,
};
use crate::policy::Snapshot;
use crate::policy::model::Service;

/// What a token is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'s> {
    /// The rules in force.
    pub snapshot: &'s Snapshot,
    /// Secrets that we share with issuers.
    pub secrets: &'s SharedSecrets,
    /// Seconds after which fetched keys that were not confirmed are used no more.
    pub max_stale: i64,
}

/// A refusal, and whom to ask for keys that might turn it.
#[derive(Debug)]
pub struct Failure {
    /// Why the token is no good.
    pub refusal: Refusal,
    /// The issuer, and the key that the token names.
    pub ask: Option<(Arc<TrustedIssuer>, Option<SmolStr>)>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, ask: None }
    }
}

impl<'s> Judge<'s> {
    /// Believes a token, or says why not. `service` is what it is presented to, where that is one we know; `place`
    /// where it stands, where it stands in a request.
    pub fn verify(
        &self,
        token: &str,
        place: Option<&TokenPlace>,
        service: Option<&Service>,
        at: &Occasion<'_>,
    ) -> Result<VerifiedToken, Failure> {
        let jws = Jws::parse(token)?;
        let unverified = jws.claims()?;
        let trusted = self.issuer_of(&unverified)?;
        accepted_by(service, trusted)?;
        stands_in(place, trusted)?;
        let may_ask = trusted.confirmed.is_some();
        let kid = unverified.kid().cloned();
        let ask = |refusal: Refusal| {
            let turned_by_keys = matches!(refusal.check, Check::Key | Check::KeysAtHand);
            let ask = (may_ask && turned_by_keys).then(|| (Arc::clone(trusted), kid.clone()));
            Failure { refusal, ask }
        };
        let keys = self.keys_of(trusted, at.now).map_err(ask)?;
        let token = unverified.verify(&trusted.issuer, keys, at.now).map_err(ask)?;
        match token.admit(&trusted.issuer, at) {
            Ok(()) => Ok(token),
            // Its signature is good, so whoever looks into the refusal may know whose it was.
            Err(refusal) => Err(Refusal { token: Some(Box::new(token)), ..refusal }.into()),
        }
    }

    /// Whether a token that was verified before may pass without another look at its signature. Whatever speaks against
    /// that is for [`Self::verify`] to say.
    pub fn still_holds(
        &self,
        known: &Verification,
        place: Option<&TokenPlace>,
        service: Option<&Service>,
        at: &Occasion<'_>,
    ) -> bool {
        let Some(trusted) = self.snapshot.issuer(&known.token.issuer_url) else { return false };
        let Ok(keys) = self.keys_of(trusted, at.now) else { return false };
        Arc::ptr_eq(&trusted.issuer, &known.issuer)
            && Arc::ptr_eq(keys, &known.keys)
            && keys.valid_until().is_none_or(|until| at.now <= until)
            && accepted_by(service, trusted).is_ok()
            && stands_in(place, trusted).is_ok()
            && known.token.admit(&trusted.issuer, at).is_ok()
    }

    /// What there is to remember of a token that was just verified.
    pub fn verification(&self, token: Arc<VerifiedToken>, now: i64) -> Option<Verification> {
        let trusted = self.snapshot.issuer(&token.issuer_url)?;
        let keys = Arc::clone(self.keys_of(trusted, now).ok()?);
        Some(Verification { token, issuer: Arc::clone(&trusted.issuer), keys })
    }

    /// Whom the token claims to be from, if we know such an issuer.
    pub(super) fn issuer_of(&self, unverified: &Unverified<'_>) -> Result<&'s Arc<TrustedIssuer>, Refusal> {
        let claimed = unverified.claimed_issuer()?;
        (self.snapshot.issuer(claimed))
            .ok_or_else(|| Refusal::new(Check::IssuerKnown, "no issuer has this iss"))
    }

    /// The issuer's keys, unless we cannot say what they are.
    pub(super) fn keys_of(&self, trusted: &'s TrustedIssuer, now: i64) -> Result<&'s Arc<KeySet>, Refusal> {
        if let KeyOrigin::Shared(name) = &trusted.issuer.keys {
            return self.secrets.named(name).ok_or_else(|| {
                let detail = format!("keys.shared_secrets of this process has no `{name}`");
                Refusal::new(Check::KeysAtHand, detail)
            });
        }
        if trusted.keys_age(now) > self.max_stale {
            let detail = "the issuer's keys were not confirmed for too long";
            return Err(Refusal::new(Check::KeysAtHand, detail));
        }
        Ok(&trusted.keys)
    }
}

pub(super) fn accepted_by(service: Option<&Service>, trusted: &TrustedIssuer) -> Result<(), Refusal> {
    if service.is_none_or(|service| service.issuers.contains(&trusted.issuer.name)) {
        return Ok(());
    }
    Err(Refusal::new(Check::IssuerAccepted, "the service does not accept this issuer"))
}

fn stands_in(place: Option<&TokenPlace>, trusted: &TrustedIssuer) -> Result<(), Refusal> {
    if place.is_none_or(|place| trusted.issuer.places.contains(place)) {
        return Ok(());
    }
    Err(Refusal::new(Check::Place, "this issuer's tokens are not presented in this place"))
}
