//! What a proxy tells about itself at its process listener.

use tollgate_runtime::config::ServiceConfig as _;
use tollgate_testkit::echo_app::EchoApp;

use crate::harness::{PATIENCE, Setup, endpoint};

#[tokio::test]
async fn clusters_and_why_an_endpoint_is_left_out() {
    let (good, bad) = (EchoApp::start().await, EchoApp::start().await);
    bad.behave("status:500");
    let clusters = format!(
        ", {{name: many, endpoints: {{static: ['{}', '{}']}}, outlier_detection: {{consecutive_5xx: 2}}}}",
        good.address(),
        bad.address()
    );
    let routes = "routes: [{name: a, matches: [{}], authz: off, backends: [{cluster: many}]}]";
    let mesh = Setup { routes: Some(routes), clusters: &clusters, ..Setup::default() }.start().await;
    let before = mesh.status().await;
    assert_eq!(before["config"]["applied"], 1);
    assert_eq!(before["config"]["revision"].as_str().unwrap().len(), 16);
    assert_eq!(mesh.cluster("many").await["usable"], 2);
    let began = std::time::Instant::now();
    let cluster = loop {
        mesh.get("/a").send().await;
        let cluster = mesh.cluster("many").await;
        if cluster["usable"] == 1 {
            break cluster;
        }
        assert!(began.elapsed() < PATIENCE, "never left out");
    };
    let left_out = endpoint(&cluster, bad.address());
    assert_eq!(left_out["state"], "ejected");
    let why = left_out["last_event"].as_str().unwrap();
    assert!(why.contains("2 answers 5xx in a row"), "{why}");
}

#[test]
fn the_schema_knows_every_key_of_the_example() {
    let schema = tollgate_proxy::Config::schema().unwrap();
    let text = schema.to_string();
    for key in
        ["outlier_detection", "request_mirror", "overrides", "hostnames", "slow_start", "limit_by_address"]
    {
        assert!(text.contains(&format!("\"{key}\"")), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
    let example = tollgate_proxy::Config::EXAMPLE.unwrap();
    assert!(example.contains("routes:"));
}
