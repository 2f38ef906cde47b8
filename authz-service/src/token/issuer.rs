//! Whom we believe about users, and with which keys.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use url::Url;

use super::claim_header::ClaimHeader;
use super::claim_parameter::ClaimParameter;
use super::keys::{KeySet, key_url};
use super::{TokenPlace, keys};
use crate::policy::spec::{ClaimNames, IssuerSpec, TokenPlaceSpec};

/// A checked issuer.
#[derive(Debug)]
pub struct Issuer {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// The exact value of `iss`.
    pub url: Arc<str>,
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
    /// Whether its tokens are taken out of a request before the upstream gets it.
    pub strip: bool,
    /// Claims that the upstream gets in headers.
    pub claim_headers: Box<[ClaimHeader]>,
    /// Claims that the upstream gets in query parameters.
    pub claim_parameters: Box<[ClaimParameter]>,
    /// Claims that go into the dynamic metadata.
    pub metadata_claims: Box<[Box<str>]>,
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
    /// They are fetched from here.
    Fetched(Url),
    /// They are fetched from where this discovery document says.
    Discovered(Url),
    /// They are secrets of this name in our configuration.
    Shared(Box<str>),
}

impl KeyOrigin {
    /// What is fetched first to get at the keys, where they are fetched.
    pub fn address(&self) -> Option<&Url> {
        match self {
            Self::Fetched(url) | Self::Discovered(url) => Some(url),
            Self::Inline(_) | Self::Shared(_) => None,
        }
    }
}

