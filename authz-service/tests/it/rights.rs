//! Rights are those of now: not of when a request began, nor of when its key was first used.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::admin::problem;
use crate::namespaces::{Two, binding};
use crate::running::Running;

const DEADLINE: Duration = Duration::from_secs(30);

/// A request whose body comes later.
struct Slow {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Slow {
    async fn begin(mesh: &Running, request: &str, token: &str, body: &[u8]) -> Self {
        let mut stream = TcpStream::connect(mesh.addresses.http).await.unwrap();
        let (now, rest) = body.split_at(body.len() / 2);
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(now).await.unwrap();
        Self { stream, rest: rest.to_vec() }
    }

    async fn end(mut self) -> String {
        self.stream.write_all(&self.rest).await.unwrap();
        self.answer().await
    }

    async fn answer(mut self) -> String {
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, self.stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

/// Waits until somebody was let in by the head of a request.
async fn let_in(two: &Two, path: &str) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let lately = "/v1/decisions?service=tollgate-system/admin&subject=ann&verdict=allow&limit=1";
        let page: Value = two.mesh.send(Method::GET, lately, &two.root, None).await.json().await.unwrap();
        if page["items"][0]["path"] == path {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{page}");
    }
}

#[tokio::test]
async fn a_right_that_is_withdrawn_while_the_body_comes_is_no_right() {
    let two = Two::start().await;
    let mut document = binding("reader", "bob");
    let one = document.to_string();
    (document["kind"], document["namespace"], document["name"]) =
        (json!("Binding"), json!("a"), json!("bob"));
    let many = json!({"documents": [document]}).to_string();
    let explain = json!({"what": {"service": "a/orders", "path": "/orders/1"}}).to_string();
    let mut waiting = Vec::new();
    for (method, path, body) in [
        ("PUT", "/v1/namespaces/a/bindings/bob", &one),
        ("POST", "/v1/apply", &many),
        ("POST", "/v1/explain", &explain),
    ] {
        waiting.push(Slow::begin(&two.mesh, &format!("{method} {path}"), &two.ann, body.as_bytes()).await);
        let_in(&two, path).await;
    }
    let rights = "/v1/namespaces/tollgate-system/bindings/ann";
    assert_eq!(two.mesh.send(Method::DELETE, rights, &two.root, None).await.status(), 204);
    for slow in waiting {
        let answer = slow.end().await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("role_missing"), "{answer}");
    }
    let bob = two.mesh.send(Method::GET, "/v1/namespaces/a/bindings/bob", &two.root, None).await;
    problem(bob, 404, "not_found").await;
}

#[tokio::test]
async fn what_was_done_once_is_told_only_to_who_may_do_it_now() {
    let two = Two::start().await;
    let documents = json!({"documents": [{"kind": "Service", "namespace": "a", "name": "more"}]});
    let apply = async |token: &str| {
        let request = two.mesh.http.post(two.mesh.url("/v1/apply")).bearer_auth(token);
        request.header("idempotency-key", "k").json(&documents).send().await.unwrap()
    };
    assert_eq!(apply(&two.ann).await.status(), 200);
    let again = apply(&two.ann).await;
    assert_eq!(
        (again.status().as_u16(), &again.headers()["idempotency-replayed"]),
        (200, &"true".parse().unwrap())
    );
    let tools = json!({"permissions": [{"name": "tools", "service": "admin", "methods": ["POST"], "paths": ["/v1/apply"]}]});
    let role = "/v1/namespaces/tollgate-system/roles/admin-of-a";
    assert_eq!(two.mesh.send(Method::PUT, role, &two.root, Some(tools)).await.status(), 200);
    problem(apply(&two.ann).await, 403, "role_missing").await;
    // The key of one is not the key of another.
    assert!(!apply(&two.root).await.headers().contains_key("idempotency-replayed"));
}

#[tokio::test]
async fn without_the_one_use_token_no_body_is_read() {
    let mesh = Running::empty().await;
    let body = vec![b' '; 4 << 20];
    for token in ["tgb_wrong", ""] {
        // Nothing but the head is sent, and half a body would follow.
        let slow = Slow::begin(&mesh, "POST /v1/bootstrap", token, &body[..64]).await;
        let answer = slow.answer().await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("bootstrap_refused"), "{answer}");
    }
    let token = std::fs::read_to_string(mesh.bootstrap_file()).unwrap();
    let large = json!({"name": "x".repeat(5_000)});
    let refused = mesh.send(Method::POST, "/v1/bootstrap", token.trim(), Some(large)).await;
    problem(refused, 413, "request_too_large").await;
    problem(mesh.send(Method::GET, "/v1/bootstrap", "", None).await, 401, "token_absent").await;
    mesh.administrator("root").await;
}

