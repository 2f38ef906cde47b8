//! A table: a policy, and the codes that it gets.

use serde_json::{Value, json};

use super::{Severity, lint};
use crate::policy::object::{Document, PolicySet, policy_set};

const NOW: i64 = 1_800_000_000;

/// A policy about which there is nothing to say.
fn clean() -> Vec<Value> {
    vec![
        json!({"kind": "Issuer", "name": "demo", "issuer": "https://i", "jwks_url": "https://i/keys"}),
        json!({"kind": "Service", "namespace": "a", "name": "s", "hosts": ["s.a"], "callers": ["external"],
            "issuers": ["demo"], "audiences": ["x"]}),
        json!({"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
            {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/o/{id}"], "scopes": {"all": ["r"]}}]}),
        json!({"kind": "Binding", "namespace": "a", "name": "b", "role": "reader",
            "who": {"issuer": "demo", "subject": "u"}}),
    ]
}

pub(super) fn set(documents: &[Value]) -> PolicySet {
    policy_set(documents.iter().map(|one| serde_json::from_value::<Document>(one.clone()).unwrap())).unwrap()
}

fn codes(documents: &[Value]) -> Vec<String> {
    lint(&set(documents), NOW).into_iter().map(|finding| finding.code).collect()
}

#[test]
fn a_clean_policy_has_no_findings() {
    assert_eq!(codes(&clean()), [""; 0]);
    assert_eq!(codes(&[]), [""; 0]);
}

#[test]
fn each_oddity_has_its_code() {
    let binding = |who: Value, role: &str| json!({"kind": "Binding", "namespace": "a", "name": "c", "role": role, "who": who});
    let service = |changes: Value| {
        let mut service = clean()[1].clone();
        for (key, value) in changes.as_object().unwrap() {
            service[key] = value.clone();
        }
        service
    };
    let role = |name: &str, permission: Value| {
        let mut whole = json!({"name": "p", "service": "s", "methods": ["GET"], "paths": ["/x"]});
        for (key, value) in permission.as_object().unwrap() {
            whole[key] = value.clone();
        }
        json!({"kind": "Role", "namespace": "a", "name": name, "permissions": [whole]})
    };
    let demo = |subject: &str| json!({"issuer": "demo", "subject": subject});
    let more = |role: Value| vec![role, binding(demo("v"), "more")];
    for (added, expected) in [
        (vec![json!({"kind": "Issuer", "name": "j", "issuer": "https://j", "jwks_url": "https://j/k"})], "issuer_unused"),
        (vec![service(json!({"issuers": ["demo", "dmeo"]}))], "issuer_unknown"),
        (vec![service(json!({"callers": []}))], "service_without_callers"),
        (vec![service(json!({"mode": "audit"}))], "audit_mode"),
        (
            vec![json!({"kind": "Service", "namespace": "a", "name": "t", "callers": ["external"], "issuers": ["demo"]})],
            "service_without_grants",
        ),
        (vec![json!({"kind": "Role", "namespace": "a", "name": "more"}), binding(demo("v"), "more")], "role_empty"),
        (vec![role("more", json!({}))], "role_unheld"),
        (more(role("more", json!({"methods": ["*"], "paths": ["/{**}"]}))), "grant_of_everything"),
        (more(role("more", json!({"service": "*"}))), "grant_on_every_service"),
        (more(role("more", json!({"hosts": ["t.a"]}))), "host_not_of_service"),
        (
            vec![json!({"kind": "Role", "namespace": "a", "name": "more", "permissions": [
                {"name": "wide", "service": "s", "methods": ["GET", "PUT"], "paths": ["/o/{**}"]},
                {"name": "narrow", "service": "s", "methods": ["GET"], "paths": ["/o/{id}"]}]}),
                binding(demo("v"), "more")],
            "permission_shadowed",
        ),
        (
            vec![json!({"kind": "Role", "namespace": "a", "name": "more", "permissions": [
                {"name": "one", "service": "s", "methods": ["GET"], "paths": ["/y"]},
                {"name": "two", "service": "s", "methods": ["GET"], "paths": ["/y"]}]}),
                binding(demo("v"), "more")],
            "permission_shadowed",
        ),
        (
            vec![json!({"kind": "Binding", "namespace": "a", "name": "c", "role": "reader", "who": demo("v"),
                "not_after": "2020-01-01T00:00:00Z"})],
            "binding_expired",
        ),
        (vec![binding(json!({"issuer": "dmeo", "subject": "v"}), "reader")], "issuer_unknown"),
        (
            vec![binding(json!({"workload": "spiffe://d/ns/a/sa/w"}), "reader")],
            "workload_is_no_caller",
        ),
        (
            [more(role("more", json!({"methods": ["POST"]}))),
                vec![json!({"kind": "Binding", "namespace": "a", "name": "d", "role": "more", "who": {"anyone": true}})]]
            .concat(),
            "anyone_may_change",
        ),
        (vec![binding(demo("u"), "reader")], "binding_shadowed"),
    ] {
        let mut documents = clean();
        for one in &added {
            documents.retain(|old| (&old["kind"], &old["name"]) != (&one["kind"], &one["name"]));
        }
        documents.extend(added);
        assert_eq!(codes(&documents), [expected], "{documents:?}");
    }
}

#[test]
fn nothing_is_said_about_issuers_that_are_not_part_of_the_policy() {
    let application: Vec<Value> = clean().into_iter().filter(|one| one["kind"] != "Issuer").collect();
    assert_eq!(codes(&application), [""; 0]);
}

#[test]
fn scopes_need_somebody_who_says_them() {
    let mut documents = clean();
    documents[1]["issuers"] = json!([]);
    let found = lint(&set(&documents), NOW);
    let codes: Vec<_> = found.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["issuer_unused", "scopes_without_issuer", "issuer_not_accepted"]);
    assert!(found.iter().all(|finding| !finding.remedy.is_empty() && !finding.key.is_empty()));
    assert!(Severity::Error > Severity::Warning && Severity::Warning > Severity::Note);
}

#[test]
fn denials_that_can_be_walked_around() {
    let with = |denial: Value, upstream: Value| {
        let mut documents = clean();
        documents[1]["upstream"] = upstream;
        documents[2]["permissions"][0]["paths"] = json!(["/o/{**}"]);
        documents[2]["permissions"][0]["methods"] = json!(["GET", "HEAD"]);
        let mut whole = json!({"kind": "Denial", "namespace": "a", "name": "d", "who": {"anyone": true},
            "service": "s", "methods": ["*"], "paths": ["/o/secret", "/o/secret/{**}"]});
        for (key, value) in denial.as_object().unwrap() {
            whole[key] = value.clone();
        }
        documents.push(whole);
        codes(&documents)
    };
    for (denial, upstream, expected) in [
        (json!({}), json!({}), vec![]),
        (json!({"paths": ["/o/secret"]}), json!({}), vec!["denial_bypass_path"]),
        // What is not granted need not be denied.
        (json!({"paths": ["/p/secret"]}), json!({}), vec![]),
        (json!({"methods": ["GET"]}), json!({}), vec!["denial_bypass_method"]),
        (json!({"methods": ["GET", "HEAD"]}), json!({}), vec![]),
        (json!({}), json!({"strip_params": false}), vec!["denial_bypass_reading"]),
        (json!({"paths": ["/{**}"]}), json!({"strip_params": false}), vec![]),
        (json!({"not_after": "2020-01-01T00:00:00Z"}), json!({}), vec!["denial_expired"]),
        (json!({"who": {"issuer": "dmeo", "subject": "x"}}), json!({}), vec!["issuer_unknown"]),
    ] {
        assert_eq!(with(denial.clone(), upstream), expected, "{denial}");
    }
    let revocation = json!({"kind": "Revocation", "name": "r", "issuer": "demo", "jti": "j", "until": "2020-01-01T00:00:00Z"});
    assert_eq!(codes(&[clean(), vec![revocation]].concat()), ["revocation_ended"]);
}

#[test]
fn a_certificate_with_an_issuers_key_is_spoken_of_before_it_ends() {
    // Valid until the 28th of October 2126.
    let pem = include_str!("../../../tests/data/peer.pem");
    let end = 4_948_844_850;
    let mut documents = clean();
    documents[0] = json!({"kind": "Issuer", "name": "demo", "issuer": "https://i", "pem": pem});
    for (now, expected) in [
        (end - 31 * 86_400, None),
        (end - 29 * 86_400, Some("issuer_key_ends")),
        (end, Some("issuer_key_ends")),
        (end + 1, Some("issuer_key_ended")),
    ] {
        let found = lint(&set(&documents), now).into_iter().map(|finding| finding.code).next();
        assert_eq!(found.as_deref(), expected, "{now}");
    }
}
