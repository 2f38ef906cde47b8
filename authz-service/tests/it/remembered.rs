//! A token that was verified before is believed again only while everything is as it was.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tollgate_authz::policy::compile::{Compiler, Parts, compile};
use tollgate_authz::policy::object::{Document, policy_set};
use tollgate_authz::policy::{Snapshot, check};
use tollgate_authz::token::keys::SharedSecrets;
use tollgate_authz::token::{Found, Judge, Occasion, TokenPlace};

use crate::running::{Ask, ISSUER, Running, demo_issuer};
use tollgate_testkit::signer::Signer;

const NOW: i64 = 1_000_000;
const EXPIRES: i64 = NOW + 60;
/// As an issuer has it that says nothing else.
const LEEWAY: i64 = 5;

fn documents(values: &[Value]) -> Vec<Document> {
    values.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect()
}

fn snapshot(documents: Vec<Document>) -> Snapshot {
    compile(check::check(&policy_set(documents).unwrap()).unwrap(), Parts::default(), &Snapshot::default())
}

fn changed(before: &Snapshot, change: Value) -> Snapshot {
    let mut compiler = Compiler::on(before);
    compiler.put(check::check(&policy_set(documents(&[change])).unwrap()).unwrap());
    compiler.finish(2)
}

#[test]
fn a_verification_counts_while_everything_is_as_it_was() {
    let (signer, other) = (Signer::new(Algorithm::ES256, "k"), Signer::new(Algorithm::ES256, "k"));
    let issuer = |signer: &Signer, audiences: Value| json!({"kind": "Issuer", "name": "demo", "issuer": ISSUER, "jwks": signer.jwks(), "audiences": audiences});
    let service = |name: &str, issuers: Value| json!({"kind": "Service", "namespace": "a", "name": name, "issuers": issuers, "audiences": ["x"]});
    let policy = [issuer(&signer, json!([])), service("s", json!(["demo"])), service("t", json!([]))];
    let before = snapshot(documents(&policy));
    let secrets = SharedSecrets::default();
    fn judge<'s>(snapshot: &'s Snapshot, secrets: &'s SharedSecrets) -> Judge<'s> {
        Judge { snapshot, secrets, max_stale: 60 }
    }
    let token = signer.token(&json!({"iss": ISSUER, "sub": "u", "aud": "x", "exp": EXPIRES}));
    let audiences = [Box::from("x")];
    let at = |now| Occasion { audiences: &audiences, holder: None, now };
    let found = Found { token: &token, place: &TokenPlace::Bearer };
    let named = |snapshot: &Snapshot, key: &str| snapshot.service(key).unwrap().service.clone();
    let verified = judge(&before, &secrets)
        .verify(found.token, Some(found.place), Some(&named(&before, "a/s")), &at(NOW))
        .unwrap();
    let known = judge(&before, &secrets).verification(verified.into(), NOW).unwrap();
    let holds = |snapshot: &Snapshot, place: &TokenPlace, key: &str, now: i64| {
        judge(snapshot, &secrets).still_holds(&known, Some(place), Some(&named(snapshot, key)), &at(now))
    };
    let bearer = &TokenPlace::Bearer;
    assert!(holds(&before, bearer, "a/s", NOW));
    assert!(holds(&before, bearer, "a/s", EXPIRES + LEEWAY - 1));
    assert!(!holds(&before, bearer, "a/s", EXPIRES + LEEWAY), "it has expired");
    assert!(!holds(&before, bearer, "a/t", NOW), "the service does not accept the issuer");
    assert!(!holds(&before, &TokenPlace::Cookie("c".into()), "a/s", NOW), "it stands elsewhere");
    let nobody = [Box::from("y")];
    let elsewhere = Occasion { audiences: &nobody, holder: None, now: NOW };
    assert!(
        !judge(&before, &secrets).still_holds(&known, Some(bearer), None, &elsewhere),
        "it is meant for others"
    );

    assert!(
        holds(&changed(&before, service("t", json!(["demo"]))), bearer, "a/s", NOW),
        "nothing of it has changed"
    );
    assert!(!holds(&changed(&before, issuer(&other, json!([]))), bearer, "a/s", NOW), "the keys are others");
    assert!(
        !holds(&changed(&before, issuer(&signer, json!(["x"]))), bearer, "a/s", NOW),
        "the issuer is another"
    );
    assert!(!holds(&snapshot(documents(&policy)), bearer, "a/s", NOW), "not even if it looks the same");
}

#[tokio::test]
async fn a_token_that_passed_does_not_outlive_its_key() {
    let mesh = Running::demo().await;
    let ask = Ask::new("GET", "/policies/1").bearer(&mesh.token("reader", "policies:read"));
    for _ in 0..3 {
        assert_eq!(mesh.check(&ask).await.status(), 200);
    }
    mesh.apply(vec![demo_issuer(&Signer::new(Algorithm::ES256, "k1"))]).await;
    let answer = mesh.check(&ask).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (401, "token_signature"));
}
