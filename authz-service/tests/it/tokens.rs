//! Every way in which a token can be bad, each with its reason.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tollgate_authz::policy::spec::IssuerSpec;
use tollgate_authz::token::{Check, Issuer, Jws, KeyOrigin, Occasion, Refusal, TrustedIssuer, VerifiedToken};
use tollgate_proto::Reason;

use tollgate_testkit::signer::Signer;

pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn trusted(mut spec: Value) -> TrustedIssuer {
    spec["name"] = json!("demo");
    spec["issuer"] = json!("https://i");
    let spec: IssuerSpec = serde_json::from_value(spec).unwrap();
    let issuer = Arc::new(Issuer::from_spec(&spec).unwrap());
    let KeyOrigin::Inline(keys) = &issuer.keys else { panic!("keys are inline") };
    TrustedIssuer { keys: Arc::clone(keys), issuer: Arc::clone(&issuer), confirmed: None }
}

pub(crate) fn verify(token: &str, issuer: &TrustedIssuer) -> Result<VerifiedToken, Refusal> {
    let token = Jws::parse(token)?.claims()?.verify(&issuer.issuer, &issuer.keys, NOW)?;
    let occasion = Occasion { audiences: &["insurance".into()], holder: None, now: NOW };
    token.admit(&issuer.issuer, &occasion).map(|()| token)
}

pub(crate) fn good() -> Value {
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
fn every_bad_claim_has_its_check() {
    let signer = Signer::new(Algorithm::EdDSA, "k");
    let issuer = trusted(json!({"jwks": signer.jwks(), "leeway_seconds": 5, "max_lifetime_seconds": 3600,
        "audiences": ["other"]}));
    let check = |claims: Value, expected: Result<(), Check>| {
        let verified = verify(&signer.token(&claims), &issuer);
        assert_eq!(verified.map(|_| ()).map_err(|refusal| refusal.check), expected, "{claims}");
    };
    check(good(), Ok(()));
    // Time, with the leeway on both sides of the edge.
    check(changed("exp", json!(NOW - 4)), Ok(()));
    check(changed("exp", json!(NOW - 5)), Err(Check::Expiry));
    check(changed("exp", json!(0)), Err(Check::Expiry));
    check(changed("exp", json!(-1)), Err(Check::Expiry));
    check(changed("exp", json!(NOW as f64 + 1.5)), Ok(()));
    check(changed("exp", json!("soon")), Err(Check::ClaimTypes));
    check(changed("exp", json!(null)), Err(Check::ClaimTypes));
    check(changed("exp", json!(1e300)), Err(Check::ClaimTypes));
    check(without("exp"), Err(Check::ClaimTypes));
    check(changed("nbf", json!(NOW + 5)), Ok(()));
    check(changed("nbf", json!(NOW + 6)), Err(Check::NotBefore));
    check(changed("nbf", json!("x")), Err(Check::ClaimTypes));
    check(changed("iat", json!(NOW + 6)), Err(Check::IssuedAt));
    check(changed("iat", json!([])), Err(Check::ClaimTypes));
    check(changed("iat", json!(NOW - 3541)), Err(Check::Lifetime));
    check(without("iat"), Err(Check::Lifetime));
    // Whom it is for: the service and the issuer both have a say.
    check(changed("aud", json!(["insurance", "other", "third"])), Ok(()));
    check(changed("aud", json!("insurance")), Err(Check::IssuerAudience));
    check(changed("aud", json!("other")), Err(Check::ServiceAudience));
    check(changed("aud", json!(["Insurance", "other"])), Err(Check::ServiceAudience));
    check(changed("aud", json!([])), Err(Check::ServiceAudience));
    check(changed("aud", json!({"insurance": 1})), Err(Check::AudienceType));
    check(changed("aud", json!(["insurance", "other", 1])), Err(Check::AudienceType));
    check(changed("aud", json!(null)), Err(Check::AudienceType));
    check(without("aud"), Err(Check::ServiceAudience));
    // Who.
    check(without("sub"), Err(Check::ClaimTypes));
    check(changed("sub", json!("")), Err(Check::ClaimTypes));
    check(changed("sub", json!(["reader"])), Err(Check::ClaimTypes));
    check(changed("scope", json!({"a": 1})), Err(Check::ClaimTypes));
    check(changed("scope", json!(["a", 1])), Err(Check::ClaimTypes));
    check(changed("groups", json!("g")), Err(Check::ClaimTypes));
    check(changed("jti", json!(7)), Err(Check::ClaimTypes));
    check(changed("azp", json!(7)), Err(Check::ClaimTypes));
}

#[test]
fn a_bound_token_is_for_whom_it_is_bound_to() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let issuer = trusted(json!({"jwks": signer.jwks()}));
    let check = |confirmation: Value, holder: Option<&str>, expected: Result<(), Check>| {
        let token = signer.token(&changed("cnf", confirmation.clone()));
        let jws = Jws::parse(&token).unwrap();
        let token = jws.claims().unwrap().verify(&issuer.issuer, &issuer.keys, NOW).unwrap();
        let occasion = Occasion { audiences: &[], holder, now: NOW };
        let admitted = token.admit(&issuer.issuer, &occasion).map_err(|refusal| refusal.check);
        assert_eq!(admitted, expected, "{confirmation}");
    };
    check(json!({"x5t#S256": "abc"}), Some("abc"), Ok(()));
    check(json!({"x5t#S256": "abc"}), None, Err(Check::Binding));
    check(json!({"x5t#S256": "abd"}), Some("abc"), Err(Check::Binding));
    check(json!({"x5t#S256": ""}), Some("abc"), Err(Check::Binding));
    check(json!({"jkt": "abc"}), Some("abc"), Err(Check::Binding));
    check(json!({"x5t#S256": "abc", "jkt": "abc"}), Some("abc"), Err(Check::Binding));
    check(json!({}), Some("abc"), Err(Check::Binding));
    check(json!("abc"), Some("abc"), Err(Check::Binding));
}

