//! Both ends of small policies.

use serde_json::{Value, json};

use super::*;
use crate::policy::object::policy_set;

const NOW: i64 = 1_800_000_000;

fn shop() -> PolicySet {
    let document = |value: Value| serde_json::from_value::<Document>(value).unwrap();
    policy_set(
        [
            json!({"kind": "Service", "namespace": "a", "name": "s", "hosts": ["s.a"], "callers": ["external"],
                "issuers": ["demo"]}),
            json!({"kind": "Service", "namespace": "a", "name": "t", "hosts": ["t.a"]}),
            json!({"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
                {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/o/{id}"], "scopes": {"all": ["r"]}}]}),
            json!({"kind": "Role", "namespace": "a", "name": "writer", "includes": ["reader"], "permissions": [
                {"name": "write", "service": "s", "methods": ["POST"], "paths": ["/o"]}]}),
            json!({"kind": "Role", "namespace": "a", "name": "nobody", "permissions": [
                {"name": "all", "service": "*", "methods": ["*"], "paths": ["/{**}"]}]}),
            json!({"kind": "Binding", "namespace": "a", "name": "u", "role": "writer",
                "who": {"issuer": "demo", "subject": "u"}}),
            json!({"kind": "Binding", "namespace": "a", "name": "g", "role": "reader",
                "who": {"issuer": "other", "group": "g"}, "not_after": "2020-01-01T00:00:00Z"}),
            json!({"kind": "Binding", "namespace": "a", "name": "w", "role": "reader",
                "who": {"workload": "spiffe://d/ns/a/*"}}),
        ]
        .map(document),
    )
    .unwrap()
}

fn target(method: &str, path: &str) -> Target {
    Target { method: method.into(), path: path.into(), host: None, service: Some("a/s".into()) }
}

#[test]
fn who_can_names_every_way_and_what_stands_in_it() {
    let found = who_can(&shop(), &target("GET", "/o/1?x=2"), NOW).unwrap();
    let ways: Vec<_> =
        found.grants.iter().map(|grant| (&*grant.binding, &*grant.permission, grant.but.len())).collect();
    assert_eq!(ways, [("a/g", "reader.read", 2), ("a/u", "reader.read", 0), ("a/w", "reader.read", 0)]);
    assert_eq!((found.callers, found.unheld), (vec!["external".to_owned()], vec!["nobody.all".to_owned()]));
    let found = who_can(&shop(), &target("POST", "/o"), NOW).unwrap();
    assert_eq!(found.grants.len(), 1);
    assert!(who_can(&shop(), &target("DELETE", "/o"), NOW).unwrap().grants.is_empty());
}

#[test]
fn a_service_is_found_by_host_or_name_or_the_error_says_which_there_are() {
    let by = |host: Option<&str>, service: Option<&str>| {
        let target =
            Target { host: host.map(Into::into), service: service.map(Into::into), ..target("GET", "/") };
        who_can(&shop(), &target, NOW).map(|found| found.service)
    };
    assert_eq!(by(Some("S.a"), None).unwrap(), "a/s");
    assert_eq!(by(None, Some("t")).unwrap(), "a/t");
    assert!(by(None, None).unwrap_err().to_string().contains("a/s, a/t"));
    assert!(by(None, Some("b/s")).is_err());
}

#[test]
fn can_lists_what_somebody_holds() {
    let count = |somebody: Somebody| can(&shop(), &somebody, NOW).len();
    let somebody = Somebody { subject: Some("u".into()), ..Somebody::default() };
    assert_eq!(count(somebody.clone()), 2);
    assert_eq!(count(Somebody { issuer: Some("other".into()), ..somebody.clone() }), 0);
    assert_eq!(count(Somebody { groups: vec!["g".into()], ..somebody }), 3);
    assert_eq!(count(Somebody { workload: Some("spiffe://d/ns/a/sa/x".into()), ..Somebody::default() }), 1);
    assert_eq!(count(Somebody::default()), 0);
}

/// The shop with more said.
fn shop_with(more: Vec<Value>) -> PolicySet {
    let mut set = shop();
    set.extend(more.into_iter().map(|json| {
        let document: Document = serde_json::from_value(json).unwrap();
        (document.id(), document)
    }));
    set
}

fn denial(changes: Value) -> Value {
    let mut denial = json!({"kind": "Denial", "namespace": "a", "name": "d", "service": "s", "methods": ["GET"],
        "paths": ["/o/{id}"], "who": {"issuer": "demo", "subject": "u"}});
    denial.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    denial
}

#[test]
fn denials_are_named_with_what_they_take_away() {
    let of = |changes: Value, binding: &str| {
        let found = who_can(&shop_with(vec![denial(changes)]), &target("GET", "/o/1"), NOW).unwrap();
        let grant = found.grants.into_iter().find(|grant| grant.binding == binding).unwrap();
        grant.denied_by.first().map(|denied| denied.wholly)
    };
    for (changes, of_u, of_g, of_w) in [
        (json!({}), Some(true), None, Some(false)),
        (json!({"who": {"anyone": true}}), Some(true), Some(true), Some(true)),
        (json!({"who": {"authenticated": true}}), Some(true), Some(true), Some(false)),
        (json!({"who": {"workload": "spiffe://d/ns/a/sa/x"}}), Some(false), Some(false), Some(false)),
        (json!({"who": {"workload": "spiffe://d/*"}}), Some(false), Some(false), Some(true)),
        (json!({"who": {"workload": "spiffe://e/*"}}), Some(false), Some(false), None),
        (json!({"who": {"issuer": "demo", "subject": "v"}}), None, None, Some(false)),
        (json!({"when": {"claim": "x", "equals": 1}}), Some(false), None, Some(false)),
        (json!({"paths": ["/p"]}), None, None, None),
        (json!({"methods": ["PUT"]}), None, None, None),
        (json!({"service": "t"}), None, None, None),
        (json!({"service": "*", "paths": ["/{**}"], "methods": ["*"]}), Some(true), None, Some(false)),
        (json!({"not_after": "2020-01-01T00:00:00Z"}), None, None, None),
        (json!({"not_before": "2100-01-01T00:00:00Z"}), Some(false), None, Some(false)),
        (json!({"dry_run": true}), None, None, None),
    ] {
        let found = ["a/u", "a/g", "a/w"].map(|binding| of(changes.clone(), binding));
        assert_eq!(found, [of_u, of_g, of_w], "{changes}");
    }
}

#[test]
fn can_names_denials_conditions_and_what_is_only_tried() {
    let role = json!({"kind": "Role", "namespace": "a", "name": "more", "permissions": [
        {"name": "list", "service": "s", "grpc": {"service": "p.S", "methods": ["List"]}, "when": {"claim": "x", "equals": 1}},
        {"name": "try", "service": "s", "methods": ["GET"], "paths": ["/t"], "dry_run": true}]});
    let binding = json!({"kind": "Binding", "namespace": "a", "name": "m", "role": "more",
        "who": {"issuer": "demo", "subject": "u"}, "when": {"header": "h", "equals": "1"}});
    let wide = denial(json!({"methods": ["*"], "paths": ["/o/{**}", "/p.S/{*}"]}));
    let set = shop_with(vec![role, binding, wide]);
    let somebody = Somebody { subject: Some("u".into()), ..Somebody::default() };
    let told: Vec<_> = can(&set, &somebody, NOW)
        .into_iter()
        .map(|grant| {
            let wholly = grant.denied_by.first().map(|denied| denied.wholly);
            (grant.permission, grant.when.len(), wholly, grant.but.len())
        })
        .collect();
    let expected = [
        ("more.list", 2, Some(true), 0),
        ("more.try", 1, None, 1),
        ("writer.write", 0, None, 0),
        ("reader.read", 0, Some(true), 0),
    ];
    assert_eq!(told, expected.map(|(name, when, wholly, but)| (name.to_owned(), when, wholly, but)));
    let call = Target { service: Some("a/s".into()), ..Target::grpc("p.S/List").unwrap() };
    let found = who_can(&set, &call, NOW).unwrap();
    assert_eq!((&*found.grants[0].permission, found.grants[0].when.len()), ("more.list", 2));
    for bad in ["", "List", "p.S/", "/List", "p.S/List/x"] {
        assert!(Target::grpc(bad).is_err(), "{bad}");
    }
}
