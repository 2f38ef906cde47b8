//! The ambiguity guard: what may be read in several ways passes only where all of them may.

use serde_json::{Value, json};
use tollgate_proto::Reason;

use super::order::Asked;
use super::{documents, snapshot, token};
use crate::facts::Guard;
use crate::policy::Verdict;
use crate::policy::snapshot::Snapshot;

/// A service with this declaration; anyone may do all that the paths name.
fn open(upstream: &Value, paths: &[&str]) -> Snapshot {
    snapshot(&documents(json!([
        {"kind": "Service", "namespace": "a", "name": "s", "callers": ["external"], "upstream": upstream},
        {"kind": "Role", "namespace": "a", "name": "r", "permissions": [
            {"name": "p", "service": "s", "methods": ["*"], "paths": paths}]},
        {"kind": "Binding", "namespace": "a", "name": "b", "role": "r", "who": {"anyone": true}},
    ])))
}

#[track_caller]
fn check(rules: &Snapshot, path: &str, expected: Reason) {
    let decided = Asked { path, ..Asked::default() }.of(rules);
    assert_eq!(decided.reason, expected, "{path}: {:?}", decided.rule);
    assert_eq!(decided.verdict == Verdict::Allow, expected == Reason::Ok, "{path}");
}

/// Requests for what is not below `/public/`, for one upstream or another.
const WAYS_AROUND: [&str; 23] = [
    "/public/..;/admin",
    "/public/..;x=y/admin",
    "/public/..%3B/admin",
    "/public/%2e%2e;/admin",
    "/public/a/..;/..;/admin",
    "/public/..%2Fadmin",
    "/public/..%5cadmin",
    "/public/%2e%2e%2fadmin",
    "/public/.%2e%2fadmin",
    "/public/x%2f..%2f..%2fadmin",
    "/public//../../admin",
    "/public/a//../../../admin",
    "/public/..\\admin",
    "/public/;/../../admin",
    "/public;/../admin",
    "/public;%2F..%2F../admin",
    "//public/../admin",
    "/public/../admin",
    "/public/%2e%2e/admin",
    "/admin#/public/",
    "/admin;/public/",
    "/PUBLIC/x",
    "/public%2Fx",
];

#[test]
fn ways_around_a_public_path_never_lead_on() {
    let rules = open(&json!({}), &["/public/{**}"]);
    for path in WAYS_AROUND {
        let decided = Asked { path, ..Asked::default() }.of(&rules);
        assert_eq!(decided.verdict, Verdict::Deny, "{path}");
        let reasons = [Reason::AmbiguousRequest, Reason::TokenAbsent];
        assert!(reasons.contains(&decided.reason), "{path}: {}", decided.reason);
    }
    for path in
        ["/public/x", "/public/a;v=1/b", "/public/a%20b", "/public/%41", "/public/a/./b", "/public/a%2Fb"]
    {
        check(&rules, path, Reason::Ok);
    }
}

#[test]
fn plain_grpc_paths_pass() {
    let rules = open(&json!({}), &["/shop.v1.Orders/{*}", "/grpc.health.v1.Health/Check"]);
    check(&rules, "/shop.v1.Orders/GetOrder", Reason::Ok);
    check(&rules, "/grpc.health.v1.Health/Check", Reason::Ok);
    check(&rules, "/shop.v1.Admin/GetOrder", Reason::TokenAbsent);
}

#[test]
fn ids_with_an_escaped_slash_pass_where_allowed() {
    let project = "/api/v4/projects/group%2Fproject/issues";
    // The upstream is not said to leave them alone, and the template does not speak of them.
    check(&open(&json!({}), &["/api/v4/projects/{id}/issues"]), project, Reason::AmbiguousRequest);
    // It leaves them alone.
    check(&open(&json!({"decode_slash": false}), &["/api/v4/projects/{id}/issues"]), project, Reason::Ok);
    // The template takes them as part of the id, whatever is done to them.
    let encoded = open(&json!({}), &["/api/v4/projects/{id:encoded}/issues"]);
    check(&encoded, project, Reason::Ok);
    check(&encoded, "/api/v4/projects/a%2Fb%2fc/issues", Reason::Ok);
    check(&encoded, "/api/v4/projects/17/issues", Reason::Ok);
    // A slash that was not escaped ends the id, and dots in an id lead nowhere.
    check(&encoded, "/api/v4/projects/group/project/issues", Reason::TokenAbsent);
    check(&encoded, "/api/v4/projects/group%2F..%2F..%2Fadmin/issues", Reason::AmbiguousRequest);
    check(&encoded, "/api/v4/projects/%2e%2e%2Fadmin/issues", Reason::AmbiguousRequest);
}

