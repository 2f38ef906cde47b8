//! A real, unmodified Envoy 1.40 asks both services and does as they say.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tollgate_e2e::Demo;
use tollgate_testkit::envoy::{Envoy, EnvoyConfig};

const ID: &str = "spiffe://tollgate.demo/ns/tollgate-system/sa/envoy";

#[tokio::test(flavor = "multi_thread")]
async fn envoy_allows_denies_and_limits_as_our_services_tell_it() {
    let demo = Demo::start().await;
    let at = demo.mesh.addresses();
    let identity = demo.data().join("envoy");
    demo.mesh.issue(ID, &identity).await.unwrap();
    demo.put("enforcers/envoy", &json!({ "spiffe_id": ID, "point": "external-gateway" })).await;
    let envoy = Envoy::start(&EnvoyConfig {
        identity: Some(identity),
        authz: Some(at.authz),
        ratelimit: Some(at.ratelimit),
        upstream: at.policies,
        otlp: None,
        concurrency: 1,
        service: "insurance/policies",
        domain: "insurance",
    });
    let ask = async |method, path: &str, token: Option<String>| {
        demo.send_to(envoy.address(), method, path, token.as_deref(), &[]).await
    };

    let reader = demo.token("reader", &["policies:read"]);
    let allowed = ask(Method::GET, "/policies/POL-5", Some(reader.clone())).await;
    assert_eq!((allowed.status, allowed.body["id"].as_str()), (StatusCode::OK, Some("POL-5")));
    assert!(allowed.header("x-ratelimit-limit").starts_with("20, 20;w=1"), "{:?}", allowed.headers);

    let anonymous = ask(Method::GET, "/policies/POL-5", None).await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    assert!(anonymous.header("www-authenticate").starts_with("Bearer"));

    let outsider =
        ask(Method::GET, "/policies/POL-5", Some(demo.token("outsider", &["policies:read"]))).await;
    assert_eq!(outsider.status, StatusCode::FORBIDDEN);
    let scopeless = ask(Method::GET, "/policies/POL-5", Some(demo.token("reader", &["profile"]))).await;
    assert!(scopeless.header("www-authenticate").contains("insufficient_scope"));

    let editor = demo.token("editor", &["policies:read"]);
    let answers = join_all((0..60).map(|_| ask(Method::GET, "/policies/POL-6", Some(editor.clone())))).await;
    let passed = answers.iter().filter(|a| a.status == StatusCode::OK).count();
    assert!((20..=40).contains(&passed), "{passed} passed");
    for refused in answers.iter().filter(|a| a.status != StatusCode::OK) {
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.header("x-envoy-ratelimited"), "true");
        assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    }
    demo.stop().await;
}
