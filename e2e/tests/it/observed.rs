//! What an operator sees of a request.

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_e2e::{Demo, attribute, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_found_by_its_id_with_all_that_decided_it() {
    let demo = Demo::start().await;
    let operator = demo.operator().await;
    let refused = demo.get("/policies/POL-1", Some(&demo.token("reader", &["profile"]))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    let path = format!("/requests/{}", refused.request_id());
    let found =
        operator.wait_for(&path, |body| body["records"].as_array().is_some_and(|r| !r.is_empty())).await;
    let record = &found["records"][0];
    assert_eq!(attribute(record, "enduser.id"), Some(&json!("reader")));
    assert_eq!(attribute(record, "tollgate.reason"), Some(&json!("scope_missing")));
    assert_eq!(attribute(record, "tollgate.authz.decision"), Some(&json!("deny")));
    assert_eq!(attribute(record, "tollgate.authz.missing"), Some(&json!(["scope:policies:read"])));
    assert_eq!(
        attribute(record, "tollgate.authz.explanation"),
        Some(&json!("role policy-reader: scope needs policies:read, token has profile"))
    );
    assert!(attribute(record, "security_rule.name").is_some());
    assert!(attribute(record, "tollgate.authz_us").and_then(Value::as_u64).is_some_and(|us| us > 0));
    assert!(
        record["headline"].as_str().is_some_and(|h| h.contains("policies:read")),
        "{}",
        record["headline"]
    );
    let text = found.to_string();
    assert!(!text.contains("eyJ"), "no token may reach a record");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_request_shows_limit_and_stages_at_both_proxies() {
    let demo = Demo::start().await;
    let operator = demo.operator().await;
    let passed = demo.get("/policies/POL-1", Some(&demo.token("reader", &["policies:read"]))).await;
    assert_eq!(passed.status, StatusCode::OK);

    let path = format!("/requests/{}", passed.request_id());
    let found =
        operator.wait_for(&path, |body| body["records"].as_array().is_some_and(|r| r.len() == 2)).await;
    let records = found["records"].as_array().unwrap();
    let gateway = records.iter().find(|r| r["reporter"] == "gateway").unwrap();
    assert!(records.iter().any(|r| r["reporter"] == "destination"));
    assert_eq!(attribute(gateway, "tollgate.ratelimit.rule"), Some(&json!("per-subject")));
    assert_eq!(attribute(gateway, "tollgate.ratelimit.limit"), Some(&json!(20)));
    for stage in
        ["tollgate.authz_us", "tollgate.ratelimit_us", "tollgate.upstream_us", "tollgate.duration_us"]
    {
        assert!(attribute(gateway, stage).and_then(Value::as_u64).is_some_and(|us| us > 0), "{stage}");
    }
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_spans_client_to_app_without_a_gap() {
    let demo = Demo::start().await;
    let operator = demo.operator().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = "00f067aa0ba902b7";
    let traceparent = format!("00-{trace}-{parent}-01");
    let token = demo.token("reader", &["policies:read"]);
    let answer = demo
        .send_with(
            http::Method::GET,
            "/policies/POL-1",
            Some(&token),
            &[("traceparent", traceparent.as_str())],
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK);

    let path = format!("/traces/{trace}");
    let wanted = ["ingress", "authz", "ratelimit", "policies-sidecar"];
    let found = operator
        .wait_for(&path, |body| {
            let Some(spans) = body["spans"].as_array() else { return false };
            spans.len() >= 5 && wanted.iter().all(|name| spans.iter().any(|span| span["service"] == *name))
        })
        .await;
    let spans = found["spans"].as_array().unwrap();
    let ids: Vec<&str> = spans.iter().filter_map(|span| span["span_id"].as_str()).collect();
    for span in spans {
        let above = span["parent_span_id"].as_str().unwrap_or_default();
        assert!(above == parent || ids.contains(&above), "{span:#} has no parent in the trace");
    }
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_shows_its_own_metrics() {
    let demo = Demo::start().await;
    let token = demo.token("reader", &["policies:read"]);
    assert_eq!(demo.get("/policies/POL-1", Some(&token)).await.status, StatusCode::OK);
    for (part, metric) in [
        ("ingress", "http_server_request_duration"),
        ("authz", "rpc_server_call_duration"),
        ("ratelimit", "rpc_server_call_duration"),
        ("policies-sidecar", "http_server_request_duration"),
    ] {
        let address = demo.mesh.addresses().process(part).expect("every part has a process listener");
        eventually(&format!("{part} shows {metric}"), async || {
            let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
            text.contains(metric)
        })
        .await;
    }
    demo.stop().await;
}
