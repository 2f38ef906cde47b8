//! Every hop inside the demo is encrypted and proves who is at both ends.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_e2e::{Demo, attribute};

const ME: &str = "spiffe://tollgate.demo/ns/insurance/sa/me";

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_certificate_of_the_demo_come_in_by_mtls() {
    let demo = Demo::start().await;
    let url = format!("https://localhost:{}/policies/POL-1", demo.mesh.addresses().ingress_mtls.port());
    let token = demo.token("reader", &["policies:read"]);
    let client = demo.workload(ME).await;
    let answer = client.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();

    let operator = demo.operator().await;
    let path = format!("/requests/{id}");
    let both = |body: &Value| body["records"].as_array().is_some_and(|all| all.len() == 2);
    let found = operator.wait_for(&path, both).await;
    let records = found["records"].as_array().unwrap();
    for (reporter, principal) in
        [("gateway", ME), ("destination", "spiffe://tollgate.demo/ns/tollgate-system/sa/ingress")]
    {
        let record =
            records.iter().find(|one| attribute(one, "tollgate.reporter") == Some(&json!(reporter))).unwrap();
        assert_eq!(attribute(record, "tollgate.source.principal"), Some(&json!(principal)), "{reporter}");
        assert_eq!(attribute(record, "tollgate.connection_security_policy"), Some(&json!("mutual_tls")));
        assert_eq!(attribute(record, "tollgate.authz.decision"), Some(&json!("allow")), "{reporter}");
    }

    // Without a certificate nobody comes in there.
    let roots = std::fs::read(demo.data().join("clients/me/ca.crt")).unwrap();
    let anonymous = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&roots).unwrap()])
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    assert!(anonymous.get(&url).bearer_auth(&token).send().await.is_err());
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_takes_nobody_but_whom_policy_names() {
    let demo = Demo::start().await;
    let sidecar = demo.mesh.addresses().policies;
    let token = demo.token("reader", &["policies:read"]);
    let plain = demo.send_to(sidecar, http::Method::GET, "/policies/POL-1", Some(&token), &[]).await;
    assert_eq!(
        (plain.status, plain.body["reason"].as_str()),
        (StatusCode::BAD_REQUEST, Some("mtls_required"))
    );
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_is_good_with_its_certificate_alone() {
    let demo = Demo::start().await;
    let at = demo.mesh.addresses();
    let url = format!("https://localhost:{}/policies/POL-1", at.ingress_mtls.port());
    let (me, other) = (demo.workload(ME).await, demo.workload(&ME.replace("/me", "/other")).await);
    let token = demo.bound_token("reader", &["policies:read"], "me");
    // Both proxies on the way ask; the sidecar sees the ingress's certificate, which it is not bound to.
    let answer = me.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let stolen = other.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(stolen.status(), StatusCode::UNAUTHORIZED);
    let challenge = stolen.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    // Without any, and with somebody's word for one.
    let bare = demo.get("/policies/POL-1", Some(&token)).await;
    assert_eq!(bare.status, StatusCode::UNAUTHORIZED);
    let claimed = format!("Hash={}", demo.certificate("me").fingerprint());
    let claimed = [("x-forwarded-client-cert", &*claimed)];
    let forged = demo.send_with(http::Method::GET, "/policies/POL-1", Some(&token), &claimed).await;
    assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
    // Others' tokens are not held to anything.
    let free = demo.token("reader", &["policies:read"]);
    assert_eq!(other.get(&url).bearer_auth(&free).send().await.unwrap().status(), StatusCode::OK);
    demo.stop().await;
}