#[test]
fn a_declaration_is_believed() {
    for (upstream, paths, path, expected) in [
        (json!({}), "/a", "/%61", Reason::Ok),
        (json!({"decode": false}), "/a", "/%61", Reason::TokenAbsent),
        (json!({}), "/a:b", "/a%3Ab", Reason::Ok),
        (json!({"decode": false}), "/a:b", "/a%3Ab", Reason::TokenAbsent),
        (json!({}), "/a%3Ab", "/a:b", Reason::Ok),
        (json!({}), "/a/b", "/a//b", Reason::AmbiguousRequest),
        (json!({"merge": false}), "/a/b", "/a//b", Reason::TokenAbsent),
        (json!({}), "/a/{**}", "/a//b", Reason::Ok),
        (json!({}), "/a", "/a;x", Reason::AmbiguousRequest),
        (json!({"strip_params": false}), "/a", "/a;x", Reason::TokenAbsent),
        (json!({"strip_params": false}), "/a;x", "/a;x", Reason::Ok),
        (json!({}), "/Admin", "/admin", Reason::TokenAbsent),
        (json!({"fold_case": true}), "/Admin", "/aDMIN", Reason::Ok),
        (json!({"fold_case": true}), "/K%C3%84SE", "/k%c3%a4se", Reason::Ok),
        (json!({"fold_case": true, "decode": false}), "/Admin/{x}", "/ADMIN/Y", Reason::Ok),
    ] {
        check(&open(&upstream, &[paths]), path, expected);
    }
}

#[test]
fn denials_are_met_on_every_reading() {
    for (upstream, path, expected) in [
        (json!({}), "/admin", Reason::RuleDeny),
        (json!({}), "/%61dmin", Reason::RuleDeny),
        (json!({}), "/x/../admin", Reason::RuleDeny),
        (json!({}), "//admin", Reason::AmbiguousRequest),
        (json!({}), "/admin;x", Reason::AmbiguousRequest),
        (json!({}), "/x/..%2Fadmin", Reason::AmbiguousRequest),
        (json!({}), "/ADMIN", Reason::Ok),
        (json!({"fold_case": true}), "/ADMIN", Reason::RuleDeny),
        (json!({"strip_params": false}), "/admin;x", Reason::Ok),
    ] {
        let rules = snapshot(&documents(json!([
            {"kind": "Service", "namespace": "a", "name": "s", "callers": ["external"], "upstream": upstream},
            {"kind": "Role", "namespace": "a", "name": "r", "permissions": [
                {"name": "p", "service": "s", "methods": ["*"], "paths": ["/{**}"]}]},
            {"kind": "Binding", "namespace": "a", "name": "b", "role": "r", "who": {"anyone": true}},
            {"kind": "Denial", "namespace": "a", "name": "d", "service": "*", "who": {"anyone": true},
                "methods": ["*"], "paths": ["/admin"]},
        ])));
        check(&rules, path, expected);
    }
}

#[test]
fn more_readings_than_sixteen_are_refused() {
    let rules = open(&json!({}), &["/{**}"]);
    check(&rules, "/a;b/..;c%3Bd//..\\..%2F..;e%2F%5C/x%3B/..//..%5C\\;y/z", Reason::AmbiguousRequest);
}

