//! Issuers as people write them: which are refused and why, and what the others lead to.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_authz::policy::spec::IssuerSpec;
use tollgate_authz::token::keys::KeySet;
use tollgate_authz::token::{Check, Issuer, Jws};
use tollgate_runtime::clock::Clock;

use crate::running::Running;
use crate::tokens::{NOW, good, trusted, verify};
use tollgate_testkit::signer::Signer;

fn fault(mut spec: Value) -> (String, String) {
    let written = spec.as_object_mut().unwrap();
    written.entry("name").or_insert(json!("x"));
    written.entry("issuer").or_insert(json!("https://x"));
    let spec: IssuerSpec = serde_json::from_value(spec).unwrap();
    Issuer::from_spec(&spec).map(|issuer| panic!("accepted {issuer:?}")).unwrap_err()
}

/// One element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..0x80 => vec![length[1]],
        0x80..0x100 => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag][..], &length, &content].concat()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The SubjectPublicKeyInfo of a signer on P-256.
fn public_key(signer: &Signer) -> Vec<u8> {
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(signer.jwk()[name].as_str().unwrap()).unwrap();
    let elliptic = der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]]);
    let p256 = der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]]);
    let bits = der(3, &[&[0, 4], &coordinate("x"), &coordinate("y")]);
    der(0x30, &[&der(0x30, &[&elliptic, &p256]), &bits])
}

/// A certificate around a key. Nobody checks its own signature: it is trusted for where it stands.
fn certificate(signer: &Signer, from: &str, until: &str) -> Vec<u8> {
    let (empty, serial) = (der(0x30, &[]), der(2, &[&[7]]));
    let ecdsa = der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let dates = der(0x30, &[&der(0x18, &[from.as_bytes()]), &der(0x18, &[until.as_bytes()])]);
    let version = der(0xa0, &[&der(2, &[&[2]])]);
    let signed = der(0x30, &[&version, &serial, &ecdsa, &empty, &dates, &empty, &public_key(signer)]);
    der(0x30, &[&signed, &ecdsa, &der(3, &[&[0]])])
}

#[test]
fn every_fault_names_its_key() {
    let jwks = Signer::new(Algorithm::ES256, "k").jwks();
    for (spec, key, needle) in [
        (json!({"jwks": jwks, "issuer": ""}), "issuer", "cannot be empty"),
        (json!({}), "jwks", "give one of"),
        (json!({"jwks": jwks, "jwks_url": "https://x"}), "jwks", "give one of"),
        (json!({"jwks": jwks, "discovery": true}), "jwks", "give one of"),
        (json!({"jwks": jwks, "pem": "x"}), "jwks", "give one of"),
        (json!({"jwks": jwks, "shared_secret": "x"}), "jwks", "give one of"),
        (json!({"shared_secret": ""}), "jwks", "give one of"),
        (json!({"jwks_url": "http://idp.example/jwks"}), "jwks_url", "https"),
        (json!({"jwks_url": "https://user:pass@idp.example/jwks"}), "jwks_url", "user or password"),
        (json!({"jwks_url": "idp.example"}), "jwks_url", "no URL"),
        (json!({"discovery": true, "issuer": "http://idp.example"}), "issuer", "https"),
        (json!({"discovery": true, "issuer": "demo"}), "issuer", "no URL"),
        (json!({"pem": "nothing"}), "pem", "no PEM block"),
        (json!({"pem": pem("CERTIFICATE", b"abc")}), "pem", "not the DER"),
        (json!({"pem": pem("EC PRIVATE KEY", b"abc")}), "pem", "private key"),
        (json!({"pem": pem("PKCS7", b"abc")}), "pem", "write PUBLIC KEY"),
        (json!({"jwks": jwks, "algorithms": ["ES257"]}), "algorithms[0]", "not one of RS256"),
        (json!({"jwks": jwks, "algorithms": ["none"]}), "algorithms[0]", "not one of RS256"),
        (json!({"jwks": jwks, "algorithms": ["ES256", "HS256"]}), "algorithms[1]", "does not mix"),
        (json!({"shared_secret": "s"}), "algorithms", "name them"),
        (
            json!({"shared_secret": "s", "algorithms": ["HS256", "ES256"]}),
            "algorithms[1]",
            "not one of HS256",
        ),
        (json!({"jwks": jwks, "leeway_seconds": 3600}), "leeway_seconds", "at most 300"),
        (
            json!({"jwks": jwks, "token_places": [{"header": "x y"}]}),
            "token_places[0]",
            "no name of a header",
        ),
        (json!({"jwks": jwks, "token_places": [{"header": "cookie"}]}), "token_places[0]", "{cookie:"),
        (json!({"jwks": jwks, "token_places": [{"query": "a&b"}]}), "token_places[0]", "query parameter"),
        (json!({"jwks": jwks, "token_places": [{"cookie": "a=b"}]}), "token_places[0]", "cookie"),
        (
            json!({"jwks": jwks, "token_places": [{"header": "X-A"}, {"header": "x-a"}]}),
            "token_places[1]",
            "twice",
        ),
        (
            json!({"jwks": jwks, "claim_headers": [{"claim": "sub", "header": "host"}]}),
            "claim_headers[0]",
            "means something",
        ),
        (
            json!({"jwks": jwks, "claim_headers": [{"claim": "sub", "header": "x-a"}, {"claim": "b", "header": "X-A"}]}),
            "claim_headers[1]",
            "set twice",
        ),
        (
            json!({"jwks": jwks, "claim_parameters": [{"claim": "sub", "parameter": "a&b"}]}),
            "claim_parameters[0]",
            "query parameter",
        ),
        (
            json!({"jwks": jwks, "claim_parameters": [{"claim": "a", "parameter": "p"}, {"claim": "b", "parameter": "p"}]}),
            "claim_parameters[1]",
            "set twice",
        ),
        (
            json!({"jwks": jwks, "token_places": [{"query": "t"}], "claim_parameters": [{"claim": "a", "parameter": "t"}]}),
            "claim_parameters[0]",
            "a token stands",
        ),
    ] {
        let (found, problem) = fault(spec.clone());
        assert!(found == key && problem.contains(needle), "{spec}: {found}: {problem}");
    }
}

