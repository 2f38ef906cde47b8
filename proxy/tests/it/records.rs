//! What is told about requests: read back from a collector.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tollgate_proto::attributes as a;
use tollgate_testkit::fake_authz::deny;
use tollgate_testkit::fake_collector::{attribute, wait_for};
use tollgate_testkit::fake_ratelimit::over;

use crate::harness::{PATIENCE, Setup, observed, raw};

#[tokio::test]
async fn an_allowed_request_leaves_one_record_with_everything() {
    let (mesh, collector) = observed(Setup::default()).await;
    let answer = mesh
        .get("/policies/17?token=secret")
        .bearer("reader")
        .header("user-agent", "test/1")
        .header("cookie", "session=secret")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let records = collector.access_records(1).await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    for (key, expected) in [
        (a::TOLLGATE_REPORTER, "gateway"),
        (a::TOLLGATE_DIRECTION, "ingress"),
        (a::TOLLGATE_REQUEST_ID, answer.header("x-request-id").unwrap()),
        (a::TOLLGATE_REASON, "ok"),
        (a::TOLLGATE_SOURCE_WORKLOAD, "external"),
        (a::TOLLGATE_DESTINATION_WORKLOAD, "policies"),
        (a::TOLLGATE_DESTINATION_NAMESPACE, "insurance"),
        (a::TOLLGATE_CONNECTION_SECURITY_POLICY, "none"),
        (a::HTTP_REQUEST_METHOD, "GET"),
        (a::HTTP_RESPONSE_STATUS_CODE, "200"),
        (a::HTTP_ROUTE, "/policies/{id}"),
        (a::URL_PATH, "/policies/17"),
        (a::URL_QUERY, "token=REDACTED"),
        (a::SERVER_ADDRESS, "policies.insurance"),
        (a::NETWORK_PROTOCOL_VERSION, "1.1"),
        (a::CLIENT_ADDRESS, "127.0.0.1"),
        (a::USER_AGENT_ORIGINAL, "test/1"),
        (a::TOLLGATE_UPSTREAM_CLUSTER, "app"),
        (a::NETWORK_PEER_ADDRESS, "127.0.0.1"),
        (a::NETWORK_PEER_PORT, &mesh.app.address().port().to_string()),
        (a::HTTP_RESPONSE_SIZE, &answer.body.len().to_string()),
        (a::TOLLGATE_AUTHZ_DECISION, "allow"),
        (a::TOLLGATE_AUTHZ_REASON, "ok"),
        (a::TOLLGATE_AUTHZ_DECISION_ID, "01930000-0000-7000-8000-000000000001"),
        (a::TOLLGATE_AUTHZ_EPOCH, "7"),
        (a::SECURITY_RULE_NAME, "insurance/reader-reads → policy-reader.read"),
        (a::ENDUSER_ID, "reader"),
        (a::TOLLGATE_TOKEN_STATE, "valid"),
        (a::TOLLGATE_TOKEN_ISSUER, "demo"),
        (a::TOLLGATE_TOKEN_SCOPES, "policies:read"),
        (a::TOLLGATE_TOKEN_ALG, "ES256"),
        (a::TOLLGATE_RATELIMIT_DECISION, "allow"),
        (a::TOLLGATE_RATELIMIT_DOMAIN, "insurance"),
        (a::TOLLGATE_RATELIMIT_RULE, "subject"),
        (a::TOLLGATE_RATELIMIT_DESCRIPTOR, "subject=reader"),
        (a::TOLLGATE_RATELIMIT_LIMIT, "20"),
        (a::TOLLGATE_RATELIMIT_REMAINING, "19"),
    ] {
        assert_eq!(attribute(record, key).as_deref(), Some(expected), "{key}");
    }
    for key in [
        a::TOLLGATE_DURATION_US,
        a::TOLLGATE_TTFB_US,
        a::TOLLGATE_ACCEPT_US,
        a::TOLLGATE_ROUTE_US,
        a::TOLLGATE_AUTHZ_US,
        a::TOLLGATE_RATELIMIT_US,
        a::TOLLGATE_UPSTREAM_US,
    ] {
        assert!(attribute(record, key).unwrap().parse::<u64>().unwrap() < 10_000_000, "{key}");
    }
    assert!(!format!("{record:?}").contains("secret"));
    assert_eq!(record.trace_id.len(), 16);
}

