//! One JSON Web Key (RFC 7517), read strictly.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use smallvec::smallvec;

use super::verifier::{Verifier, Verifiers};

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// Who may know a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everybody.
    Public,
    /// The issuer and we.
    Shared,
}

/// A parsed key and what it may verify.
#[derive(Debug)]
pub(super) struct Key {
    /// What revocations call it: its `kid`, else its thumbprint (RFC 7638).
    pub(super) id: Arc<str>,
    /// Unix seconds between which it may be used, both included, where it came in a certificate.
    pub(super) valid: Option<(i64, i64)>,
    verifiers: Verifiers,
}

/// Everything an RSA key may verify: RFC 7518 §3.3 and §3.5.
const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

impl Key {
    /// Reads a key, or says why it cannot be used. Whether it names itself stands beside it.
    pub(super) fn parse(jwk: &Value, kind: Kind) -> Result<(bool, Self), String> {
        let named = optional_text(jwk, "kid")?;
        if optional_text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err("use is not sig".to_owned());
        }
        if let Some(operations) = jwk.get("key_ops") {
            let verifies = operations.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
            if !verifies {
                return Err("key_ops does not name verify".to_owned());
            }
        }
        let only = optional_text(jwk, "alg")?.map(|name| (name, name.parse::<Algorithm>().ok()));
        let mut verifiers = match (kind, text(jwk, "kty")?) {
            (Kind::Public, "RSA") => rsa(jwk, only.and_then(|(_, algorithm)| algorithm))?,
            (Kind::Public, "EC") => elliptic(jwk)?,
            (Kind::Public, "OKP") => edwards(jwk)?,
            (Kind::Shared, "oct") => secret(jwk)?,
            (_, kind) => return Err(format!("kty {kind} is not supported")),
        };
        if let Some((name, only)) = only {
            verifiers.retain(|(algorithm, _)| Some(*algorithm) == only);
            if verifiers.is_empty() {
                return Err(format!("alg {name} does not fit this key"));
            }
        }
        let id = named.map_or_else(|| thumbprint(jwk), |kid| Ok(kid.into()))?;
        Ok((named.is_some(), Self { id, valid: None, verifiers }))
    }

    /// The key, if it may verify `algorithm`.
    pub(super) fn for_algorithm(&self, algorithm: Algorithm) -> Option<&Verifier> {
        self.verifiers.iter().find(|(known, _)| *known == algorithm).map(|(_, verifier)| verifier)
    }
}

/// A key that names its algorithm is made for that one alone.
fn rsa(jwk: &Value, only: Option<Algorithm>) -> Result<Verifiers, String> {
    let (modulus, exponent) = (bytes(jwk, "n", None)?, bytes(jwk, "e", None)?);
    let bits = bits(&modulus);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(format!("RSA with {bits} bits; accepted are {MIN_RSA_BITS} to {MAX_RSA_BITS}"));
    }
    let last = exponent.last().copied().unwrap_or(0);
    if self::bits(&exponent) < 2 || last.is_multiple_of(2) {
        return Err("the RSA exponent must be odd and at least 3".to_owned());
    }
    let components = RsaPublicKeyComponents { n: significant(&modulus), e: significant(&exponent) };
    RSA.iter()
        .filter(|(algorithm, _)| only.is_none_or(|only| only == *algorithm))
        .map(|(algorithm, parameters)| {
            let key = components.to_parsed_public_key(parameters).map_err(|_| "not an RSA key".to_owned())?;
            Ok((*algorithm, Verifier::Public(key)))
        })
        .collect()
}

/// Without the zeros that it should not begin with (RFC 7518 §6.3.1.1), and sometimes does.
fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

