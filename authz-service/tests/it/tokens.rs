//! Every way in which a token can be bad, each with its reason.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tollgate_authz::policy::spec::IssuerSpec;
use tollgate_authz::token::{Issuer, KeyOrigin, Refusal, TrustedIssuer, Unverified, VerifiedToken};
use tollgate_proto::Reason;

use crate::signer::Signer;

const NOW: i64 = 1_800_000_000;

fn trusted(mut spec: Value) -> TrustedIssuer {
    spec["name"] = json!("demo");
    spec["issuer"] = json!("https://i");
    let spec: IssuerSpec = serde_json::from_value(spec).unwrap();
    let issuer = Arc::new(Issuer::from_spec(&spec).unwrap());
    let KeyOrigin::Inline(keys) = &issuer.keys else { panic!("keys are inline") };
    TrustedIssuer { keys: Arc::clone(keys), issuer: Arc::clone(&issuer), confirmed: None }
}

fn verify(token: &str, issuer: &TrustedIssuer) -> Result<VerifiedToken, Refusal> {
    Unverified::parse(token)?.verify(issuer, &["insurance".into()], NOW)
}

fn good() -> Value {
    json!({"iss": "https://i", "sub": "reader", "aud": ["other", "insurance"], "iat": NOW - 10, "exp": NOW + 60,
        "scope": "a b", "groups": ["g"], "azp": "web", "jti": "j"})
}

fn changed(key: &str, value: Value) -> Value {
    let mut claims = good();
    claims[key] = value;
    claims
}

fn without(key: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(key);
    claims
}

#[test]
fn every_algorithm_verifies_with_its_key_and_no_other() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ] {
        let signer = Signer::new(algorithm, "k");
        let issuer = trusted(json!({"jwks": signer.jwks()}));
        let token = signer.token(&good());
        let verified = verify(&token, &issuer).unwrap_or_else(|refusal| panic!("{algorithm:?}: {refusal:?}"));
        assert_eq!((verified.subject.as_str(), verified.algorithm), ("reader", Some(algorithm)));
        let other = trusted(json!({"jwks": Signer::new(algorithm, "k").jwks()}));
        assert_eq!(verify(&token, &other).unwrap_err().reason, Reason::TokenSignature, "{algorithm:?}");
        // One byte of the message, one of the signature.
        for at in [token.find('.').unwrap() + 3, token.len() - 10] {
            let mut broken = token.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            assert!(verify(&String::from_utf8(broken).unwrap(), &issuer).is_err(), "{algorithm:?} byte {at}");
        }
    }
}

#[test]
fn claims_are_read() {
    let signer = Signer::new(Algorithm::EdDSA, "k");
    let token = verify(&signer.token(&good()), &trusted(json!({"jwks": signer.jwks()}))).unwrap();
    assert_eq!(token.scopes, ["a", "b"]);
    assert_eq!(token.groups, ["g"]);
    assert_eq!(token.audience, ["other", "insurance"]);
    assert_eq!((token.client_id.as_deref(), token.jti.as_deref()), (Some("web"), Some("j")));
    assert_eq!((token.issued_at, token.expires_at), (Some(NOW - 10), NOW + 60));
    // An issuer may call them otherwise.
    let issuer = trusted(json!({"jwks": signer.jwks(),
        "claims": {"groups": ["realm_access.roles"], "scopes": ["permissions"], "subject": ["uid"]}}));
    let mut claims = good();
    claims["realm_access"] = json!({"roles": ["r"]});
    claims["permissions"] = json!(["p:q"]);
    claims["uid"] = json!("u");
    let token = verify(&signer.token(&claims), &issuer).unwrap();
    assert_eq!(
        (token.subject.as_str(), token.groups, token.scopes),
        ("u", vec!["r".into()], vec!["p:q".into()])
    );
}

