//! Tables and properties of evaluation, without anything around it.

mod faults;
mod guard;
mod order;
mod properties;
mod reference;
mod worlds;

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_proto::Reason;

use super::compile::{Parts, compile};
use super::object::{Document, PolicySet, policy_set};
use super::snapshot::Snapshot;
use super::{Verdict, check, evaluate};
use crate::facts::{Credential, Entry, Facts, NoHeaders, PathReadings};
use crate::token::VerifiedToken;

const NOW: i64 = 1_800_000_000;

fn document(value: Value) -> Document {
    serde_json::from_value(value).unwrap()
}

fn documents(value: Value) -> PolicySet {
    let documents: Vec<Document> = serde_json::from_value(value).unwrap();
    policy_set(documents).unwrap()
}

fn snapshot(set: &PolicySet) -> Snapshot {
    compile(check::check(set).unwrap(), Parts { epoch: 1, ..Parts::default() }, &Snapshot::default())
}

fn token(subject: &str, groups: &[&str], scopes: &[&str]) -> VerifiedToken {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
    VerifiedToken {
        issuer_url: "https://demo".into(),
        client_id: Some("web".into()),
        scopes: owned(scopes),
        groups: owned(groups),
        expires_at: NOW + 60,
        ..VerifiedToken::of_subject("demo", subject)
    }
}

#[derive(Clone, Copy)]
struct Ask<'a> {
    service: &'a str,
    method: &'a str,
    path: &'a str,
    host: &'a str,
    peer: Option<&'a str>,
    entry: Entry,
    token: Option<&'a VerifiedToken>,
    now: i64,
}

impl<'a> Ask<'a> {
    fn get(path: &'a str, token: Option<&'a VerifiedToken>) -> Self {
        Self {
            service: "a/s",
            method: "GET",
            path,
            host: "h",
            peer: None,
            entry: Entry::Outside,
            token,
            now: NOW,
        }
    }

    fn of(self, snapshot: &Snapshot) -> (Verdict, Reason, String) {
        let facts = Facts {
            guard: crate::facts::Guard::Deny,
            service: snapshot.service(self.service),
            entry: self.entry,
            peer: self.peer,
            method: self.method,
            host: self.host,
            path: PathReadings::of_target(self.path).unwrap(),
            credential: self.token.map_or(Credential::Absent, Credential::Verified),
            headers: &NoHeaders,
            source: None,
            certificate_serial: None,
        };
        let decision = evaluate(snapshot, &facts, self.now);
        (decision.verdict, decision.reason, decision.rule.to_string())
    }

    fn verdict(self, snapshot: &Snapshot) -> Verdict {
        self.of(snapshot).0
    }
}