fn bits(number: &[u8]) -> usize {
    let significant = significant(number);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

fn elliptic(jwk: &Value) -> Result<Verifiers, String> {
    let (length, verifier, algorithm) = match text(jwk, "crv")? {
        "P-256" => (32, &ECDSA_P256_SHA256_FIXED, Algorithm::ES256),
        "P-384" => (48, &ECDSA_P384_SHA384_FIXED, Algorithm::ES384),
        curve => return Err(format!("curve {curve} is not supported")),
    };
    let (x, y) = (bytes(jwk, "x", Some(length))?, bytes(jwk, "y", Some(length))?);
    // The uncompressed point (SEC 1 §2.3.3), which is what the verifier takes.
    let point = [&[4_u8][..], &x, &y].concat();
    let key = ParsedPublicKey::new(verifier, &point);
    Ok(smallvec![(algorithm, Verifier::Public(key.map_err(|_| "the point is not on its curve".to_owned())?))])
}

fn edwards(jwk: &Value) -> Result<Verifiers, String> {
    match text(jwk, "crv")? {
        "Ed25519" => {
            let x = bytes(jwk, "x", Some(32))?;
            let key = ParsedPublicKey::new(&ED25519, &x).map_err(|_| "not an Ed25519 key".to_owned())?;
            Ok(smallvec![(Algorithm::EdDSA, Verifier::Public(key))])
        }
        curve => Err(format!("curve {curve} is not supported")),
    }
}

/// A shared secret is at least as long as the hash (RFC 7518 §3.2), so what it may verify follows from its length.
fn secret(jwk: &Value) -> Result<Verifiers, String> {
    const BY_LENGTH: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    let secret = bytes(jwk, "k", None)?;
    let algorithms = match secret.len() {
        64.. => BY_LENGTH,
        48.. => &BY_LENGTH[..2],
        32.. => &BY_LENGTH[..1],
        short => return Err(format!("a secret of {short} bytes; HS256 needs 32, HS384 48, HS512 64")),
    };
    let key = DecodingKey::from_secret(&secret);
    Ok(algorithms.iter().map(|algorithm| (*algorithm, Verifier::Shared(*algorithm, key.clone()))).collect())
}

/// The key's own name (RFC 7638): a hash of its members that make it, in the order of their names.
fn thumbprint(jwk: &Value) -> Result<Arc<str>, String> {
    let members: &[&str] = match text(jwk, "kty")? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        // A hash of a secret says something about it; nobody needs to name one in public.
        _ => return Ok("shared".into()),
    };
    let mut canonical = String::from("{");
    for (index, name) in members.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // These values are base64url or names of curves, checked before, so nothing in them is escaped.
        write!(canonical, r#"{comma}"{name}":"{}""#, text(jwk, name)?).expect("a String takes everything");
    }
    canonical.push('}');
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes())).into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_a_name_is_called_by_its_thumbprint() {
        // The example of RFC 7638 §3.1, and that of RFC 8037 §A.3.
        let rsa = serde_json::json!({"kty": "RSA", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"});
        assert_eq!(
            Key::parse(&rsa, Kind::Public).unwrap().1.id.as_ref(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        let ed = serde_json::json!({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(
            Key::parse(&ed, Kind::Public).unwrap().1.id.as_ref(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn numbers_that_begin_with_zeros_are_the_same_numbers() {
        let signer = tollgate_testkit::signer::Signer::new(Algorithm::RS256, "k");
        let mut jwk = signer.jwk();
        for name in ["n", "e"] {
            let number = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
            jwk[name] = URL_SAFE_NO_PAD.encode([&[0][..], &number].concat()).into();
        }
        let (_, key) = Key::parse(&jwk, Kind::Public).unwrap();
        let token = signer.token(&serde_json::json!({}));
        let (message, signature) = token.rsplit_once('.').unwrap();
        assert!(key.for_algorithm(Algorithm::RS256).unwrap().accepts(message.as_bytes(), signature));
    }

    #[test]
    fn a_secret_is_as_long_as_its_hash() {
        let of = |length: usize, alg: Option<&str>| {
            let mut jwk = serde_json::json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(vec![7; length])});
            if let Some(alg) = alg {
                jwk["alg"] = alg.into();
            }
            Key::parse(&jwk, Kind::Shared).map(|(_, key)| {
                [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]
                    .map(|algorithm| key.for_algorithm(algorithm).is_some())
            })
        };
        assert!(of(0, None).is_err() && of(31, None).is_err());
        assert_eq!(of(32, None), Ok([true, false, false]));
        assert_eq!(of(48, None), Ok([true, true, false]));
        assert_eq!(of(64, None), Ok([true, true, true]));
        assert_eq!(of(64, Some("HS384")), Ok([false, true, false]));
        assert!(of(47, Some("HS384")).is_err());
    }
}