#[test]
fn every_bad_claim_has_its_reason() {
    let signer = Signer::new(Algorithm::EdDSA, "k");
    let issuer = trusted(json!({"jwks": signer.jwks(), "leeway_seconds": 5, "max_lifetime_seconds": 3600}));
    let check = |claims: Value, expected: Result<(), Reason>| {
        let verified = verify(&signer.token(&claims), &issuer);
        assert_eq!(verified.map(|_| ()).map_err(|refusal| refusal.reason), expected, "{claims}");
    };
    check(good(), Ok(()));
    // Time, with the leeway on both sides of the edge.
    check(changed("exp", json!(NOW - 4)), Ok(()));
    check(changed("exp", json!(NOW - 5)), Err(Reason::TokenExpired));
    check(changed("exp", json!(0)), Err(Reason::TokenExpired));
    check(changed("exp", json!(-1)), Err(Reason::TokenExpired));
    check(changed("exp", json!(NOW as f64 + 1.5)), Ok(()));
    check(changed("exp", json!("soon")), Err(Reason::TokenClaims));
    check(changed("exp", json!(null)), Err(Reason::TokenClaims));
    check(changed("exp", json!(1e300)), Err(Reason::TokenClaims));
    check(without("exp"), Err(Reason::TokenClaims));
    check(changed("nbf", json!(NOW + 5)), Ok(()));
    check(changed("nbf", json!(NOW + 6)), Err(Reason::TokenNotYet));
    check(changed("nbf", json!("x")), Err(Reason::TokenClaims));
    check(changed("iat", json!(NOW + 6)), Err(Reason::TokenNotYet));
    check(changed("iat", json!([])), Err(Reason::TokenClaims));
    check(changed("iat", json!(NOW - 3541)), Err(Reason::TokenClaims));
    check(without("iat"), Err(Reason::TokenClaims));
    // Whom it is for.
    check(changed("aud", json!("insurance")), Ok(()));
    check(changed("aud", json!("Insurance")), Err(Reason::TokenAudience));
    check(changed("aud", json!([])), Err(Reason::TokenAudience));
    check(changed("aud", json!({"insurance": 1})), Err(Reason::TokenAudience));
    check(changed("aud", json!(["insurance", 1])), Err(Reason::TokenAudience));
    check(without("aud"), Err(Reason::TokenAudience));
    // Who.
    check(without("sub"), Err(Reason::TokenClaims));
    check(changed("sub", json!("")), Err(Reason::TokenClaims));
    check(changed("sub", json!(["reader"])), Err(Reason::TokenClaims));
    check(changed("scope", json!({"a": 1})), Err(Reason::TokenClaims));
    check(changed("scope", json!(["a", 1])), Err(Reason::TokenClaims));
    check(changed("groups", json!("g")), Err(Reason::TokenClaims));
    check(changed("jti", json!(7)), Err(Reason::TokenClaims));
    check(changed("cnf", json!({"x5t#S256": "abc"})), Err(Reason::TokenBinding));
}