/// A service, a role, and bindings from a table of `who`.
fn policy(bindings: &[Value]) -> PolicySet {
    let mut all = vec![
        json!({"kind": "Service", "namespace": "a", "name": "s",
            "callers": ["external", "spiffe://d/ns/a/sa/friend", "spiffe://d/ns/b/*"]}),
        json!({"kind": "Role", "namespace": "a", "name": "r", "permissions": [
            {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/x/{id}"], "scopes": {"all": ["read"]}},
            {"name": "open", "service": "*", "methods": ["GET"], "paths": ["/open"]}]}),
        json!({"kind": "Role", "namespace": "a", "name": "outer", "includes": ["r"]}),
    ];
    for (index, who) in bindings.iter().enumerate() {
        let mut binding =
            json!({"kind": "Binding", "namespace": "a", "name": format!("b{index}"), "role": "outer"});
        let extra = who.as_object().unwrap().clone();
        binding.as_object_mut().unwrap().extend(extra);
        all.push(binding);
    }
    documents(all.into())
}

#[test]
fn an_empty_policy_allows_nothing() {
    let empty = Snapshot::default();
    let reader = token("reader", &[], &["read"]);
    for path in ["/", "/x/1", "/open"] {
        assert_eq!(
            Ask::get(path, None).of(&empty),
            (Verdict::Deny, Reason::TokenAbsent, "default-deny".into())
        );
        assert_eq!(Ask::get(path, Some(&reader)).of(&empty).1, Reason::DefaultDeny);
    }
}

#[test]
fn who_is_a_conjunction() {
    let reader = token("reader", &["staff"], &["read"]);
    let friend = Some("spiffe://d/ns/a/sa/friend");
    let below = Some("spiffe://d/ns/b/sa/any");
    for (who, token, peer, allowed) in [
        (json!({"issuer": "demo", "subject": "reader"}), Some(&reader), None, true),
        (json!({"issuer": "demo", "subject": "other"}), Some(&reader), None, false),
        (json!({"issuer": "else", "subject": "reader"}), Some(&reader), None, false),
        (json!({"issuer": "demo"}), Some(&reader), None, true),
        (json!({"issuer": "demo", "group": "staff"}), Some(&reader), None, true),
        (json!({"issuer": "demo", "group": "boss"}), Some(&reader), None, false),
        (json!({"issuer": "demo", "client": "web"}), Some(&reader), None, true),
        (json!({"issuer": "demo", "client": "web", "group": "boss"}), Some(&reader), None, false),
        (json!({"issuer": "demo", "subject": "reader", "client": "app"}), Some(&reader), None, false),
        (json!({"authenticated": true}), Some(&reader), None, true),
        (json!({"authenticated": true}), None, friend, false),
        (json!({"workload": "spiffe://d/ns/a/sa/friend"}), None, friend, true),
        (json!({"workload": "spiffe://d/ns/a/sa/friend"}), Some(&reader), None, false),
        (json!({"workload": "spiffe://d/ns/b/*"}), None, below, true),
        (json!({"workload": "spiffe://d/ns/b/*"}), None, friend, false),
        (
            json!({"workload": "spiffe://d/ns/b/*", "issuer": "demo", "subject": "reader"}),
            Some(&reader),
            below,
            true,
        ),
        (
            json!({"workload": "spiffe://d/ns/b/*", "issuer": "demo", "subject": "reader"}),
            Some(&reader),
            friend,
            false,
        ),
        (json!({"anyone": true}), None, None, true),
    ] {
        let rules = snapshot(&policy(&[json!({"who": who})]));
        let ask = Ask { peer, ..Ask::get("/open", token) };
        assert_eq!(ask.verdict(&rules) == Verdict::Allow, allowed, "{who} {peer:?}");
    }
}

#[test]
fn the_nearest_miss_names_what_was_missing() {
    let rules = snapshot(&policy(&[json!({"who": {"issuer": "demo", "subject": "reader"}})]));
    let (with, without) = (token("reader", &[], &["read"]), token("reader", &[], &["write"]));
    let stranger = token("stranger", &[], &["read"]);
    let rule = "a/b0 → r.read".to_owned();
    assert_eq!(Ask::get("/x/1", Some(&with)).of(&rules), (Verdict::Allow, Reason::Ok, rule.clone()));
    assert_eq!(Ask::get("/x/1", Some(&without)).of(&rules), (Verdict::Deny, Reason::ScopeMissing, rule));
    assert_eq!(Ask::get("/x/1", Some(&stranger)).of(&rules).1, Reason::RoleMissing);
    assert_eq!(Ask::get("/y", Some(&with)).of(&rules).1, Reason::DefaultDeny);
    assert_eq!(Ask { method: "POST", ..Ask::get("/x/1", Some(&with)) }.of(&rules).1, Reason::DefaultDeny);
    assert_eq!(Ask::get("/x/1", None).of(&rules).1, Reason::TokenAbsent);
}

#[test]
fn bindings_begin_and_end() {
    let moment = |seconds: i64| jiff::Timestamp::from_second(NOW + seconds).unwrap().to_string();
    let rules = snapshot(&policy(&[
        json!({"who": {"anyone": true}, "not_before": moment(-10), "not_after": moment(10)}),
    ]));
    for (offset, allowed) in [(-11, false), (-10, true), (0, true), (9, true), (10, false)] {
        let ask = Ask { now: NOW + offset, ..Ask::get("/open", None) };
        assert_eq!(ask.verdict(&rules) == Verdict::Allow, allowed, "{offset}");
    }
}

#[test]
fn the_gate_stands_before_every_grant() {
    let rules = snapshot(&policy(&[json!({"who": {"anyone": true}})]));
    let inside = Ask { entry: Entry::Inside, ..Ask::get("/open", None) };
    for (peer, allowed) in [
        (None, false),
        (Some("spiffe://d/ns/a/sa/friend"), true),
        (Some("spiffe://d/ns/a/sa/foe"), false),
        (Some("spiffe://d/ns/b/sa/any"), true),
        (Some("spiffe://d/ns/b/"), false),
        (Some("spiffe://d/ns/bb/sa/any"), false),
    ] {
        let answer = Ask { peer, ..inside }.of(&rules);
        assert_eq!(answer.0 == Verdict::Allow, allowed, "{peer:?}");
        assert!(allowed || answer.1 == Reason::CallerDenied);
    }
}

#[test]
fn readings_that_disagree_are_refused() {
    let rules = snapshot(&policy(&[json!({"who": {"anyone": true}})]));
    assert_eq!(Ask::get("//open", None).of(&rules).1, Reason::AmbiguousRequest);
    assert_eq!(Ask::get("/./open", None).verdict(&rules), Verdict::Allow);
    // Both readings are refused alike: no reason to speak of ambiguity.
    assert_eq!(Ask::get("//shut", None).of(&rules).1, Reason::TokenAbsent);
}

#[test]
fn parameters_in_a_path_lead_around_nothing() {
    let mut set = policy(&[]);
    let public = |strip_params: bool| {
        documents(json!([
            {"kind": "Service", "namespace": "a", "name": "s", "callers": ["external"],
                "upstream": {"strip_params": strip_params}},
            {"kind": "Role", "namespace": "a", "name": "public", "permissions": [
                {"name": "p", "service": "s", "methods": ["*"], "paths": ["/public/{**}"]}]},
            {"kind": "Binding", "namespace": "a", "name": "p", "role": "public", "who": {"anyone": true}},
        ]))
    };
    set.extend(public(true));
    let rules = snapshot(&set);
    for path in
        ["/public/..;/admin", "/public/..;x=y/admin", "/public/..%3B/admin", "/public/a/..;/..;/admin"]
    {
        assert_eq!(Ask::get(path, None).of(&rules).1, Reason::AmbiguousRequest, "{path}");
    }
    assert_eq!(Ask::get("/public/a;v=1/b", None).verdict(&rules), Verdict::Allow);
    assert_eq!(Ask::get("/admin;x", None).of(&rules).1, Reason::TokenAbsent);
    // An upstream that is said to leave parameters alone reads them as text.
    set.extend(public(false));
    assert_eq!(Ask::get("/public/..;/admin", None).verdict(&snapshot(&set)), Verdict::Allow);
}

#[test]
fn hosts_are_compared_without_port_and_case() {
    let mut set = policy(&[]);
    set.extend(documents(json!([
        {"kind": "Role", "namespace": "a", "name": "hosted", "permissions": [
            {"name": "p", "service": "s", "methods": ["*"], "paths": ["/{**}"], "hosts": ["One.Example"]}]},
        {"kind": "Binding", "namespace": "a", "name": "h", "role": "hosted", "who": {"anyone": true}},
    ])));
    let rules = snapshot(&set);
    for (host, allowed) in
        [("one.example", true), ("ONE.example:8080", true), ("two.example", false), ("", false)]
    {
        assert_eq!(
            Ask { host, ..Ask::get("/any/where", None) }.verdict(&rules) == Verdict::Allow,
            allowed,
            "{host}"
        );
    }
}

#[test]
fn what_must_not_be_is_a_fault() {
    for (document, key) in [
        (
            json!({"kind": "Role", "namespace": "b", "name": "x", "permissions": [
            {"name": "p", "service": "s", "methods": ["GET"], "paths": ["/"]}]}),
            "permissions[0].service",
        ),
        (
            json!({"kind": "Role", "namespace": "b", "name": "x", "permissions": [
            {"name": "p", "service": "a/s", "methods": ["GET"], "paths": ["/"]}]}),
            "permissions[0].service",
        ),
        (json!({"kind": "Role", "namespace": "b", "name": "x", "includes": ["r"]}), "includes"),
        (
            json!({"kind": "Binding", "namespace": "b", "name": "x", "role": "r", "who": {"anyone": true}}),
            "role",
        ),
        (
            json!({"kind": "Binding", "namespace": "b", "name": "x", "role": "a/r", "who": {"anyone": true}}),
            "role",
        ),
        (json!({"kind": "Service", "namespace": "b/../a", "name": "x"}), "namespace"),
        (
            json!({"kind": "Issuer", "name": "tollgate-admin", "issuer": "https://x", "jwks_url": "https://x"}),
            "name",
        ),
        (json!({"kind": "Binding", "namespace": "a", "name": "x", "role": "r", "who": {}}), "who"),
        (
            json!({"kind": "Binding", "namespace": "a", "name": "x", "role": "r", "who": {"subject": "s"}}),
            "who.issuer",
        ),
        (
            json!({"kind": "Binding", "namespace": "a", "name": "x", "role": "r",
            "who": {"anyone": true, "issuer": "demo"}}),
            "who.anyone",
        ),
        (json!({"kind": "Service", "namespace": "tollgate-system", "name": "admin"}), "callers"),
        (
            json!({"kind": "Service", "namespace": "tollgate-system", "name": "admin", "callers": ["external"],
            "mode": "audit"}),
            "mode",
        ),
    ] {
        let mut set = policy(&[]);
        set.extend(documents(json!([document])));
        let faults = check::check(&set).unwrap_err();
        assert_eq!(faults[0].key, key, "{faults:?}");
    }
}

fn any_who() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["p", "q"]);
    prop_oneof![
        name.clone().prop_map(|subject| json!({"issuer": "demo", "subject": subject})),
        name.clone().prop_map(|group| json!({"issuer": "demo", "group": group})),
        Just(json!({"issuer": "demo"})),
        Just(json!({"issuer": "else"})),
        Just(json!({"authenticated": true})),
        Just(json!({"workload": "spiffe://d/ns/b/*"})),
        Just(json!({"workload": "spiffe://d/ns/a/sa/friend", "authenticated": true})),
    ]
    .prop_map(|who| json!({"who": who}))
}

