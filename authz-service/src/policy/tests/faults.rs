//! What may not be written about conditions, gRPC, denials and revocations: each fault names its key.

use serde_json::{Value, json};

use super::{documents, policy};
use crate::policy::check;

#[track_caller]
fn check_fault(document: Value, key: &str) {
    let mut set = policy(&[]);
    set.extend(documents(json!([document])));
    let faults = check::check(&set).unwrap_err();
    assert_eq!(faults[0].key, key, "{faults:?}");
}

#[test]
fn conditions() {
    let deep = (0..9).fold(json!({"claim": "a", "equals": 1}), |inner, _| json!({"not": inner}));
    let many = json!({"any": vec![json!({"claim": "a", "equals": 1}); 65]});
    for (when, key) in [
        (json!({}), "when"),
        (json!({"equals": 1}), "when"),
        (json!({"claim": "a"}), "when"),
        (json!({"claim": "a", "header": "b", "equals": "c"}), "when"),
        (json!({"claim": "a", "equals": 1, "prefix": "b"}), "when"),
        (json!({"source_cidr": ["10.0.0.0/8"], "equals": 1}), "when"),
        (json!({"claim": "", "equals": 1}), "when.claim"),
        (json!({"claim": "a", "equals": [1]}), "when.equals"),
        (json!({"claim": "a", "in": []}), "when.in"),
        (json!({"claim": "a", "in": [1, "b"]}), "when.in"),
        (json!({"claim": "a", "contains": {}}), "when.contains"),
        (json!({"header": "a b", "equals": "c"}), "when.header"),
        (json!({"header": "a", "equals": 1}), "when"),
        (json!({"source_cidr": []}), "when.source_cidr"),
        (json!({"source_cidr": ["10.0.0.0/8", "10.0.0.1/8"]}), "when.source_cidr[1]"),
        (json!({"time": {"from": "8"}}), "when.time.from"),
        (json!({"time": {"zone": "Nowhere"}}), "when.time.zone"),
        (json!({"all": []}), "when.all"),
        (json!({"any": [{"claim": "a", "equals": 1}, {"not": {}}]}), "when.any[1].not"),
        (many, "when"),
    ] {
        check_fault(
            json!({"kind": "Binding", "namespace": "a", "name": "x", "role": "r", "who": {"anyone": true}, "when": when}),
            key,
        );
    }
    let nested = format!("when{}", ".not".repeat(8));
    check_fault(
        json!({"kind": "Binding", "namespace": "a", "name": "x", "role": "r", "who": {"anyone": true}, "when": deep}),
        &nested,
    );
}

#[test]
fn requests() {
    let permission = |more: Value| {
        let mut one = json!({"name": "p", "service": "s"});
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"kind": "Role", "namespace": "a", "name": "x", "permissions": [one]})
    };
    for (more, key) in [
        (json!({}), "methods"),
        (json!({"methods": ["GET"]}), "paths"),
        (json!({"methods": ["get"], "paths": ["/"]}), "methods[0]"),
        (json!({"methods": ["GET"], "paths": ["/a%2Fb"]}), "paths[0]"),
        (json!({"grpc": {"service": "a/b"}}), "grpc.service"),
        (json!({"grpc": {"service": "a..b"}}), "grpc.service"),
        (json!({"grpc": {"service": "a.B", "methods": ["Get", "*"]}}), "grpc.methods[1]"),
        (json!({"grpc": {"service": "a.B"}, "methods": ["POST"]}), "grpc"),
    ] {
        check_fault(permission(more), &format!("permissions[0].{key}"));
    }
    for (more, key) in [
        (json!({"service": "t", "methods": ["*"], "paths": ["/"]}), "service"),
        (json!({"service": "s"}), "methods"),
        (json!({"service": "s", "grpc": {"service": "a.B"}, "who": {}}), "who"),
        (
            json!({"service": "s", "grpc": {"service": "a.B"}, "not_before": "2027-01-01T00:00:00Z",
            "not_after": "2026-01-01T00:00:00Z"}),
            "not_after",
        ),
    ] {
        let mut denial = json!({"kind": "Denial", "namespace": "a", "name": "x", "who": {"anyone": true}});
        denial.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check_fault(denial, key);
    }
}

#[test]
fn revocations() {
    for (what, key) in [
        (json!({}), "name"),
        (json!({"issuer": "demo"}), "name"),
        (json!({"issuer": "demo", "jti": "1", "subject": "s"}), "name"),
        (json!({"jti": "1"}), "issuer"),
        (json!({"workload": "spiffe://d/ns/a/sa/w", "issuer": "demo"}), "issuer"),
        (json!({"certificate_serial": "1", "issued_before": "2026-01-01T00:00:00Z"}), "issued_before"),
        (json!({"workload": "w"}), "workload"),
        (json!({"certificate_serial": "xyz"}), "certificate_serial"),
    ] {
        let mut revocation = json!({"kind": "Revocation", "name": "x", "until": "2027-01-01T00:00:00Z"});
        revocation.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        check_fault(revocation, key);
    }
}
