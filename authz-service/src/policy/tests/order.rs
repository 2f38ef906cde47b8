//! What comes first: token, revocation, denials, caller gate, grants, default deny. A table for every reason.

use std::collections::HashMap;

use serde_json::{Value, json};
use tollgate_proto::Reason;

use super::{NOW, documents, snapshot, token};
use crate::facts::{Credential, Entry, Facts, Guard, PathReadings};
use crate::policy::explain::{Holds, explain};
use crate::policy::snapshot::Snapshot;
use crate::policy::{Verdict, evaluate};
use crate::token::{Check, ClaimSet, Refusal, VerifiedToken};

/// A request about the service `a/s`.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) guard: Guard,
    pub(super) host: &'a str,
    pub(super) entry: Entry,
    pub(super) peer: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) serial: Option<&'a str>,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) token: Option<&'a VerifiedToken>,
    pub(super) refused: Option<&'a Refusal>,
    pub(super) now: i64,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            method: "GET",
            path: "/x",
            guard: Guard::Deny,
            host: "h",
            entry: Entry::Outside,
            peer: None,
            source: None,
            serial: None,
            headers: &[],
            token: None,
            refused: None,
            now: NOW,
        }
    }
}

/// What came of it.
#[derive(Debug, PartialEq)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) reason: Reason,
    pub(super) rule: String,
    pub(super) forgiven: Option<Reason>,
    pub(super) dry_run: Option<(Verdict, Reason, String)>,
    pub(super) missing: Vec<String>,
    pub(super) read: Vec<String>,
    pub(super) expires: Option<i64>,
}

impl Asked<'_> {
    pub(super) fn with<T>(self, rules: &Snapshot, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let headers: HashMap<String, String> =
            self.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ask(&Facts {
            guard: self.guard,
            service: rules.service("a/s"),
            entry: self.entry,
            peer: self.peer,
            method: self.method,
            host: self.host,
            path: PathReadings::of_target(self.path).unwrap(),
            credential: match (self.refused, self.token) {
                (Some(refusal), _) => Credential::Refused(refusal),
                (None, token) => token.map_or(Credential::Absent, Credential::Verified),
            },
            headers: &headers,
            source: self.source.map(|source| source.parse().unwrap()),
            certificate_serial: self.serial,
        })
    }

    pub(super) fn of(self, rules: &Snapshot) -> Decided {
        self.with(rules, |facts| {
            let decision = evaluate(rules, facts, self.now);
            Decided {
                verdict: decision.verdict,
                reason: decision.reason,
                rule: decision.rule.to_string(),
                forgiven: decision.forgiven,
                dry_run: decision.dry_run.map(|tried| (tried.verdict, tried.reason, tried.rule.to_string())),
                missing: decision.missing(facts.credential.scopes()),
                read: decision.footprint.names().map(|name| name.into_owned()).collect(),
                expires: decision.expires,
            }
        })
    }
}

fn at(offset: i64) -> String {
    jiff::Timestamp::from_second(NOW + offset).unwrap().to_string()
}

