//! What a proxy tells about itself at its process listener.

use serde_json::Value;

use crate::harness::{Call, Setup, parse};
use tollgate_proxy::App;
use tollgate_runtime::config::ServiceConfig as _;
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::echo_app::EchoApp;

#[tokio::test]
async fn clusters_and_why_an_endpoint_is_left_out() {
    let (good, bad) = (EchoApp::start().await, EchoApp::start().await);
    bad.behave("status:500");
    let mesh = Setup::default().start().await;
    let clusters = format!(
        ", {{name: many, endpoints: {{static: ['{}', '{}']}}, outlier_detection: {{consecutive_5xx: 2}}}}",
        good.address(),
        bad.address()
    );
    let routes = "routes: [{name: a, matches: [{}], authz: off, backends: [{cluster: many}]}]";
    let yaml = Setup { routes: Some(routes), clusters: &clusters, ..Setup::default() }
        .yaml(mesh.authz.address(), mesh.limiter.address(), mesh.app.address())
        .replace("process: {", "process: {listen: '127.0.0.1:0', ");
    let config = parse(&yaml);
    let service = Service::start("ingress", config.process(), config.telemetry()).unwrap();
    let built = App::build(config, service.clone()).await.unwrap();
    let address = built.addresses().of("main").unwrap();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(async move { built.run().await.unwrap() });
    let status = async || -> Value {
        let answer = Call::new(service.process_address().unwrap(), "GET", "/status").send().await;
        serde_json::from_str(&answer.body).unwrap()
    };
    let find = |status: &Value| -> Value {
        let clusters = status["clusters"].as_array().unwrap().clone();
        clusters.into_iter().find(|cluster| cluster["name"] == "many").unwrap()
    };
    let before = status().await;
    assert_eq!(before["config"]["applied"], 1);
    assert_eq!(before["config"]["revision"].as_str().unwrap().len(), 16);
    assert_eq!(find(&before)["usable"], 2);
    let began = std::time::Instant::now();
    loop {
        Call::new(address, "GET", "/a").send().await;
        let cluster = find(&status().await);
        if cluster["usable"] == 1 {
            let endpoints = cluster["endpoints"].as_array().unwrap();
            let left_out = endpoints.iter().find(|one| one["state"] == "ejected").unwrap();
            assert_eq!(left_out["address"], bad.address().to_string());
            let why = left_out["last_event"].as_str().unwrap();
            assert!(why.contains("2 answers 5xx in a row"), "{why}");
            break;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "never left out");
    }
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
