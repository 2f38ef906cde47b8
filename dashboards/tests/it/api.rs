//! The API's answers, as the page asks for them.

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Dashboard, Story, ok, start, text};
use tollgate_proto::opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};

fn list(key: &str, value: &str) -> KeyValue {
    let one = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    let list = any_value::Value::ArrayValue(ArrayValue { values: vec![one] });
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(list) }), ..Default::default() }
}

/// Ten requests that pass both proxies, four denied, two limited, one failed.
async fn traffic(dashboard: &Dashboard) {
    let mut records = Vec::new();
    for n in 0..10 {
        let id = format!("pass-{n}");
        for reporter in ["gateway", "destination"] {
            records
                .push(Story { id: &id, reporter, duration_us: 2_000 + n * 100, ..Story::default() }.record());
        }
    }
    for n in 0..4 {
        let id = format!("deny-{n}");
        let mut record = Story { id: &id, status: 403, reason: "scope_missing", ..Story::default() }.record();
        record.attributes.push(list("tollgate.authz.missing", "scope:policies:read"));
        record.attributes.push(text("tollgate.authz.decision", "deny"));
        records.push(record);
    }
    for n in 0..2 {
        let id = format!("limit-{n}");
        records.push(
            Story { id: &id, status: 429, reason: "limit_exceeded", caller: "adjuster", ..Story::default() }
                .record(),
        );
    }
    let quotes = Story {
        id: "fail",
        status: 502,
        reason: "upstream_connect",
        method: "POST",
        path: "/quotes",
        dest: "quotes",
        caller: "adjuster",
        ..Story::default()
    };
    records.push(quotes.record());
    dashboard.send(records).await;
}