/// Ann may read `/x`; nobody else may anything.
fn rules(more: Value) -> Snapshot {
    let mut set = documents(json!([
        {"kind": "Service", "namespace": "a", "name": "s", "issuers": ["demo", "else"],
            "callers": ["external", "spiffe://d/ns/a/sa/friend"]},
        {"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
            {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/x"], "scopes": {"all": ["read"]}}]},
        {"kind": "Binding", "namespace": "a", "name": "ann", "role": "reader",
            "who": {"issuer": "demo", "subject": "ann"}},
    ]));
    set.extend(documents(more));
    snapshot(&set)
}

fn ann() -> VerifiedToken {
    VerifiedToken {
        jti: Some("t1".into()),
        kid: Some("k1".into()),
        issued_at: Some(NOW - 50),
        ..token("ann", &["staff"], &["read"])
    }
}

fn revoke(what: Value) -> Value {
    let mut all = json!({"kind": "Revocation", "name": "gone", "until": at(100)});
    all.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    json!([all])
}

fn deny(what: Value) -> Value {
    let mut all = json!({"kind": "Denial", "namespace": "a", "name": "no", "service": "s", "methods": ["*"],
        "paths": ["/{**}"], "who": {"anyone": true}});
    all.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    json!([all])
}

#[test]
fn each_stage_stands_before_the_next() {
    let ann = ann();
    let bad = Refusal::new(Check::Signature, "no");
    let both = |one: Value, other: Value| {
        json!(one.as_array().unwrap().iter().chain(other.as_array().unwrap()).collect::<Vec<_>>())
    };
    let gone = || revoke(json!({"issuer": "demo", "subject": "ann"}));
    let no = || deny(json!({}));
    let inside = Asked { entry: Entry::Inside, token: Some(&ann), ..Asked::default() };
    let outside = Asked { entry: Entry::Outside, ..inside };
    for (more, asked, expected, rule) in [
        (both(gone(), no()), Asked { refused: Some(&bad), ..inside }, Reason::TokenSignature, "token"),
        (both(gone(), no()), inside, Reason::TokenRevoked, "revocation gone"),
        (no(), inside, Reason::RuleDeny, "denial a/no"),
        (json!([]), inside, Reason::CallerDenied, "caller-gate"),
        (json!([]), outside, Reason::Ok, "a/ann → reader.read"),
        (json!([]), Asked { method: "POST", ..outside }, Reason::DefaultDeny, "default-deny"),
        (json!([]), Asked { token: None, ..outside }, Reason::TokenAbsent, "default-deny"),
    ] {
        let decided = asked.of(&rules(more));
        assert_eq!((decided.reason, decided.rule.as_str()), (expected, rule));
    }
}

#[test]
fn two_gates_must_both_open() {
    let ann = ann();
    let friend = Some("spiffe://d/ns/a/sa/friend");
    let foe = Some("spiffe://d/ns/a/sa/foe");
    let rules = rules(json!([]));
    let inside = Asked { entry: Entry::Inside, token: Some(&ann), ..Asked::default() };
    // A good token from a workload that has no business here is worth nothing.
    assert_eq!(Asked { peer: foe, ..inside }.of(&rules).reason, Reason::CallerDenied);
    // A caller without a grant gets nothing either.
    let stranger = token("bob", &[], &["read"]);
    assert_eq!(
        Asked { peer: friend, token: Some(&stranger), ..inside }.of(&rules).reason,
        Reason::RoleMissing
    );
    assert_eq!(Asked { peer: friend, ..inside }.of(&rules).reason, Reason::Ok);
}

#[test]
fn what_another_issuer_says_grants_nothing() {
    let rules = rules(json!([
        {"kind": "Binding", "namespace": "a", "name": "staff", "role": "reader",
            "who": {"issuer": "demo", "group": "staff"}},
        {"kind": "Binding", "namespace": "a", "name": "web", "role": "reader",
            "who": {"issuer": "demo", "client": "web"}},
    ]));
    for (issuer, subject, expected) in [
        ("demo", "bob", Reason::Ok),
        ("else", "bob", Reason::RoleMissing),
        ("else", "ann", Reason::RoleMissing),
    ] {
        // Group, client and scope are all said, by whoever issued the token.
        let who = VerifiedToken { issuer: issuer.into(), ..token(subject, &["staff"], &["read"]) };
        assert_eq!(
            Asked { token: Some(&who), ..Asked::default() }.of(&rules).reason,
            expected,
            "{issuer} {subject}"
        );
    }
}

#[test]
fn revocations_are_found_by_all_that_they_name() {
    let ann = ann();
    let asked = Asked {
        token: Some(&ann),
        peer: Some("spiffe://d/ns/a/sa/friend"),
        serial: Some("a1b"),
        ..Asked::default()
    };
    let (token, certificate) = (Reason::TokenRevoked, Reason::CertificateRevoked);
    for (what, expected) in [
        (json!({"issuer": "demo", "jti": "t1"}), token),
        (json!({"issuer": "demo", "jti": "t2"}), Reason::Ok),
        (json!({"issuer": "else", "jti": "t1"}), Reason::Ok),
        (json!({"issuer": "demo", "subject": "ann"}), token),
        (json!({"issuer": "demo", "client": "web"}), token),
        (json!({"issuer": "demo", "key_id": "k1"}), token),
        (json!({"issuer": "demo", "subject": "ann", "issued_before": at(-49)}), token),
        (json!({"issuer": "demo", "subject": "ann", "issued_before": at(-50)}), Reason::Ok),
        (json!({"issuer": "demo", "subject": "ann", "until": at(0)}), Reason::Ok),
        (json!({"workload": "spiffe://d/ns/a/sa/friend"}), certificate),
        (json!({"workload": "spiffe://d/ns/a/*"}), certificate),
        (json!({"workload": "spiffe://d/ns/b/*"}), Reason::Ok),
        (json!({"certificate_serial": "0A:1B"}), certificate),
        (json!({"certificate_serial": "a1c"}), Reason::Ok),
    ] {
        let decided = asked.of(&rules(revoke(what.clone())));
        assert_eq!(decided.reason, expected, "{what}");
    }
    // A token that hides its age counts as old, and the answer holds until the revocation ends.
    let ageless = VerifiedToken { issued_at: None, expires_at: NOW + 1000, ..ann.clone() };
    let old = rules(revoke(json!({"issuer": "demo", "subject": "ann", "issued_before": at(-1000)})));
    let decided = Asked { token: Some(&ageless), ..asked }.of(&old);
    assert_eq!((decided.reason, decided.expires), (token, Some(NOW + 100)));
}

#[test]
fn denials_ask_everything_but_scopes() {
    let ann = ann();
    let asked = Asked { token: Some(&ann), ..Asked::default() };
    for (what, denied) in [
        (json!({}), true),
        (json!({"service": "*"}), true),
        (json!({"who": {"issuer": "demo", "group": "staff"}}), true),
        (json!({"who": {"issuer": "demo", "group": "boss"}}), false),
        (json!({"who": {"workload": "spiffe://d/ns/a/*"}}), false),
        (json!({"methods": ["POST"]}), false),
        (json!({"paths": ["/y"]}), false),
        (json!({"hosts": ["other"]}), false),
        (json!({"hosts": ["H"]}), true),
        (json!({"not_before": at(10)}), false),
        (json!({"not_after": at(10)}), true),
        (json!({"not_after": at(0)}), false),
        // Nobody knows where this request comes from.
        (json!({"when": {"source_cidr": ["10.0.0.0/8"]}}), true),
        (json!({"when": {"not": {"source_cidr": ["10.0.0.0/8"]}}}), true),
        (json!({"dry_run": true}), false),
    ] {
        let decided = asked.of(&rules(deny(what.clone())));
        assert_eq!(decided.reason == Reason::RuleDeny, denied, "{what}");
        assert_eq!(decided.reason == Reason::Ok, !denied, "{what}");
    }
    let until = asked.of(&rules(deny(json!({"not_before": at(10)}))));
    assert_eq!(until.expires, Some(NOW + 10), "then it will be denied");
}

#[test]
fn a_condition_that_errors_is_safe_both_ways() {
    let mut ann = ann();
    ann.claims = ClaimSet::from_iter([("tier".to_owned(), json!(["gold"]))]);
    let grant = |when: Value| {
        rules(json!([{"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
            {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/x"], "when": when}]}]))
    };
    let asked = Asked { token: Some(&ann), ..Asked::default() };
    let wrong = json!({"claim": "tier", "equals": "gold"});
    let sure = json!({"claim": "none", "equals": "x"});
    let somewhere = json!({"source_cidr": ["10.0.0.0/8"]});
    for (when, granted, denied) in [
        (wrong.clone(), false, true),
        (json!({"not": wrong}), false, true),
        (json!({"all": [wrong, sure]}), false, false),
        (json!({"any": [wrong, {"not": sure}]}), true, true),
        (sure.clone(), false, false),
        (somewhere.clone(), false, true),
        (json!({"not": somewhere}), false, true),
        (json!({"all": [somewhere, sure]}), false, false),
        (json!({"any": [{"not": sure}, somewhere]}), true, true),
    ] {
        assert_eq!(asked.of(&grant(when.clone())).verdict == Verdict::Allow, granted, "grant {when}");
        let decided = asked.of(&rules(deny(json!({"when": when.clone()}))));
        assert_eq!(decided.reason == Reason::RuleDeny, denied, "denial {when}");
    }
}

#[test]
fn audit_mode_forgives_a_missing_grant_and_nothing_else() {
    let ann = ann();
    let bad = Refusal::new(Check::Expiry, "no");
    let audited = |more: Value| {
        let mut all = vec![json!({"kind": "Service", "namespace": "a", "name": "s", "mode": "audit",
            "callers": ["external"]})];
        all.extend(more.as_array().unwrap().clone());
        rules(json!(all))
    };
    let asked = Asked { token: Some(&ann), path: "/y", ..Asked::default() };
    for (more, asked, expected, forgiven) in [
        (json!([]), asked, Reason::Ok, Some(Reason::DefaultDeny)),
        (json!([]), Asked { token: None, ..asked }, Reason::Ok, Some(Reason::TokenAbsent)),
        (json!([]), Asked { path: "/x", ..asked }, Reason::Ok, None),
        (json!([]), Asked { refused: Some(&bad), ..asked }, Reason::TokenExpired, None),
        (json!([]), Asked { entry: Entry::Inside, ..asked }, Reason::CallerDenied, None),
        (json!([]), Asked { path: "/x;y", ..asked }, Reason::AmbiguousRequest, None),
        (deny(json!({})), asked, Reason::RuleDeny, None),
        (deny(json!({"paths": ["/z"]})), Asked { path: "/z;y", ..asked }, Reason::RuleDeny, None),
        (revoke(json!({"issuer": "demo", "jti": "t1"})), asked, Reason::TokenRevoked, None),
    ] {
        let decided = asked.of(&audited(more));
        assert_eq!((decided.reason, decided.forgiven), (expected, forgiven), "{}", asked.path);
    }
}

#[test]
fn dry_runs_are_recorded_and_never_enforced() {
    let ann = ann();
    let asked = Asked { token: Some(&ann), ..Asked::default() };
    let decided = asked.of(&rules(deny(json!({"dry_run": true}))));
    assert_eq!(decided.reason, Reason::Ok);
    assert_eq!(decided.dry_run, Some((Verdict::Deny, Reason::RuleDeny, "denial a/no".to_owned())));

    let tried = |permission: bool, binding: bool| {
        rules(json!([
            {"kind": "Role", "namespace": "a", "name": "new", "permissions": [
                {"name": "all", "service": "s", "methods": ["*"], "paths": ["/y"], "dry_run": permission}]},
            {"kind": "Binding", "namespace": "a", "name": "new", "role": "new", "who": {"anyone": true},
                "dry_run": binding}]))
    };
    for (permission, binding) in [(true, false), (false, true), (true, true)] {
        let decided = Asked { path: "/y", ..asked }.of(&tried(permission, binding));
        assert_eq!(decided.verdict, Verdict::Deny);
        assert_eq!(decided.dry_run, Some((Verdict::Allow, Reason::Ok, "a/new → new.all".to_owned())));
    }
    // What changes nothing is no news.
    assert_eq!(Asked { path: "/z", ..asked }.of(&tried(true, true)).dry_run, None);
    assert_eq!(asked.of(&tried(true, true)).dry_run, None);
}

#[test]
fn the_nearest_miss_names_each_predicate() {
    let ann = ann();
    let role = |permission: Value| {
        let mut one = json!({"name": "read", "service": "s", "methods": ["GET"], "paths": ["/x"]});
        one.as_object_mut().unwrap().extend(permission.as_object().unwrap().clone());
        json!({"kind": "Role", "namespace": "a", "name": "reader", "permissions": [one]})
    };
    let binding = |more: Value| {
        let mut one = json!({"kind": "Binding", "namespace": "a", "name": "ann", "role": "reader",
            "who": {"issuer": "demo", "subject": "ann"}});
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one
    };
    let false_condition = json!({"claim": "tier", "equals": "gold"});
    for (objects, expected, missing) in [
        (
            json!([role(json!({"scopes": {"all": ["read", "a"], "any": ["b", "c"]}}))]),
            Reason::ScopeMissing,
            &["scope:a", "scope:b"][..],
        ),
        (json!([role(json!({"when": false_condition}))]), Reason::DefaultDeny, &["condition:a/reader.read"]),
        (json!([binding(json!({"when": false_condition}))]), Reason::DefaultDeny, &["condition:a/ann"]),
        (json!([binding(json!({"not_after": at(0)}))]), Reason::RoleMissing, &["period:a/ann"]),
        (
            json!([binding(json!({"who": {"issuer": "demo", "subject": "bob"}}))]),
            Reason::RoleMissing,
            &["role:reader"],
        ),
        (json!([role(json!({"methods": ["PUT"]}))]), Reason::DefaultDeny, &[]),
        (json!([role(json!({"hosts": ["other"]}))]), Reason::DefaultDeny, &[]),
        (
            json!([role(json!({"scopes": {"all": ["a"]}, "when": false_condition}))]),
            Reason::DefaultDeny,
            &["scope:a", "condition:a/reader.read"],
        ),
    ] {
        let decided = Asked { token: Some(&ann), ..Asked::default() }.of(&rules(objects.clone()));
        assert_eq!(
            (decided.reason, &decided.missing[..]),
            (expected, &missing.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{objects}"
        );
    }
}

#[test]
fn a_footprint_names_what_was_read_and_no_more() {
    let ann = ann();
    let conditional = |when: Value| {
        rules(json!([{"kind": "Role", "namespace": "a", "name": "reader", "permissions": [
            {"name": "read", "service": "s", "methods": ["GET"], "paths": ["/x"], "when": when}]}]))
    };
    let asked = Asked { token: Some(&ann), ..Asked::default() };
    let usual = ["method", "path", "token", "peer", "entry", "subject", "client", "groups"];
    for (when, more) in [
        (json!({"header": "X-Env", "equals": "prod"}), "header:x-env"),
        (json!({"claim": "a.b", "equals": "prod"}), "claim:a.b"),
        (json!({"source_cidr": ["::/0"]}), "source"),
        (json!({"time": {"from": "08:00", "to": "09:00"}}), "time"),
    ] {
        let mut read = asked.of(&conditional(when)).read;
        // Absence was read too: none of these is there.
        assert!(read.contains(&more.to_owned()), "{more}: {read:?}");
        read.retain(|name| name != more);
        assert_eq!(read, usual, "{more}");
    }
    let mut with_scopes = usual.to_vec();
    with_scopes.push("scopes");
    assert_eq!(asked.of(&rules(json!([]))).read, with_scopes);
}

#[test]
fn an_explanation_ticks_and_crosses() {
    let ann = ann();
    let rules = rules(json!([
        {"kind": "Role", "namespace": "a", "name": "writer", "permissions": [
            {"name": "write", "service": "s", "methods": ["POST"], "paths": ["/x"],
                "when": {"all": [{"claim": "tier", "equals": "gold"}, {"header": "x-env", "equals": "prod"}]}}]},
        deny(json!({"paths": ["/x"], "methods": ["DELETE"]}))[0],
    ]));
    let asked =
        Asked { token: Some(&ann), method: "POST", headers: &[("x-env", "prod")], ..Asked::default() };
    let explanation = asked.with(&rules, |facts| explain(&rules, facts, NOW));
    assert_eq!((explanation.decision.as_str(), explanation.readings.len()), ("deny", 1));
    assert_eq!(explanation.caller_gate[0].holds, Holds::Yes);
    let crossed = |candidate: &crate::policy::explain::Candidate| -> Vec<String> {
        let failing = candidate.predicates.iter().filter(|one| one.holds != Holds::Yes);
        failing.map(|one| one.name.clone()).collect()
    };
    assert_eq!(explanation.denials.iter().map(crossed).collect::<Vec<_>>(), [["method"]]);
    let grants: Vec<_> =
        explanation.grants.iter().map(|one| (one.permission.as_deref().unwrap(), crossed(one))).collect();
    assert_eq!(
        grants,
        [
            ("a/reader.read", vec!["method".to_owned()]),
            ("a/writer.write", vec!["role".to_owned(), "condition".to_owned()]),
        ]
    );
    // It goes over the wire and back.
    let text = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<crate::policy::explain::Explanation>(&text).unwrap(), explanation);
}