/// Every algorithm there is for an issuer with public keys.
const ASYMMETRIC: [Algorithm; 9] = [
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
/// And for one with which we share a secret.
const SYMMETRIC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// Clocks that differ by more are wrong, and a token that outlives its end by more was not meant to end.
const MAX_LEEWAY_SECONDS: u32 = 300;

type Fault = (String, String);

fn fault(key: impl Into<String>, problem: impl Into<String>) -> Fault {
    (key.into(), problem.into())
}

impl Issuer {
    /// Checks what was written; an error names the key and what is wrong with it.
    pub fn from_spec(spec: &IssuerSpec) -> Result<Self, Fault> {
        if spec.issuer.is_empty() {
            return Err(fault("issuer", "the value of the `iss` claim cannot be empty"));
        }
        if spec.leeway_seconds > MAX_LEEWAY_SECONDS {
            return Err(fault("leeway_seconds", format!("at most {MAX_LEEWAY_SECONDS}")));
        }
        let keys = origin(spec)?;
        let algorithms = algorithms(spec, &keys)?;
        Ok(Self {
            name: spec.name.as_str().into(),
            url: spec.issuer.as_str().into(),
            keys,
            algorithms,
            audiences: spec.audiences.iter().map(|audience| audience.as_str().into()).collect(),
            typ: spec.typ.iter().map(|typ| typ.to_ascii_lowercase().into()).collect(),
            places: places(spec)?,
            strip: spec.strip,
            claim_headers: claim_headers(spec)?,
            claim_parameters: claim_parameters(spec)?,
            metadata_claims: spec.metadata_claims.iter().map(|claim| claim.as_str().into()).collect(),
            leeway: i64::from(spec.leeway_seconds),
            max_lifetime: spec.max_lifetime_seconds.map(i64::from),
            claims: spec.claims.clone(),
        })
    }

    /// Whether keys that we hold of this issuer end before `by`: when, in Unix seconds.
    pub fn keys_end_before(&self, by: i64) -> Option<i64> {
        match &self.keys {
            KeyOrigin::Inline(keys) => keys.valid_until().filter(|until| *until < by),
            KeyOrigin::Fetched(_) | KeyOrigin::Discovered(_) | KeyOrigin::Shared(_) => None,
        }
    }
}

fn origin(spec: &IssuerSpec) -> Result<KeyOrigin, Fault> {
    let at = |key: &'static str| move |problem: String| fault(key, problem);
    let inline = |keys: KeySet| KeyOrigin::Inline(Arc::new(keys));
    let given = (&spec.jwks_url, spec.discovery, &spec.jwks, &spec.pem, &spec.shared_secret);
    match given {
        (Some(url), false, None, None, None) => key_url(url).map(KeyOrigin::Fetched).map_err(at("jwks_url")),
        (None, true, None, None, None) => {
            keys::document_of(&spec.issuer).map(KeyOrigin::Discovered).map_err(at("issuer"))
        }
        (None, false, Some(jwks), None, None) => KeySet::parse(jwks).map(inline).map_err(at("jwks")),
        (None, false, None, Some(pem), None) => KeySet::parse_pem(pem).map(inline).map_err(at("pem")),
        (None, false, None, None, Some(name)) if !name.is_empty() => {
            Ok(KeyOrigin::Shared(name.as_str().into()))
        }
        _ => Err(fault("jwks", "give one of `jwks_url`, `discovery`, `jwks`, `pem` and `shared_secret`")),
    }
}

fn algorithms(spec: &IssuerSpec, keys: &KeyOrigin) -> Result<Box<[Algorithm]>, Fault> {
    let shared = matches!(keys, KeyOrigin::Shared(_));
    let known: &[Algorithm] = if shared { &SYMMETRIC } else { &ASYMMETRIC };
    let names = || known.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(", ");
    if shared && spec.algorithms.is_empty() {
        // Who shares a secret has to say that this is what is meant.
        return Err(fault("algorithms", format!("with `shared_secret`, name them: {}", names())));
    }
    let mut algorithms = Vec::new();
    for (index, name) in spec.algorithms.iter().enumerate() {
        let key = || format!("algorithms[{index}]");
        match Algorithm::from_str(name) {
            Ok(algorithm) if known.contains(&algorithm) => algorithms.push(algorithm),
            Ok(algorithm) if algorithm.family() == AlgorithmFamily::Hmac => {
                let problem = format!("`{name}` needs a `shared_secret`, and does not mix with public keys");
                return Err(fault(key(), problem));
            }
            _ => return Err(fault(key(), format!("`{name}` is not one of {}", names()))),
        }
    }
    if algorithms.is_empty() {
        algorithms.extend(known);
    }
    Ok(algorithms.into())
}

fn places(spec: &IssuerSpec) -> Result<Box<[TokenPlace]>, Fault> {
    let mut places = Vec::new();
    for (index, place) in spec.token_places.iter().enumerate() {
        let place = TokenPlace::from_spec(place)
            .map_err(|problem| fault(format!("token_places[{index}]"), problem))?;
        if places.contains(&place) {
            return Err(fault(format!("token_places[{index}]"), "stands there twice"));
        }
        places.push(place);
    }
    if places.is_empty() {
        places.push(TokenPlace::bearer());
    }
    Ok(places.into())
}

fn claim_headers(spec: &IssuerSpec) -> Result<Box<[ClaimHeader]>, Fault> {
    let mut headers: Vec<ClaimHeader> = Vec::new();
    for (index, written) in spec.claim_headers.iter().enumerate() {
        let key = || format!("claim_headers[{index}]");
        let header = ClaimHeader::from_spec(written).map_err(|problem| fault(key(), problem))?;
        if headers.iter().any(|other| other.header == header.header) {
            return Err(fault(key(), format!("the header `{}` is set twice", header.header)));
        }
        headers.push(header);
    }
    Ok(headers.into())
}

fn claim_parameters(spec: &IssuerSpec) -> Result<Box<[ClaimParameter]>, Fault> {
    let mut parameters: Vec<ClaimParameter> = Vec::new();
    for (index, written) in spec.claim_parameters.iter().enumerate() {
        let key = || format!("claim_parameters[{index}]");
        let parameter = ClaimParameter::from_spec(written).map_err(|problem| fault(key(), problem))?;
        let name = &parameter.parameter;
        if parameters.iter().any(|other| other.parameter == *name) {
            return Err(fault(key(), format!("the parameter `{name}` is set twice")));
        }
        let holds_token =
            |place: &TokenPlaceSpec| matches!(place, TokenPlaceSpec::Query(token) if **token == **name);
        if spec.token_places.iter().any(holds_token) {
            return Err(fault(key(), format!("a token stands in the parameter `{name}`")));
        }
        parameters.push(parameter);
    }
    Ok(parameters.into())
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