#[tokio::test]
async fn spans_form_one_tree_with_the_clients() {
    let (mesh, collector) = observed(Setup { trust_traceparent: true, ..Setup::default() }).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    mesh.get("/policies/17").bearer("reader").header("traceparent", parent).send().await;
    let spans = collector.spans(4).await;
    let named = |name: &str| {
        let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} of {names:?}"))
    };
    let server = named("GET /policies/{id}");
    assert_eq!(server.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    for name in ["authz.check", "ratelimit.should_limit", "upstream"] {
        assert_eq!(named(name).parent_span_id, server.span_id, "{name}");
        assert_eq!(named(name).trace_id, server.trace_id, "{name}");
    }
    let sent = mesh.app.seen().remove(0).headers.get("traceparent").unwrap().to_str().unwrap().to_owned();
    let upstream: String = named("upstream").span_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sent, format!("00-0af7651916cd43dd8448eb211c80319c-{upstream}-01"));
    let record = collector.access_records(1).await.remove(0);
    assert_eq!((record.trace_id, record.span_id), (server.trace_id.clone(), server.span_id.clone()));
}

#[tokio::test]
async fn a_strangers_trace_is_linked_and_not_continued() {
    let (mesh, collector) = observed(Setup::default()).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    mesh.get("/open/x").header("traceparent", parent).send().await;
    let spans = collector.spans(2).await;
    let server = spans.iter().find(|span| span.parent_span_id.is_empty()).expect("a root");
    assert_ne!(server.trace_id[..2], [0x0a, 0xf7]);
    assert_eq!(server.links[0].trace_id[..2], [0x0a, 0xf7]);
}

#[tokio::test]
async fn every_ending_has_its_reason() {
    let (mesh, collector) = observed(Setup::default()).await;
    mesh.authz.answer(|_| Ok(deny(403, "scope_missing", "{}")));
    mesh.get("/policies/1").bearer("x").send().await;
    mesh.get("/nowhere").send().await;
    mesh.get("/open/x").header("x-behave", "hang-up").send().await;
    mesh.get("/open/x").header("x-behave", "status:500").send().await;
    let _ = mesh.get("/open/x").header("x-behave", "cut").try_send().await;
    mesh.limiter.answer(|_| Ok(over(20, 1)));
    mesh.get("/strict").send().await;
    raw(mesh.address, b"nonsense\r\n\r\n", PATIENCE).await;
    let records = collector.access_records(7).await;
    let mut found: Vec<_> = records
        .iter()
        .map(|record| {
            let get = |key: &str| attribute(record, key).unwrap_or_default();
            (get(a::TOLLGATE_REASON), get(a::HTTP_RESPONSE_STATUS_CODE), get(a::TOLLGATE_RESPONSE_FLAGS))
        })
        .collect();
    found.sort();
    let found: Vec<_> = found.iter().map(|(r, s, f)| (r.as_str(), s.as_str(), f.as_str())).collect();
    assert_eq!(
        found,
        [
            ("limit_exceeded", "429", "RL"),
            ("no_route", "404", "NR"),
            ("request_malformed", "400", "DPE"),
            ("scope_missing", "403", "UAEX"),
            ("upstream_reset", "200", "UC"),
            ("upstream_reset", "502", "UC"),
            ("upstream_status", "500", ""),
        ]
    );
    let denied = records
        .iter()
        .find(|record| attribute(record, a::TOLLGATE_REASON).as_deref() == Some("scope_missing"));
    assert_eq!(attribute(denied.unwrap(), a::TOLLGATE_AUTHZ_MISSING).as_deref(), Some("scope:policies:read"));
}

#[tokio::test]
async fn a_client_that_goes_away_is_recorded() {
    let (mesh, collector) = observed(Setup::default()).await;
    mesh.app.behave("hold");
    let mut client = TcpStream::connect(mesh.address).await.unwrap();
    client.write_all(b"GET /open/x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    wait_for(|| (mesh.app.seen().len() == 1).then_some(())).await.expect("the upstream has it");
    drop(client);
    let record = collector.access_records(1).await.remove(0);
    assert_eq!(attribute(&record, a::TOLLGATE_REASON).as_deref(), Some("client_gone"));
    assert_eq!(attribute(&record, a::HTTP_RESPONSE_STATUS_CODE).as_deref(), Some("499"));
}

#[tokio::test]
async fn a_record_does_not_grow_with_what_a_client_sends() {
    let (mesh, collector) = observed(Setup::default()).await;
    // Each pair of two bytes would be masked by nine.
    let path = format!("/open/{}?{}", "p".repeat(10_000), "a&".repeat(20_000));
    let answer = mesh.get(&path).header("user-agent", &"u".repeat(8_000)).send().await;
    assert_eq!(answer.status, 200);
    let record = collector.access_records(1).await.remove(0);
    let bytes = tollgate_proto::prost::Message::encoded_len(&record);
    assert!(bytes < 16 << 10, "{bytes} bytes");
}