#[test]
fn a_public_key_in_pem_stands_for_every_kid() {
    let (a, b) = (Signer::new(Algorithm::ES256, "a"), Signer::new(Algorithm::ES256, "b"));
    let both = pem("PUBLIC KEY", &public_key(&a)) + &pem("PUBLIC KEY", &public_key(&b));
    let issuer = trusted(json!({"pem": both}));
    let token = verify(&a.token(&good()), &issuer).unwrap();
    // Its id is its thumbprint, so that it stays revoked whatever a token calls it.
    let unnamed = verify(&a.signed(&json!({"alg": "ES256"}), &good()), &issuer).unwrap();
    assert_eq!(token.kid, unnamed.kid);
    assert_ne!(token.kid, verify(&b.token(&good()), &issuer).unwrap().kid);
    let stranger = Signer::new(Algorithm::ES256, "a");
    assert_eq!(verify(&stranger.token(&good()), &issuer).unwrap_err().check, Check::Signature);
    let other = Signer::new(Algorithm::EdDSA, "a");
    assert_eq!(verify(&other.token(&good()), &issuer).unwrap_err().check, Check::KeyAlgorithm);
}

#[test]
fn a_certificate_verifies_between_its_dates_only() {
    // 2027-01-15T08:00:00Z is now.
    let signer = Signer::new(Algorithm::ES256, "k");
    let token = signer.token(&good());
    let check = |from: &str, until: &str, expected: Result<(), Check>| {
        let issuer = trusted(json!({"pem": pem("CERTIFICATE", &certificate(&signer, from, until))}));
        let verified = verify(&token, &issuer).map(|_| ()).map_err(|refusal| refusal.check);
        assert_eq!(verified, expected, "{from} {until}");
        issuer
    };
    let issuer = check("20260101000000Z", "20270115080000Z", Ok(()));
    assert_eq!(issuer.issuer.keys_end_before(NOW + 1), Some(NOW));
    assert_eq!(issuer.issuer.keys_end_before(NOW), None);
    check("20270115080000Z", "20280101000000Z", Ok(()));
    check("20260101000000Z", "20270115075959Z", Err(Check::KeyValid));
    check("20270115080001Z", "20280101000000Z", Err(Check::KeyValid));
}