#[test]
fn every_bad_header_has_its_check() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let issuer = trusted(json!({"jwks": signer.jwks()}));
    let header = |key: &str, value: Value| {
        let mut header = json!({"alg": "ES256", "typ": "JWT", "kid": "k"});
        header[key] = value;
        signer.signed(&header, &good())
    };
    let check = |token: String, expected: Result<(), Check>| {
        let verified = verify(&token, &issuer);
        assert_eq!(verified.map(|_| ()).map_err(|refusal| refusal.check), expected, "{token}");
    };
    for typ in ["jwt", "at+jwt", "application/at+JWT"] {
        check(header("typ", json!(typ)), Ok(()));
    }
    check(signer.signed(&json!({"alg": "ES256"}), &good()), Ok(()));
    for (key, value, expected) in [
        ("typ", json!("secevent+jwt"), Check::Type),
        ("typ", json!(1), Check::Header),
        ("crit", json!(["exp"]), Check::Critical),
        ("crit", json!([]), Check::Critical),
        ("b64", json!(false), Check::Unencoded),
        ("b64", json!(true), Check::Unencoded),
        ("jwk", signer.jwk(), Check::EmbeddedKey),
        ("jku", json!("https://evil"), Check::EmbeddedKey),
        ("x5u", json!("https://evil"), Check::EmbeddedKey),
        ("x5c", json!(["abc"]), Check::EmbeddedKey),
        ("enc", json!("A128GCM"), Check::Encrypted),
        ("zip", json!("DEF"), Check::Encrypted),
        ("kid", json!(1), Check::Header),
        ("kid", json!("other"), Check::Key),
        ("alg", json!(null), Check::Header),
        ("alg", json!("ES384"), Check::KeyAlgorithm),
        ("alg", json!("RS256"), Check::KeyAlgorithm),
        // A public key is no secret: HS256 keyed with it is the oldest trick of all.
        ("alg", json!("HS256"), Check::IssuerAlgorithm),
    ] {
        check(header(key, value), Err(expected));
    }
    for alg in ["none", "None", "NONE", "ES521", "ES512", "es256", "dir", ""] {
        check(header("alg", json!(alg)), Err(Check::Algorithm));
    }
    // A member twice, in the header and deep in the claims, also where only escapes differ.
    let twice = signer.signed_text(r#"{"alg":"ES256","kid":"k","kid":"k"}"#, &good().to_string());
    check(twice, Err(Check::Header));
    for twice in [r#"{"x":{"a":1,"a":2},"#, r#"{"x":[{"a":1,"\u0061":2}],"#, r#"{"sub":"root","#] {
        let claims = good().to_string().replacen('{', twice, 1);
        check(signer.signed_text(r#"{"alg":"ES256","kid":"k"}"#, &claims), Err(Check::Payload));
    }
    check(signer.signed_text("[]", "{}"), Err(Check::Header));
    check(signer.signed_text(r#"{"alg":"ES256","kid":"k"}"#, "[]"), Err(Check::Payload));
    // Forms.
    let token = signer.token(&good());
    for broken in ["", ".", "a.b", "a.b.c.d", &format!("{token}."), &format!(".{token}")] {
        check(broken.to_owned(), Err(Check::Form));
    }
    check("..".to_owned(), Err(Check::Header));
    check("a.b.c.d.e".to_owned(), Err(Check::Encrypted));
    check("x".repeat(20_000), Err(Check::Size));
    check(token.replacen('.', "=.", 1), Err(Check::Encoding));
    check(format!(" {token}"), Err(Check::Encoding));
    check(format!("{token}="), Err(Check::Signature));
    check(format!("{token}\n"), Err(Check::Signature));
    check(token[..token.rfind('.').unwrap() + 1].to_owned(), Err(Check::Signature));
}

#[test]
fn a_bad_signature_and_bad_claims_are_told_apart() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let issuer = trusted(json!({"jwks": signer.jwks()}));
    let wrong = Signer::new(Algorithm::ES256, "k").token(&without("sub"));
    assert_eq!(verify(&wrong, &issuer).unwrap_err().reason, Reason::TokenSignature);
    let right = signer.token(&without("sub"));
    assert_eq!(verify(&right, &issuer).unwrap_err().reason, Reason::TokenClaims);
}
