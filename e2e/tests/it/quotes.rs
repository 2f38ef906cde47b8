//! `quotes` calls others by way of its own sidecar, as itself; `payments` answers nobody else.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tollgate_e2e::{Demo, attribute};

const QUOTES: &str = "spiffe://tollgate.demo/ns/insurance/sa/quotes";
const POLICIES: &str = "spiffe://tollgate.demo/ns/insurance/sa/policies";

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_asks_policies_and_payments_as_the_workload_that_it_is() {
    let demo = Demo::start().await;
    let adjuster = demo.token("adjuster", &["quotes:create"]);
    let answer = demo.send(Method::POST, "/quotes", Some(&adjuster)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(answer.body["service"], "quotes");
    assert_eq!(answer.body["calls"], json!(["policies", "payments", "credit-bureau"]));
    let reader = demo.token("reader", &["policies:read"]);
    assert_eq!(demo.send(Method::POST, "/quotes", Some(&reader)).await.status, StatusCode::FORBIDDEN);

    // Ingress, sidecar of quotes, three times out of it, the sidecars of both that it asked, and the egress gateway.
    let operator = demo.operator().await;
    let path = format!("/requests/{}", answer.request_id());
    let all = |body: &Value| body["records"].as_array().is_some_and(|all| all.len() == 8);
    let found = operator.wait_for(&path, all).await;
    let arrived: Vec<(&Value, &Value)> = found["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| attribute(record, "tollgate.reporter") == Some(&json!("destination")))
        .map(|record| {
            let named = |key| attribute(record, key).unwrap_or(&Value::Null);
            assert_eq!(named("tollgate.connection_security_policy"), &json!("mutual_tls"));
            assert_eq!(named("tollgate.authz.decision"), &json!("allow"));
            (named("tollgate.destination.workload"), named("tollgate.source.principal"))
        })
        .collect();
    for (to, from) in [
        ("quotes", "spiffe://tollgate.demo/ns/tollgate-system/sa/ingress"),
        ("policies", QUOTES),
        ("payments", QUOTES),
    ] {
        assert!(arrived.contains(&(&json!(to), &json!(from))), "{to}: {arrived:?}");
    }
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_answers_the_workload_quotes_and_nobody_else() {
    let demo = Demo::start().await;
    let at = demo.mesh.addresses();
    let token = demo.token("adjuster", &["quotes:create", "policies:read"]);
    assert_eq!(demo.get("/payments", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(demo.get("/payments", Some(&token)).await.status, StatusCode::FORBIDDEN);

    let url = format!("https://{}/payments", at.payments);
    let quotes = demo.workload_in_the_mesh(QUOTES).await;
    assert_eq!(quotes.post(&url).send().await.unwrap().status(), StatusCode::CREATED);
    // What its role does not say, it may not do either.
    assert_eq!(quotes.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let policies = demo.workload_in_the_mesh(POLICIES).await;
    assert_eq!(policies.post(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let with_a_token = policies.post(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(with_a_token.status(), StatusCode::FORBIDDEN, "no token opens the gate for another workload");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_reaches_what_its_sidecar_knows_and_nothing_else() {
    let demo = Demo::start().await;
    let outbound = demo.mesh.addresses().quotes_outbound;
    let ask = async |host: &str| {
        let answer = demo.send_to(outbound, Method::GET, "/policies/POL-7", None, &[("host", host)]).await;
        (answer.status, answer.body["reason"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("policies.insurance").await.0, StatusCode::OK);
    let unknown = ask("rating-agency.partner.test").await;
    assert_eq!(unknown, (StatusCode::FORBIDDEN, "egress_unregistered".to_owned()));
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_is_for_whom_policy_names_to_where_it_names() {
    let demo = Demo::start().await;
    let egress = demo.mesh.addresses().egress;
    let (quotes, policies) =
        (demo.workload_in_the_mesh(QUOTES).await, demo.workload_in_the_mesh(POLICIES).await);
    let ask = async |client: &reqwest::Client, host: &str, path: &str| {
        let request = client.get(format!("https://{egress}{path}")).header("host", host);
        let answer = request.bearer_auth("a-secret-of-ours").send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let bureau = "credit-bureau.partner.test";
    let plain = demo.send_to(egress, Method::GET, "/v1/scores/POL-1", None, &[("host", bureau)]).await;
    assert_eq!(plain.body["reason"], "mtls_required");
    // A token that is none is refused wherever it is shown; without one the certificate decides.
    assert_eq!(ask(&quotes, bureau, "/v1/scores/POL-1").await.0, 401);
    let without = async |client: &reqwest::Client, host: &str, path: &str| {
        let answer = client.get(format!("https://{egress}{path}")).header("host", host).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let (status, scored) = without(&quotes, bureau, "/v1/scores/POL-1").await;
    assert_eq!(
        (status, &scored["partner"], &scored["credentials"]),
        (200, &json!("tollgate-demo"), &json!([]))
    );
    assert_eq!(without(&quotes, bureau, "/v1/accounts").await.0, 401, "its role says nothing of accounts");
    assert_eq!(without(&policies, bureau, "/v1/scores/POL-1").await.0, 401, "policy does not name it");
    let (status, stranger) = without(&quotes, "rating-agency.partner.test", "/v1/scores/POL-1").await;
    assert_eq!((status, &stranger["reason"]), (403, &json!("egress_unregistered")));
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_are_few_a_minute_for_each_subject() {
    let demo = Demo::start().await;
    let adjuster = demo.token("adjuster", &["quotes:create"]);
    let mut passed = 0;
    for _ in 0..12 {
        let answer = demo.send(Method::POST, "/quotes", Some(&adjuster)).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(!answer.header("retry-after").is_empty());
        } else {
            assert_eq!(answer.status, StatusCode::OK);
            passed += 1;
        }
    }
    // A minute may end in between.
    assert!((5..=10).contains(&passed), "{passed}");
    demo.stop().await;
}
