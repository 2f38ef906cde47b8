//! A change of policy is in force without a restart; how soon, the patience only bounds.

use http::StatusCode;
use tollgate_e2e::{Demo, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_binding_lets_the_outsider_in_without_a_restart() {
    let demo = Demo::start().await;
    let token = demo.token("outsider", &["policies:read"]);
    assert_eq!(demo.get("/policies/POL-1", Some(&token)).await.status, StatusCode::FORBIDDEN);

    let admin = demo.mesh.create_administrator("e2e").await.unwrap();
    let url = format!(
        "http://{}/v1/namespaces/insurance/bindings/outsider-reads",
        demo.mesh.addresses().authz_http
    );
    let binding =
        serde_json::json!({ "role": "policy-reader", "who": { "issuer": "demo", "subject": "outsider" } });
    let client = reqwest::Client::new();

    let anonymous = client.put(&url).json(&binding).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    let put = client
        .put(&url)
        .bearer_auth(&admin)
        .header("x-tollgate-change-reason", "outsider joins")
        .json(&binding)
        .send()
        .await
        .unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());

    eventually("the change is in force", async || {
        demo.get("/policies/POL-1", Some(&token)).await.status == StatusCode::OK
    })
    .await;
    demo.stop().await;
}
