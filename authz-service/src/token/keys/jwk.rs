//! One JSON Web Key (RFC 7517), read strictly.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// A parsed key and what it may verify.
#[derive(Debug)]
pub(super) struct Key {
    decoding: DecodingKey,
    algorithms: &'static [Algorithm],
    only: Option<Algorithm>,
}

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

impl Key {
    /// Reads a key and its id, or says why it cannot be used.
    pub(super) fn parse(jwk: &Value) -> Result<(Option<Box<str>>, Self), String> {
        let id = optional_text(jwk, "kid")?.map(Into::into);
        if optional_text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err("use is not sig".to_owned());
        }
        if let Some(operations) = jwk.get("key_ops") {
            let verifies = operations.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
            if !verifies {
                return Err("key_ops does not name verify".to_owned());
            }
        }
        let (decoding, algorithms) = match text(jwk, "kty")? {
            "RSA" => (rsa(jwk)?, RSA),
            "EC" => match text(jwk, "crv")? {
                "P-256" => (elliptic(jwk, 32)?, &[Algorithm::ES256][..]),
                "P-384" => (elliptic(jwk, 48)?, &[Algorithm::ES384][..]),
                curve => return Err(format!("curve {curve} is not supported")),
            },
            "OKP" => match text(jwk, "crv")? {
                "Ed25519" => (DecodingKey::from_ed_der(&bytes(jwk, "x", Some(32))?), &[Algorithm::EdDSA][..]),
                curve => return Err(format!("curve {curve} is not supported")),
            },
            kind => return Err(format!("kty {kind} is not supported")),
        };
        let only = match optional_text(jwk, "alg")? {
            None => None,
            Some(name) => match name.parse::<Algorithm>() {
                Ok(algorithm) if algorithms.contains(&algorithm) => Some(algorithm),
                _ => return Err(format!("alg {name} does not fit this key")),
            },
        };
        Ok((id, Self { decoding, algorithms, only }))
    }

    /// The key, if it may verify `algorithm`.
    pub(super) fn for_algorithm(&self, algorithm: Algorithm) -> Option<&DecodingKey> {
        let fits = match self.only {
            Some(only) => only == algorithm,
            None => self.algorithms.contains(&algorithm),
        };
        fits.then_some(&self.decoding)
    }
}

fn rsa(jwk: &Value) -> Result<DecodingKey, String> {
    let (modulus, exponent) = (bytes(jwk, "n", None)?, bytes(jwk, "e", None)?);
    let bits = bits(&modulus);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(format!("RSA with {bits} bits; accepted are {MIN_RSA_BITS} to {MAX_RSA_BITS}"));
    }
    let last = exponent.last().copied().unwrap_or(0);
    if self::bits(&exponent) < 2 || last.is_multiple_of(2) {
        return Err("the RSA exponent must be odd and at least 3".to_owned());
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn bits(number: &[u8]) -> usize {
    let significant: &[u8] = &number[number.iter().take_while(|byte| **byte == 0).count()..];
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

fn elliptic(jwk: &Value, coordinate: usize) -> Result<DecodingKey, String> {
    let (x, y) = (bytes(jwk, "x", Some(coordinate))?, bytes(jwk, "y", Some(coordinate))?);
    // The uncompressed point (SEC 1 §2.3.3), which is what the verifier takes.
    Ok(DecodingKey::from_ec_der(&[&[4_u8][..], &x, &y].concat()))
}

fn bytes(jwk: &Value, name: &str, length: Option<usize>) -> Result<Vec<u8>, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text(jwk, name)?).map_err(|_| format!("{name} is not base64url"))?;
    match length {
        Some(length) if bytes.len() != length => {
            Err(format!("{name} has {} bytes, not {length}", bytes.len()))
        }
        _ => Ok(bytes),
    }
}

fn text<'a>(jwk: &'a Value, name: &str) -> Result<&'a str, String> {
    optional_text(jwk, name)?.ok_or_else(|| format!("{name} is missing"))
}

fn optional_text<'a>(jwk: &'a Value, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a text")),
    }
}
