//! Whom we believe about users, and with which keys.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::TokenPlace;
use super::keys::KeySet;
use crate::policy::spec::{ClaimNames, IssuerSpec};

/// A checked issuer.
#[derive(Debug)]
pub struct Issuer {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// The exact value of `iss`.
    pub url: Box<str>,
    /// Where its keys come from.
    pub keys: KeyOrigin,
    /// Algorithms it may use.
    pub algorithms: Box<[Algorithm]>,
    /// Audiences one of which its tokens must name; any when empty.
    pub audiences: Box<[Box<str>]>,
    /// Values of `typ` that are accepted, in lower case; the usual ones when empty.
    pub typ: Box<[Box<str>]>,
    /// Where its tokens may stand.
    pub places: Box<[TokenPlace]>,
    /// Seconds by which clocks may differ.
    pub leeway: i64,
    /// Longest validity in seconds.
    pub max_lifetime: Option<i64>,
    /// What it calls the claims that policy reads.
    pub claims: ClaimNames,
}

/// Where an issuer's keys come from.
#[derive(Debug)]
pub enum KeyOrigin {
    /// They stand in the policy.
    Inline(Arc<KeySet>),
    /// They are fetched.
    Fetched(url::Url),
}

/// Every algorithm there is for an issuer: all asymmetric ones, since a shared secret would let
/// whoever verifies also sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

impl Issuer {
    /// Checks what was written; an error names the key and what is wrong with it.
    pub fn from_spec(spec: &IssuerSpec) -> Result<Self, (String, String)> {
        let fault = |key: &str, problem: String| (key.to_owned(), problem);
        if spec.issuer.is_empty() {
            return Err(fault("issuer", "the value of the `iss` claim cannot be empty".into()));
        }
        let keys = match (&spec.jwks_url, &spec.jwks) {
            (None, Some(jwks)) => KeySet::parse(jwks)
                .map(|keys| KeyOrigin::Inline(Arc::new(keys)))
                .map_err(|problem| fault("jwks", problem))?,
            (Some(text), None) => {
                KeyOrigin::Fetched(key_url(text).map_err(|problem| fault("jwks_url", problem))?)
            }
            _ => return Err(fault("jwks", "give either `jwks` or `jwks_url`".into())),
        };
        let mut algorithms = Vec::new();
        for (index, name) in spec.algorithms.iter().enumerate() {
            match Algorithm::from_str(name) {
                Ok(algorithm) if algorithm.family() != AlgorithmFamily::Hmac => algorithms.push(algorithm),
                _ => {
                    let known: Vec<_> = ALGORITHMS.iter().map(|algorithm| format!("{algorithm:?}")).collect();
                    let problem = format!("`{name}` is not one of {}", known.join(", "));
                    return Err((format!("algorithms[{index}]"), problem));
                }
            }
        }
        if algorithms.is_empty() {
            algorithms.extend(ALGORITHMS);
        }
        let mut places: Vec<_> = spec.token_places.iter().map(TokenPlace::from_spec).collect();
        if places.is_empty() {
            places.push(TokenPlace::bearer());
        }
        Ok(Self {
            name: spec.name.as_str().into(),
            url: spec.issuer.as_str().into(),
            keys,
            algorithms: algorithms.into(),
            audiences: spec.audiences.iter().map(|audience| audience.as_str().into()).collect(),
            typ: spec.typ.iter().map(|typ| typ.to_ascii_lowercase().into()).collect(),
            places: places.into(),
            leeway: i64::from(spec.leeway_seconds),
            max_lifetime: spec.max_lifetime_seconds.map(i64::from),
            claims: spec.claims.clone(),
        })
    }
}

/// Keys travel over TLS, or not at all further than this machine.
fn key_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    let on_this_machine = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && on_this_machine) {
        return Err("keys are fetched over https, or over http from this machine only".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or password does not belong into this URL".to_owned());
    }
    Ok(url)
}

/// An issuer with the keys it has now.
#[derive(Debug)]
pub struct TrustedIssuer {
    /// Whom we believe.
    pub issuer: Arc<Issuer>,
    /// With which keys; empty while they could never be fetched.
    pub keys: Arc<KeySet>,
    /// Unix seconds at which fetched keys were last confirmed.
    pub confirmed: Option<Arc<AtomicI64>>,
}

impl TrustedIssuer {
    /// For how many seconds the keys have not been confirmed.
    pub fn keys_age(&self, now: i64) -> i64 {
        self.confirmed.as_ref().map_or(0, |confirmed| now.saturating_sub(confirmed.load(Ordering::Relaxed)))
    }
}