#[test]
fn secrets_verify_hmac_and_nothing_else() {
    let secret = |length: usize| URL_SAFE_NO_PAD.encode(vec![7; length]);
    let keys = json!({"keys": [{"kty": "oct", "kid": "s", "k": secret(32)}]});
    let keys = KeySet::parse_shared(&keys).unwrap();
    let token = |alg: &str, secret: &[u8], algorithm| {
        let message = [format!(r#"{{"alg":"{alg}","kid":"s"}}"#), good().to_string()]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    };
    let check =
        |token: String| Jws::parse(&token).unwrap().verify(&keys, NOW).map(|_| ()).map_err(|r| r.check);
    assert_eq!(check(token("HS256", &[7; 32], Algorithm::HS256)), Ok(()));
    assert_eq!(check(token("HS256", &[8; 32], Algorithm::HS256)), Err(Check::Signature));
    assert_eq!(check(token("HS512", &[7; 32], Algorithm::HS512)), Err(Check::KeyAlgorithm));
    let public = Signer::new(Algorithm::ES256, "k").jwk();
    for (keys, needle) in [
        (json!({"keys": [{"kty": "oct", "k": ""}]}), "0 bytes"),
        (json!({"keys": [{"kty": "oct", "k": secret(31)}]}), "31 bytes"),
        (json!({"keys": [{"kty": "oct", "k": secret(32), "alg": "HS384"}]}), "does not fit"),
        (json!({"keys": [{"kty": "oct", "k": secret(32)}, public]}), "do not mix"),
        (json!({"keys": [{"kty": "oct", "k": secret(32), "use": "enc"}]}), "use is not sig"),
    ] {
        let problem = KeySet::parse_shared(&keys).unwrap_err();
        assert!(problem.contains(needle) && !problem.contains(&secret(31)), "{problem}");
    }
}

#[test]
fn an_issuer_may_be_stricter() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let token = signer.token(&good());
    let reason = |spec: Value| verify(&token, &trusted(spec)).map(|_| ()).map_err(|refusal| refusal.check);
    assert_eq!(reason(json!({"jwks": signer.jwks(), "algorithms": ["RS256"]})), Err(Check::IssuerAlgorithm));
    assert_eq!(reason(json!({"jwks": signer.jwks(), "typ": ["at+jwt"]})), Err(Check::Type));
    assert_eq!(
        reason(json!({"jwks": signer.jwks(), "audiences": ["elsewhere"]})),
        Err(Check::IssuerAudience)
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
        (edited("y", a.jwk()["x"].clone()), "not on its curve"),
        (edited("x", json!("AAAA====")), "x is not base64url"),
        (edited("kid", json!(7)), "kid is not a text"),
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
    assert_eq!(verify(&unnamed(&a), &issuer).unwrap_err().check, Check::Key);
}

#[tokio::test]
async fn a_token_is_explained_to_who_may_ask() {
    let mesh = crate::running::Running::demo().await;
    let administrator = mesh.administrator("root").await;
    let ask = async |body: Value| {
        let request = mesh.http.post(mesh.url("/v1/token/verify")).bearer_auth(&administrator).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let failed = |answer: &Value| -> Vec<String> {
        let steps = answer["checks"].as_array().unwrap().iter().filter(|step| step["passed"] == false);
        steps.map(|step| step["check"].as_str().unwrap().to_owned()).collect()
    };
    let good = mesh.token("reader", "policies:read");
    let (_, answer) = ask(json!({"token": good, "service": "insurance/policies"})).await;
    assert_eq!((answer["verdict"].as_str(), failed(&answer)), (Some("ok"), vec![]));
    assert_eq!(answer["reads"]["subject"], "reader");
    assert_eq!(answer["reads"]["scopes"], json!(["policies:read"]));
    assert_eq!(answer["header"]["alg"], "ES256");
    let signature = good.rsplit('.').next().unwrap();
    assert!(!answer.to_string().contains(signature));
    // What is wrong is all said at once, as far as it means something.
    let mut claims = crate::running::claims("reader", "x");
    (claims["exp"], claims["aud"]) = (json!(1), json!("else"));
    let token = mesh.signer.token(&claims);
    let (_, answer) = ask(json!({"token": token, "service": "insurance/policies"})).await;
    assert_eq!(answer["verdict"], "token_expired");
    assert_eq!(failed(&answer), ["expiry", "service_audience"]);
    for (token, code) in [
        ("x", "form"),
        ("a.b.c.d.e", "encrypted"),
        (&*good.replacen('.', ".A", 1), "payload"),
        (&*format!("{}A", &good[..good.len() - 4]), "signature"),
    ] {
        let (status, answer) = ask(json!({"token": token})).await;
        assert_eq!((status, failed(&answer)), (200, vec![code.to_owned()]), "{token}");
    }
    assert_eq!(ask(json!({"token": "x", "service": "no/where"})).await.0, 400);
    let answer =
        mesh.http.post(mesh.url("/v1/token/verify")).json(&json!({"token": "x"})).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn keys_that_end_are_counted() {
    // The certificate is valid until the 28th of October 2126; this is a day before.
    let (clock, _) = Clock::manual((4_948_844_850 - 86_400) * 1_000_000_000);
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("authz.db").display());
    let mesh = Running::at(clock, folder, &url, |_| {}).await;
    let ending = |state: &str, count: u32| {
        let metrics = mesh.service.telemetry().render_metrics().unwrap();
        let mut lines = metrics.lines().filter(|line| line.starts_with("tollgate_issuers_keys_ending"));
        lines.any(|line| line.contains(state) && line.ends_with(&format!(" {count}")))
    };
    let issuer = json!({"kind": "Issuer", "name": "old", "issuer": "https://old", "pem": include_str!("../data/peer.pem")});
    mesh.apply(vec![serde_json::from_value(issuer).unwrap()]).await;
    let counted = async {
        while !(ending("soon", 1) && ending("ended", 0)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.unwrap();
}