#[test]
fn every_bad_header_has_its_reason() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let issuer = trusted(json!({"jwks": signer.jwks()}));
    let header = |key: &str, value: Value| {
        let mut header = json!({"alg": "ES256", "typ": "JWT", "kid": "k"});
        header[key] = value;
        signer.signed(&header, &good())
    };
    let check = |token: String, expected: Result<(), Reason>| {
        let verified = verify(&token, &issuer);
        assert_eq!(verified.map(|_| ()).map_err(|refusal| refusal.reason), expected, "{token}");
    };
    for typ in ["jwt", "at+jwt", "application/at+JWT"] {
        check(header("typ", json!(typ)), Ok(()));
    }
    check(signer.signed(&json!({"alg": "ES256"}), &good()), Ok(()));
    for (key, value) in [
        ("typ", json!("secevent+jwt")),
        ("typ", json!(1)),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("jwk", signer.jwk()),
        ("jku", json!("https://evil")),
        ("x5u", json!("https://evil")),
        ("x5c", json!(["abc"])),
        ("enc", json!("A128GCM")),
        ("zip", json!("DEF")),
        ("kid", json!(1)),
        ("alg", json!(null)),
    ] {
        check(header(key, value), Err(Reason::TokenMalformed));
    }
    for alg in ["none", "None", "HS256", "ES521", "es256", ""] {
        check(header("alg", json!(alg)), Err(Reason::TokenAlgorithm));
    }
    check(header("alg", json!("ES384")), Err(Reason::TokenAlgorithm));
    check(header("alg", json!("RS256")), Err(Reason::TokenAlgorithm));
    check(header("kid", json!("other")), Err(Reason::TokenKeyUnknown));
    // A member twice, in the header and deep in the claims.
    let twice = signer.signed_text(r#"{"alg":"ES256","kid":"k","kid":"k"}"#, &good().to_string());
    check(twice, Err(Reason::TokenMalformed));
    let claims = good().to_string().replacen('{', r#"{"x":{"a":1,"a":2},"#, 1);
    check(signer.signed_text(r#"{"alg":"ES256","kid":"k"}"#, &claims), Err(Reason::TokenMalformed));
    // Forms.
    let token = signer.token(&good());
    for broken in ["", ".", "..", "a.b", "a.b.c.d", "a.b.c.d.e", &format!("{token}."), &format!(".{token}")] {
        check(broken.to_owned(), Err(Reason::TokenMalformed));
    }
    check("x".repeat(20_000), Err(Reason::TokenMalformed));
    check(format!("{token}="), Err(Reason::TokenSignature));
}

#[test]
fn an_issuer_may_be_stricter() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let token = signer.token(&good());
    let reason = |spec: Value| verify(&token, &trusted(spec)).map(|_| ()).map_err(|refusal| refusal.reason);
    assert_eq!(reason(json!({"jwks": signer.jwks(), "algorithms": ["RS256"]})), Err(Reason::TokenAlgorithm));
    assert_eq!(reason(json!({"jwks": signer.jwks(), "typ": ["at+jwt"]})), Err(Reason::TokenMalformed));
    assert_eq!(
        reason(json!({"jwks": signer.jwks(), "audiences": ["elsewhere"]})),
        Err(Reason::TokenAudience)
    );
    assert_eq!(reason(json!({"jwks": signer.jwks(), "algorithms": ["ES256"], "typ": ["JWT"]})), Ok(()));
}

#[test]
fn key_sets_in_which_something_is_unclear_are_refused() {
    let (a, b) = (Signer::new(Algorithm::ES256, "k"), Signer::new(Algorithm::EdDSA, "k"));
    let edited = |key: &str, value: Value| {
        let mut jwk = a.jwk();
        jwk[key] = value;
        json!({"keys": [jwk]})
    };
    for (jwks, needle) in [
        (json!({}), "no list `keys`"),
        (json!({"keys": []}), "no usable key"),
        (json!({"keys": [a.jwk(), b.jwk()]}), "two keys have the kid `k`"),
        (json!({"keys": [a.jwk(), {"kty": "oct", "k": "AAAA"}]}), "symmetric"),
        (edited("d", json!("secret")), "private"),
        (edited("use", json!("enc")), "use is not sig"),
        (edited("key_ops", json!(["sign"])), "key_ops"),
        (edited("alg", json!("ES384")), "does not fit"),
        (edited("crv", json!("P-384")), "x has 32 bytes, not 48"),
        (edited("crv", json!("P-521")), "not supported"),
        (edited("kty", json!("RSA")), "n is missing"),
        (json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}), "RSA with 17 bits"),
    ] {
        let spec = json!({"name": "x", "issuer": "https://x", "jwks": jwks});
        let spec: IssuerSpec = serde_json::from_value(spec).unwrap();
        let (key, problem) = Issuer::from_spec(&spec).unwrap_err();
        assert!(key == "jwks" && problem.contains(needle), "{jwks}: {problem}");
    }
}

#[test]
fn a_token_that_names_no_key_means_the_only_one_that_fits() {
    let (a, b, c) = (
        Signer::new(Algorithm::ES256, "a"),
        Signer::new(Algorithm::ES256, "b"),
        Signer::new(Algorithm::EdDSA, "c"),
    );
    let unnamed =
        |signer: &Signer| signer.signed(&json!({"alg": format!("{:?}", signer.algorithm)}), &good());
    let issuer = trusted(json!({"jwks": {"keys": [a.jwk(), b.jwk(), c.jwk()]}}));
    assert!(verify(&unnamed(&c), &issuer).is_ok());
    assert_eq!(verify(&unnamed(&a), &issuer).unwrap_err().reason, Reason::TokenKeyUnknown);
}