proptest! {
    #[test]
    fn one_more_binding_never_takes_anything_away(
        bindings in prop::collection::vec(any_who(), 0..5),
        more in any_who(),
        subject in prop::sample::select(vec!["p", "q", "z"]),
        group in prop::sample::select(vec!["p", "q"]),
        path in prop::sample::select(vec!["/open", "/x/1", "/x/1%2F2", "//open", "/none"]),
        peer in prop::option::of(prop::sample::select(vec!["spiffe://d/ns/b/sa/w", "spiffe://d/ns/a/sa/friend"])),
        has_token in any::<bool>(),
        scope in prop::sample::select(vec!["read", "write"]),
    ) {
        let who = token(subject, &[group], &[scope]);
        let ask = Ask { peer, ..Ask::get(path, has_token.then_some(&who)) };
        let before = snapshot(&policy(&bindings));
        let mut grown = bindings;
        grown.push(more);
        let after = snapshot(&policy(&grown));
        if ask.verdict(&before) == Verdict::Allow {
            prop_assert_eq!(ask.verdict(&after), Verdict::Allow);
        }
        // An index is an index: whatever is filed under one attribute is found by it.
        prop_assert_eq!(ask.of(&after).0, ask.of(&snapshot(&policy(&grown))).0);
    }

    #[test]
    fn no_path_makes_it_panic(path in "/[ -~]{0,40}") {
        let rules = snapshot(&policy(&[json!({"who": {"anyone": true}})]));
        if let Ok(readings) = PathReadings::of_target(&path) {
            let facts = Facts {
guard: crate::facts::Guard::Deny,
                service: rules.service("a/s"),
                entry: Entry::Outside,
                peer: None,
                method: "GET",
                host: "",
                path: readings,
                credential: Credential::Absent,
                headers: &NoHeaders,
                source: None,
                certificate_serial: None,
            };
            evaluate(&rules, &facts, NOW);
        }
    }
}

#[test]
fn a_part_is_checked_within_what_is_around_it() {
    let around = documents(json!([
        {"kind": "Service", "namespace": "a", "name": "s", "hosts": ["s.example"]},
        {"kind": "Role", "namespace": "a", "name": "r", "includes": ["q"]},
    ]));
    let part = |value| check::check_within(&documents(value), &around);
    let model = part(
        json!([{"kind": "Binding", "namespace": "a", "name": "b", "role": "r", "who": {"anyone": true}}]),
    );
    let model = model.unwrap();
    assert_eq!((model.bindings.len(), model.roles.len()), (1, 0), "what is around is not checked again");
    for (value, key) in [
        (
            json!({"kind": "Binding", "namespace": "a", "name": "b", "role": "x", "who": {"anyone": true}}),
            "role",
        ),
        (json!({"kind": "Role", "namespace": "a", "name": "q", "includes": ["r"]}), "includes"),
        (json!({"kind": "Service", "namespace": "a", "name": "t", "hosts": ["S.example"]}), "hosts"),
    ] {
        let faults = part(json!([value])).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), [key], "{value}");
    }
}