#[tokio::test]
async fn where_an_administrator_is_counts_only_where_it_is_known() {
    let two = Two::start().await;
    let denial = json!({"who": {"issuer": "demo", "subject": "ann"}, "service": "admin", "methods": ["*"],
        "paths": ["/{**}"], "when": {"not": {"source_cidr": ["127.0.0.0/8"]}}});
    let path = "/v1/namespaces/tollgate-system/denials/from-afar";
    assert_eq!(two.mesh.send(Method::PUT, path, &two.root, Some(denial)).await.status(), 201);
    let ask = || two.mesh.http.get(two.mesh.url("/v1/status")).bearer_auth(&two.ann);
    assert_eq!(ask().send().await.unwrap().status(), 200);
    for name in ["x-forwarded-for", "forwarded", "via"] {
        problem(ask().header(name, "127.0.0.1").send().await.unwrap(), 403, "rule_deny").await;
    }
}

#[tokio::test]
async fn what_is_deep_large_or_odd_is_refused_and_nothing_more() {
    let two = Two::start().await;
    let raw = async |path: &str, media: &str, body: String| {
        let request = two.mesh.http.post(two.mesh.url(path)).bearer_auth(&two.ann);
        request.header("content-type", media).body(body).send().await.unwrap()
    };
    let json_type = "application/json";
    for depth in [200, 100_000] {
        let lists = format!("{{\"documents\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        let nots = "{\"not\":".repeat(depth);
        let condition = format!(
            "{{\"documents\": [{{\"kind\": \"Denial\", \"when\": {nots}{{}}{}}}]}}",
            "}".repeat(depth)
        );
        let aside = condition.replace("\"kind\": \"Denial\", ", "");
        for body in [lists, condition, aside] {
            problem(raw("/v1/apply", json_type, body.clone()).await, 400, "request_malformed").await;
            assert_eq!(raw("/access/v1/evaluation", json_type, body).await.status(), 400);
        }
    }
    let good = json!({"documents": []}).to_string();
    assert_eq!(raw("/v1/apply", "application/json; charset=utf-8", good.clone()).await.status(), 200);
    for media in ["application/yaml", "text/plain", "multipart/form-data; boundary=x", "application/jsonp"] {
        problem(raw("/v1/apply", media, good.clone()).await, 415, "media_type").await;
    }
    let reason = json!({"documents": [], "reason": "x".repeat(2_000)}).to_string();
    problem(raw("/v1/apply", json_type, reason).await, 400, "request_malformed").await;
    let many = vec![json!({"kind": "Service", "namespace": "a", "name": "s"}); 10_001];
    let many = json!({"documents": many}).to_string();
    problem(raw("/v1/apply", json_type, many).await, 400, "request_malformed").await;
    // Names that are paths to elsewhere are no names.
    for (namespace, name) in
        [("a/services/x/../../../b", "orders"), ("a", "../../b/services/x"), ("a%2F..%2Fb", "x")]
    {
        let document =
            json!({"documents": [{"kind": "Service", "namespace": namespace, "name": name}]}).to_string();
        let status = raw("/v1/apply", json_type, document).await.status().as_u16();
        assert!([400, 403, 422].contains(&status), "{namespace} {name}: {status}");
    }
    for epoch in ["18446744073709551615", "9223372036854775808"] {
        for path in [format!("/v1/export?epoch={epoch}"), format!("/v1/diff?from={epoch}")] {
            problem(two.as_ann(Method::GET, &path, None).await, 404, "no_such_epoch").await;
        }
        assert_eq!(two.seen(&format!("/v1/changes?cursor={epoch}.{epoch}")).await["items"], json!([]));
    }
    // What a method is called elsewhere changes nothing here.
    let overridden =
        two.mesh.http.post(two.mesh.url("/v1/namespaces/b/services/orders")).bearer_auth(&two.ann);
    let overridden =
        overridden.header("x-http-method-override", "DELETE").header("x-original-url", "/v1/status");
    problem(overridden.send().await.unwrap(), 403, "role_missing").await;
    // Two credentials are none.
    let twice = two.mesh.http.get(two.mesh.url("/v1/status")).bearer_auth(&two.ann).bearer_auth(&two.root);
    assert_eq!(twice.send().await.unwrap().status(), 400);
}