#[tokio::test]
async fn each_request_counts_once() {
    let dashboard = start().await;
    traffic(&dashboard).await;
    for q in ["", "?q=-method%3ADELETE"] {
        let overview = dashboard.json(&format!("/overview{q}")).await;
        let totals = &overview["totals"];
        let of = |key: &str| totals[key].as_u64().unwrap();
        assert_eq!(
            (of("requests"), of("passed"), of("denied"), of("limited"), of("failed")),
            (17, 10, 4, 2, 1),
            "{totals}"
        );
        let sum = |key: &str| {
            overview["series"][key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!((sum("passed"), sum("denied"), sum("limited"), sum("failed")), (10, 4, 2, 1));
        // The service's sidecar saw ten; six more were stopped before it.
        let services = overview["services"].as_array().unwrap();
        assert_eq!(
            (&services[0]["name"], &services[0]["requests"], &services[0]["stopped"]),
            (&json!("policies"), &json!(16), &json!(6))
        );
        assert_eq!((&services[1]["name"], &services[1]["failed_percent"]), (&json!("quotes"), &json!(100.0)));
        assert_eq!(
            overview["reasons"][0],
            json!({"reason": "scope_missing", "outcome": "denied", "count": 4, "mostly": "reader"})
        );
        assert_eq!(overview["verdict"]["level"], "failing", "{}", overview["verdict"]);
    }
    let status = dashboard.json("/status").await;
    assert_eq!((&status["epoch"], &status["proxies"]), (&json!(412), &json!({"total": 1, "on_epoch": 1})));
    let series = dashboard.json("/series?steps=10&q=outcome:denied").await;
    assert_eq!(series["denied"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 4);
    let service = dashboard.json("/services/policies").await;
    assert_eq!(
        (&service["namespace"], &service["versions"][0]["requests"]),
        (&json!("insurance"), &json!(10))
    );
    assert_eq!(service["verdict"]["text"], "policies failed none of 16 requests.");
    assert_eq!(
        (&service["routes"][0]["stopped"], &service["callers"][0]["requests"]),
        (&json!(6), &json!(16))
    );
    assert_eq!(dashboard.get("/services/nobody").send().await.unwrap().status(), 404);
    dashboard.service.stop().await;
}

#[tokio::test]
async fn a_request_is_told_by_everybody_on_its_way() {
    let dashboard = start().await;
    traffic(&dashboard).await;
    let detail = dashboard.json("/requests/pass-3").await;
    let reporters: Vec<_> =
        detail["records"].as_array().unwrap().iter().map(|r| r["reporter"].as_str().unwrap()).collect();
    assert_eq!(reporters, ["gateway", "destination"]);
    let stages: Vec<_> = detail["records"][0]["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["accept", "route", "authorize", "upstream", "respond"]);

    let denied = &dashboard.json("/requests/deny-0").await["records"][0];
    assert_eq!(
        denied["headline"],
        "reader may not GET /policies/POL-1: the token has no scope policies:read."
    );
    assert_eq!(
        (&denied["stopped_at"], &denied["stages"][2]["outcome"]),
        (&json!("authorize"), &json!("deny"))
    );
    assert_eq!(denied["stages"][4], json!({"name": "upstream", "us": null, "outcome": "not_reached"}));
    assert_eq!((&denied["trace_id"], &denied["span_id"]), (&json!("07".repeat(16)), &json!("09".repeat(8))));
    let titles: Vec<_> =
        denied["groups"].as_array().unwrap().iter().map(|g| g["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["Decision", "Caller", "Request", "Upstream", "Other"]);
    let missing = dashboard.get("/requests/nobody-has-this").send().await.unwrap();
    assert_eq!(missing.headers()["content-type"], "application/problem+json");
    let problem: Value = missing.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["reason"]), (&json!(404), &json!("not_found")));
    dashboard.service.stop().await;
}

#[tokio::test]
async fn searching() {
    let dashboard = start().await;
    traffic(&dashboard).await;
    let matched = async |q: &str| dashboard.search(q).await["matched"].as_u64().unwrap();
    assert_eq!(matched("").await, 27);
    assert_eq!(matched("outcome:denied").await, 4);
    assert_eq!(matched("status:>=400 -caller:reader").await, 3);
    assert_eq!(matched("dest:quotes method:POST").await, 1);
    let nothing = dashboard.search("outcome:denied caller:adjuster").await;
    assert_eq!(
        nothing["terms"],
        json!([{"term": "outcome:denied", "count": 4}, {"term": "caller:adjuster", "count": 3}])
    );

    let bad = dashboard.post("/requests/search", &json!({"q": "status:abc"})).send().await.unwrap();
    assert_eq!(bad.status(), 400);
    assert!(bad.json::<Value>().await.unwrap()["detail"].as_str().unwrap().contains("`status:abc`"));
    for body in [
        json!({"qq": ""}),
        json!({"limit": 0}),
        json!({"limit": 1001}),
        json!({"cursor": "x"}),
        json!({"from": 5, "to": 5}),
    ] {
        let answer = dashboard.post("/requests/search", &body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }

    let (mut cursor, mut ids) = (Value::Null, Vec::new());
    loop {
        let page =
            ok(dashboard.post("/requests/search", &json!({"q": "", "limit": 4, "cursor": cursor}))).await;
        ids.extend(
            page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()),
        );
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 27);

    let facets = ok(dashboard.post(
        "/requests/facets",
        &json!({"q": "reporter:gateway", "fields": ["reason", "http.response.status_code"]}),
    ))
    .await;
    assert_eq!(facets["facets"][0]["values"][0], json!({"value": "ok", "count": 10, "outcome": "passed"}));
    assert_eq!(facets["facets"][1]["field"], "http.response.status_code");
    assert_eq!(facets["facets"][1]["key"], "status");
    let histogram =
        ok(dashboard.post("/requests/histogram", &json!({"q": "outcome:limited", "steps": 30}))).await;
    let sum = |key: &str| histogram[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("limited"), sum("passed"), sum("unmatched")), (2, 0, 25));

    let csv = dashboard
        .post("/requests/search", &json!({"q": "dest:quotes"}))
        .header("accept", "text/csv")
        .send()
        .await
        .unwrap();
    assert!(csv.headers()["content-type"].to_str().unwrap().starts_with("text/csv"));
    let csv = csv.text().await.unwrap();
    assert_eq!(csv.lines().count(), 2);
    assert!(csv.contains(",failed,POST,/quotes,adjuster,quotes,upstream_connect,"), "{csv}");
    let lines = dashboard
        .post("/requests/search", &json!({"q": "outcome:denied"}))
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    assert_eq!(
        lines
            .text()
            .await
            .unwrap()
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_ok())
            .count(),
        4
    );

    let keys = dashboard.json("/suggest?prefix=re").await;
    assert_eq!(keys["suggestions"][0]["token"], "reason:");
    let values = dashboard.json("/suggest?prefix=-reason:lim").await;
    assert_eq!(
        values["suggestions"],
        json!([{"token": "-reason:limit_exceeded", "meaning": "why it ended as it did", "count": 2}])
    );
    dashboard.service.stop().await;
}

#[tokio::test]
async fn the_live_tail_shows_what_arrives_and_matches() {
    let dashboard = start().await;
    let answer = dashboard.get("/live/requests?q=outcome:denied").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut answer = answer;
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: status"), "{first:?}");
    traffic(&dashboard).await;
    let mut seen = String::new();
    let all = async {
        while seen.matches("event: row").count() < 4 || !seen.contains("\"per_second\":4") {
            seen.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()));
        }
    };
    assert!(tokio::time::timeout(DEADLINE, all).await.is_ok(), "{seen}");
    assert!(!seen.contains("pass-") && seen.contains("\"shown_1_in\":1,\"dropped\":0"), "{seen}");
    assert_eq!(dashboard.get("/live/requests?q=status:x").send().await.unwrap().status(), 400);
    drop(answer);
    dashboard.service.stop().await;
}

#[tokio::test]
async fn a_service_named_health_needs_a_session_too() {
    let dashboard = start().await;
    let status = async |path: &str| {
        dashboard.http.get(dashboard.url(&format!("/api/v1{path}"))).send().await.unwrap().status().as_u16()
    };
    assert_eq!((status("/health").await, status("/services/health").await), (200, 401));
    dashboard.service.stop().await;
}
