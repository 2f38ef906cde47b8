//! Limits that the proxy holds by itself, and the question about each new connection.

use tollgate_proto::attributes as a;
use tollgate_testkit::fake_collector::attribute;
use tollgate_testkit::fake_ratelimit::{over, within};
use tonic::Status;

use crate::harness::{Mesh, PATIENCE, Setup, observed, parse, raw};

const LIMITED: &str = r#"
routes:
  - name: by-subject
    matches: [{path: {type: PathPrefix, value: /by-subject}}]
    backends: [{cluster: app}]
    local_limits: [{requests: 2, per: 1h, key: "{token.subject}"}]
  - name: whole
    matches: [{path: {type: PathPrefix, value: /whole}}]
    backends: [{cluster: app}]
    local_limits: [{requests: 3, per: 1h}]
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
"#;

async fn statuses(mesh: &Mesh, path: &str, subject: &str, times: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..times {
        all.push(mesh.get(path).bearer(subject).send().await.status.as_u16());
    }
    all
}

#[tokio::test]
async fn a_route_is_limited_as_a_whole_before_anybody_is_asked() {
    let mesh = Setup { routes: Some(LIMITED), ..Setup::default() }.start().await;
    assert_eq!(statuses(&mesh, "/whole", "a", 2).await, [200, 200]);
    assert_eq!(statuses(&mesh, "/whole", "b", 1).await, [200]);
    let refused = mesh.get("/whole").bearer("c").send().await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (429, "limit_local"));
    assert_eq!(refused.header("x-ratelimit-limit"), Some("3, 3;w=3600"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(refused.header("retry-after"), refused.header("x-ratelimit-reset"));
    assert_eq!(mesh.authz.questions().len(), 3);
    assert_eq!(mesh.get("/open").send().await.status, 200);
}

#[tokio::test]
async fn each_subject_has_its_own_and_only_a_verified_one_counts() {
    let mesh = Setup { routes: Some(LIMITED), ..Setup::default() }.start().await;
    assert_eq!(statuses(&mesh, "/by-subject", "a", 3).await, [200, 200, 429]);
    assert_eq!(statuses(&mesh, "/by-subject", "b", 3).await, [200, 200, 429]);
    assert_eq!(mesh.authz.questions().len(), 6);
}

#[tokio::test]
async fn a_listener_limits_by_host_and_client() {
    let listener = "local_limits: [{requests: 2, per: 1h, hostnames: [one.example.org]}, \
                    {requests: 5, per: 1h, key: '{client.address}'}]";
    let mesh = Setup { listener, ..Setup::default() }.start().await;
    let mut seen = Vec::new();
    for host in ["one.example.org", "one.example.org", "one.example.org", "other.example.org"] {
        seen.push(mesh.get("/open/a").header("host", host).send().await.status.as_u16());
    }
    assert_eq!(seen, [200, 200, 429, 200]);
    // What one limit refused counts in no later one: three have passed the second.
    let mut left = 0;
    while mesh.get("/open/a").send().await.status == 200 {
        left += 1;
    }
    assert_eq!(left, 2);
}

/// That it comes before authorization is shown by `limits::one_address_cannot_flood`.
#[test]
fn an_ingress_limits_addresses_without_being_told_to() {
    for (role, expected) in [("ingress", Some(500)), ("sidecar", None), ("outbound", None), ("egress", None)]
    {
        let text = format!("listeners: [{{name: main, bind: '127.0.0.1:0', role: {role}}}]");
        assert_eq!(parse(&text).listeners[0].requests_per_address(), expected, "{role}");
    }
}

const BY_CLIENT: &str = "connection_limit: {descriptors: [[{key: remote_address, value: '{client.address}'}, \
                         {key: listener, value: '{listener.name}'}]]}";

#[tokio::test]
async fn each_new_connection_is_asked_about_once() {
    let (mesh, collector) = observed(Setup { listener: BY_CLIENT, ..Setup::default() }).await;
    let two =
        "GET /open/a HTTP/1.1\r\nhost: h\r\n\r\nGET /open/b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let heard = raw(mesh.address, two.as_bytes(), PATIENCE).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
    let questions = mesh.limiter.questions();
    assert_eq!(questions.len(), 1);
    let entries: Vec<_> = questions[0].descriptors[0]
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect();
    assert_eq!(entries, [("remote_address", "127.0.0.1"), ("listener", "main")]);

    mesh.limiter.answer(|_| Ok(over(1, 1)));
    let heard = raw(mesh.address, two.as_bytes(), PATIENCE).await;
    assert_eq!((heard.as_str(), mesh.app.seen().len()), ("", 2));
    let records = collector.access_records(3).await;
    let reasons: Vec<_> = records.iter().map(|record| attribute(record, a::TOLLGATE_REASON)).collect();
    assert_eq!(reasons, [Some("ok".into()), Some("ok".into()), Some("limit_exceeded".into())]);
}

#[tokio::test]
async fn what_happens_to_connections_when_nobody_answers_is_configured() {
    for (more, expected) in [("", true), (", on_error: deny", false)] {
        let listener = BY_CLIENT.replace("]]}", &format!("]]{more}}}"));
        let mesh = Setup { listener: &listener, ..Setup::default() }.start().await;
        mesh.limiter.answer(|_| Err(Status::unavailable("away")));
        assert_eq!(mesh.get("/open/a").try_send().await.is_ok(), expected, "{more}");
        mesh.limiter.answer(|_| Ok(within(5, 4)));
        assert_eq!(mesh.get("/open/a").send().await.status, 200);
    }
}