#[test]
fn a_repeated_header_that_rules_read_is_read_in_every_way() {
    let rules = snapshot(&documents(json!([
        {"kind": "Service", "namespace": "a", "name": "s", "callers": ["external"]},
        {"kind": "Role", "namespace": "a", "name": "r", "permissions": [
            {"name": "one", "service": "s", "methods": ["*"], "paths": ["/one"],
                "when": {"header": "X-Env", "equals": "prod"}},
            {"name": "list", "service": "s", "methods": ["*"], "paths": ["/list"],
                "when": {"header": "x-env", "contains": "prod"}},
            {"name": "free", "service": "s", "methods": ["*"], "paths": ["/free"]}]},
        {"kind": "Binding", "namespace": "a", "name": "b", "role": "r", "who": {"anyone": true}},
    ])));
    let who = token("ann", &[], &[]);
    for (path, header, expected) in [
        ("/one", "prod", Reason::Ok),
        ("/one", "dev", Reason::DefaultDeny),
        ("/one", "prod,dev", Reason::AmbiguousRequest),
        ("/one", "dev,prod", Reason::AmbiguousRequest),
        ("/one", "dev, test", Reason::DefaultDeny),
        // A list is a list in however many lines.
        ("/list", "dev, prod", Reason::Ok),
        ("/list", "dev", Reason::DefaultDeny),
        // What no rule reads may be repeated.
        ("/free", "prod,dev", Reason::Ok),
    ] {
        let asked = Asked { path, token: Some(&who), headers: &[("x-env", header)], ..Asked::default() };
        assert_eq!(asked.of(&rules).reason, expected, "{path} {header}");
    }
}

#[test]
fn a_guard_that_is_off_takes_the_declaration_at_its_word() {
    let of = |rules: &Snapshot, path, guard| Asked { path, guard, ..Asked::default() }.of(rules);
    let public = open(&json!({}), &["/public/{**}"]);
    for guard in [Guard::Log, Guard::Off] {
        for path in WAYS_AROUND {
            // The upstream decodes slashes, so this is below `/public/` for it.
            let is_public = path == "/public%2Fx";
            assert_eq!(of(&public, path, guard).verdict == Verdict::Allow, is_public, "{path} {guard:?}");
        }
    }
    for (upstream, granted, path, is_read_so) in [
        (json!({}), "/a", "/a;x", true),
        (json!({}), "/a/b", "/a//b", true),
        (json!({}), "/a/b", "/a%2Fb", true),
        (json!({}), "/a;x", "/a;x", false),
        (json!({"fold_case": true}), "/a/b", "/A//B", true),
        // Two orders of doing all of it lead to two places.
        (json!({}), "/a/c", "/a/b//../c", false),
    ] {
        let rules = open(&upstream, &[granted]);
        let strict = of(&rules, path, Guard::Deny);
        assert_eq!((strict.verdict, strict.forgiven), (Verdict::Deny, None), "{path}");
        let (logged, off) = (of(&rules, path, Guard::Log), of(&rules, path, Guard::Off));
        assert_eq!(logged.verdict, off.verdict, "{path}");
        assert_eq!(off.verdict == Verdict::Allow, is_read_so, "{granted} {path}");
        assert_eq!(logged.forgiven, is_read_so.then_some(Reason::AmbiguousRequest), "{path}");
        assert_eq!(off.forgiven, None, "{path}");
    }
    // What can be read in one way only needs no guard.
    assert_eq!(of(&public, "/public/x", Guard::Log).forgiven, None);
}

#[test]
fn a_guard_that_is_off_opens_no_way_around_a_denial_or_a_header() {
    let rules = snapshot(&documents(json!([
        {"kind": "Service", "namespace": "a", "name": "s", "callers": ["external"]},
        {"kind": "Role", "namespace": "a", "name": "r", "permissions": [
            {"name": "p", "service": "s", "methods": ["GET"], "paths": ["/{**}"]},
            {"name": "q", "service": "s", "methods": ["PUT"], "paths": ["/{**}"], "when": {"header": "x-role", "equals": "a"}}]},
        {"kind": "Binding", "namespace": "a", "name": "b", "role": "r", "who": {"anyone": true}},
        {"kind": "Denial", "namespace": "a", "name": "d", "service": "s", "methods": ["*"], "paths": ["/admin/{**}"], "who": {"anyone": true}},
    ])));
    for guard in [Guard::Deny, Guard::Log, Guard::Off] {
        let decided = Asked { path: "/admin/a%2F..%2F..", guard, ..Asked::default() }.of(&rules);
        assert_eq!(decided.reason, Reason::AmbiguousRequest, "{guard:?}");
        let headers = &[("x-role", "a,b")][..];
        let decided = Asked { method: "PUT", headers, guard, ..Asked::default() }.of(&rules);
        assert_eq!(decided.reason, Reason::AmbiguousRequest, "{guard:?}");
    }
}
