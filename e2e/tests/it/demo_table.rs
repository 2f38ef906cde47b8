//! Every row of the demo, asked as a client would.

use http::{Method, StatusCode};
use tollgate_e2e::Demo;

const READ: &[&str] = &["policies:read"];
const WRITE: &[&str] = &["policies:read", "policies:write"];

#[tokio::test(flavor = "multi_thread")]
async fn every_row_answers_as_listed() {
    let demo = Demo::start().await;

    let health = demo.get("/healthz", None).await;
    assert_eq!(health.status, StatusCode::OK);

    let anonymous = demo.get("/policies/POL-1", None).await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    let challenge = anonymous.header("www-authenticate");
    assert!(challenge.starts_with("Bearer realm=") && !challenge.contains("error"), "{challenge}");

    let reader = demo.token("reader", READ);
    for bad in [
        "not-a-token".to_owned(),
        format!("{}x", &reader[..reader.len() - 4]),
        demo.expired_token("reader", READ),
    ] {
        let refused = demo.get("/policies/POL-1", Some(&bad)).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(
            refused.header("www-authenticate").contains(r#"error="invalid_token""#),
            "{:?}",
            refused.headers
        );
    }

    let read = demo.get("/policies/POL-7", Some(&reader)).await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!((read.body["service"].as_str(), read.body["id"].as_str()), (Some("policies"), Some("POL-7")));
    assert_eq!(read.body["version"], "1.0");
    let preview = [("x-preview", "true")];
    let previewed = demo.send_with(Method::GET, "/policies/POL-7", Some(&reader), &preview).await;
    assert_eq!((previewed.status, previewed.body["version"].as_str()), (StatusCode::OK, Some("1.1")));

    let scopeless = demo.get("/policies/POL-1", Some(&demo.token("reader", &["profile"]))).await;
    assert_eq!(scopeless.status, StatusCode::FORBIDDEN);
    assert!(
        scopeless.header("www-authenticate").contains(r#"error="insufficient_scope""#),
        "{:?}",
        scopeless.headers
    );

    let outsider = demo.get("/policies/POL-1", Some(&demo.token("outsider", READ))).await;
    assert_eq!(outsider.status, StatusCode::FORBIDDEN);

    let reader_writes = demo.send(Method::POST, "/policies", Some(&demo.token("reader", WRITE))).await;
    assert_eq!(reader_writes.status, StatusCode::FORBIDDEN);
    let editor_writes = demo.send(Method::POST, "/policies", Some(&demo.token("editor", WRITE))).await;
    assert_eq!(editor_writes.status, StatusCode::CREATED);

    let nowhere = demo.get("/nowhere", Some(&reader)).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_eq!(nowhere.body["reason"], "no_route");

    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_the_client_its_id_and_nothing_of_the_policy() {
    let demo = Demo::start().await;
    let refused = demo.get("/policies/POL-1", Some(&demo.token("outsider", READ))).await;
    assert_eq!(refused.body["request_id"], refused.request_id());
    let body = refused.body.to_string();
    for secret in ["policy-reader", "role", "outsider", "epoch"] {
        assert!(!body.contains(secret), "{body}");
    }
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_about_itself_is_not_believed() {
    let demo = Demo::start().await;
    let forged: &[(&str, &str)] = &[
        ("x-tollgate-subject", "editor"),
        ("x-forwarded-client-cert", "URI=spiffe://tollgate.demo/ns/insurance/sa/quotes"),
        ("x-request-id", "00000000-0000-0000-0000-000000000000"),
    ];
    let answer = demo.send_with(Method::GET, "/policies/POL-1", None, forged).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_ne!(answer.request_id(), "00000000-0000-0000-0000-000000000000");
    demo.stop().await;
}
