//! One part is down: what clients get, what passes, what is counted.

use http::StatusCode;
use tollgate_e2e::{Demo, eventually};

const READ: &[&str] = &["policies:read"];

#[tokio::test(flavor = "multi_thread")]
async fn without_authz_nothing_passes_and_clients_are_told_to_come_back() {
    let demo = Demo::start().await;
    let token = demo.token("reader", READ);
    assert_eq!(demo.get("/policies/POL-1", Some(&token)).await.status, StatusCode::OK);
    demo.mesh.service("authz").unwrap().stop().await;

    let answer = demo.get("/policies/POL-1", Some(&token)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|s| s >= 1), "{:?}", answer.headers);
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rate_limit_service_requests_pass_and_are_counted() {
    let demo = Demo::start().await;
    let token = demo.token("reader", READ);
    demo.mesh.service("ratelimit").unwrap().stop().await;
    for _ in 0..5 {
        assert_eq!(demo.get("/policies/POL-1", Some(&token)).await.status, StatusCode::OK);
    }
    let address = demo.mesh.addresses().process("ingress").unwrap();
    let metrics = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
    let counted = metrics.lines().any(|line| {
        line.starts_with("tollgate_ratelimit_decisions")
            && line.contains(r#"failure_mode="allow""#)
            && line.ends_with(" 5")
    });
    assert!(counted, "{metrics}");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_dashboard_requests_are_unaffected() {
    let demo = Demo::start().await;
    let token = demo.token("reader", READ);
    demo.mesh.service("dashboard").unwrap().stop().await;
    for _ in 0..10 {
        assert_eq!(demo.get("/policies/POL-1", Some(&token)).await.status, StatusCode::OK);
    }
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_limits_file_keeps_the_last_good_limits() {
    let demo = Demo::start().await;
    let token = demo.token("reader", READ);
    let file = demo.data().join("limits/insurance.yaml");
    let good = std::fs::read_to_string(&file).unwrap();

    std::fs::write(&file, good.replace("second", "fortnight")).unwrap();
    let metrics = demo.mesh.addresses().process("ratelimit").unwrap();
    eventually("the bad file is counted", async || {
        let text = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap().text().await.unwrap();
        text.lines().any(|line| {
            line.starts_with("tollgate_ratelimit_limits_reloads")
                && !line.contains(r#"result="ok""#)
                && !line.ends_with(" 0")
        })
    })
    .await;
    let answer = demo.get("/policies/POL-1", Some(&token)).await;
    assert!(answer.header("x-ratelimit-limit").starts_with("20"), "{:?}", answer.headers);

    std::fs::write(&file, good.replace("20", "7")).unwrap();
    eventually("the new limit is in force", async || {
        let answer = demo.get("/policies/POL-1", Some(&demo.token("editor", READ))).await;
        answer.header("x-ratelimit-limit").starts_with('7')
    })
    .await;
    demo.stop().await;
}
