//! Endpoints that fail, one at a time and all at once, and how little of it a client sees.

use std::time::{Duration, Instant};

use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::fake_collector::wait_for;
use tollgate_testkit::ports::free_address;

use crate::harness::{Call, Figures, Mesh, PATIENCE, Setup};

/// A mesh whose route `/a` goes to `count` apps, with these keys of the route and of the cluster.
pub(crate) async fn apps(count: usize, route: &str, cluster: &str) -> (Mesh, Vec<EchoApp>) {
    let mut apps = Vec::new();
    for _ in 0..count {
        apps.push(EchoApp::start().await);
    }
    let addresses: Vec<_> = apps.iter().map(|app| format!("'{}'", app.address())).collect();
    let clusters = format!(", {{name: many, endpoints: {{static: [{}]}}, {cluster}}}", addresses.join(", "));
    let routes = format!(
        "routes: [{{name: a, matches: [{{}}], authz: off, timeout: 30s, backends: [{{cluster: many}}], {route}}}]"
    );
    let mesh = Setup {
        routes: Some(&routes),
        clusters: &clusters,
        listener: "limit_by_address: {per_second: 0}",
        ..Setup::default()
    }
    .start()
    .await;
    (mesh, apps)
}

/// How many of `count` requests were not answered 200.
async fn failures(mesh: &Mesh, count: usize) -> usize {
    let mut failed = 0;
    for _ in 0..count {
        failed += usize::from(mesh.get("/a").send().await.status != 200);
    }
    failed
}

fn metric(mesh: &Mesh, text: &str) -> bool {
    mesh.service.telemetry().render_metrics().unwrap().lines().any(|line| line.contains(text))
}

#[tokio::test]
async fn an_endpoint_that_always_fails_is_left_out_and_comes_back() {
    let (mesh, apps) = apps(
        3,
        "",
        "outlier_detection: {consecutive_5xx: 3, interval: 50ms, base_ejection_time: 300ms, jitter: 0ms}",
    )
    .await;
    apps[1].behave("status:500");
    while !metric(&mesh, "cause=\"consecutive_5xx\"") {
        mesh.get("/a").send().await;
    }
    let before = apps[1].seen().len();
    assert_eq!(failures(&mesh, 30).await, 0);
    assert_eq!(apps[1].seen().len(), before);
    apps[1].behave("");
    let back = Instant::now();
    while apps[1].seen().len() == before {
        assert!(back.elapsed() < PATIENCE, "it never came back");
        mesh.get("/a").send().await;
    }
    assert_eq!(failures(&mesh, 20).await, 0);
}

#[tokio::test]
async fn the_only_endpoint_is_spared() {
    let (mesh, apps) = apps(1, "", "outlier_detection: {consecutive_5xx: 2}").await;
    apps[0].behave("status:503");
    let answer = mesh.get("/a").send().await;
    assert!(answer.body.contains("policies"), "its own words reach the client");
    assert_eq!(failures(&mesh, 5).await, 5);
    assert!(metric(&mesh, "outcome=\"spared\""));
    apps[0].behave("");
    assert_eq!(failures(&mesh, 5).await, 0);
}

#[tokio::test]
async fn a_request_is_tried_again_elsewhere() {
    let off = "outlier_detection: {enabled: false}";
    let (mesh, apps) = apps(2, "retry: {attempts: 1, on: [gateway, reset], backoff: 1ms}", off).await;
    apps[0].behave("status:503");
    assert_eq!(failures(&mesh, 20).await, 0);
    apps[0].behave("hang-up");
    assert_eq!(failures(&mesh, 20).await, 0);
    // What may not be acted on twice is not.
    let before = apps.iter().map(|app| app.seen().len()).sum::<usize>();
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(mesh.post("/a", "x").send().await.status != 200);
    }
    assert!(failed > 0);
    assert_eq!(apps.iter().map(|app| app.seen().len()).sum::<usize>() - before, 20);
}

#[tokio::test]
async fn a_body_that_is_gone_is_not_sent_again() {
    let keys = "retry: {attempts: 3, on: [5xx, reset], methods: [PUT], backoff: 1ms}";
    let (mesh, apps) = apps(2, keys, "outlier_detection: {enabled: false}").await;
    for app in &apps {
        app.behave("status:500");
    }
    let mut call = mesh.post("/a", "precious");
    call = call.method("PUT");
    assert_eq!(call.send().await.status, 500);
    assert_eq!(apps.iter().map(|app| app.seen().len()).sum::<usize>(), 1);
    let empty = Call::new(mesh.address, "PUT", "/a").send().await;
    assert_eq!(empty.status, 500);
    assert_eq!(apps.iter().map(|app| app.seen().len()).sum::<usize>(), 1 + 4);
}

#[tokio::test]
async fn what_was_never_sent_may_always_be_sent() {
    let gone = free_address();
    let app = EchoApp::start().await;
    let clusters = format!(
        ", {{name: many, outlier_detection: {{enabled: false}}, endpoints: {{static: ['{gone}', '{}']}}}}",
        app.address()
    );
    let routes = "routes: [{name: a, matches: [{}], authz: off, backends: [{cluster: many}], \
                  retry: {attempts: 1, on: [], backoff: 1ms}}]";
    let mesh = Setup { routes: Some(routes), clusters: &clusters, ..Setup::default() }.start().await;
    for _ in 0..12 {
        let answer = mesh.post("/a", "precious").send().await;
        assert_eq!(answer.status, 200);
    }
    assert!(app.seen().iter().all(|seen| seen.body == "precious"));
}

#[tokio::test]
async fn retries_have_a_budget() {
    let keys = "breaker: {min_retries: 0, retry_percent: 0}, outlier_detection: {enabled: false}";
    let (mesh, apps) = apps(2, "retry: {attempts: 3, backoff: 1ms}", keys).await;
    for app in &apps {
        app.behave("status:503");
    }
    assert_eq!(failures(&mesh, 10).await, 10);
    assert_eq!(apps.iter().map(|app| app.seen().len()).sum::<usize>(), 10);
}

#[tokio::test]
async fn when_everything_fails_retries_do_not_multiply_it() {
    let keys = "breaker: {min_retries: 1, retry_percent: 10}, outlier_detection: {enabled: false}";
    let (mesh, apps) = apps(2, "retry: {attempts: 5, backoff: 20ms}", keys).await;
    for app in &apps {
        app.behave("status:503");
    }
    let figures = Figures::of(mesh.address, "/a", 20, 20).await;
    assert_eq!(figures.failed, figures.asked);
    let tries: usize = apps.iter().map(|app| app.seen().len()).sum();
    let refused = mesh.cluster("many").await["breaker"]["refused_retries"].as_u64().unwrap();
    println!("{} requests, {tries} tries, {refused} tries were refused", figures.asked);
    // Without a budget they would be six times as many.
    assert!(refused > 0 && tries < figures.asked * 2, "{tries} tries");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let keys = "retry: {attempts: 1, backoff: 1ms, max_backoff: 1500ms}";
    let (mesh, apps) = apps(1, keys, "").await;
    let began = Instant::now();
    let answer = mesh.get("/a").header("x-behave", "busy:1").send().await;
    assert_eq!((answer.status.as_u16(), apps[0].seen().len()), (503, 2));
    assert!(began.elapsed() >= Duration::from_secs(1));
    // Who asks for more patience than the route has gets to say so to the client.
    let began = Instant::now();
    let answer = mesh.get("/a").header("x-behave", "busy:30").send().await;
    assert_eq!((answer.status.as_u16(), apps[0].seen().len()), (503, 3));
    assert_eq!(answer.header("retry-after"), Some("30"));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn each_try_has_a_time_of_its_own() {
    let keys = "retry: {attempts: 1, on: [timeout], per_try_timeout: 200ms, backoff: 1ms}";
    let (mesh, apps) = apps(2, keys, "outlier_detection: {enabled: false}, balance: round_robin").await;
    // Longer than the request as a whole may take.
    apps[0].behave("delay:60000");
    assert_eq!(failures(&mesh, 4).await, 0);
}

#[tokio::test]
async fn a_hedge_makes_up_for_a_slow_endpoint() {
    let (mesh, apps) = apps(2, "hedge: {after: 50ms}", "balance: round_robin").await;
    // Longer than the request may take.
    apps[0].behave("delay:60000");
    assert_eq!(failures(&mesh, 4).await, 0);
    apps[0].behave("");
    // What changes something is never sent twice.
    let before = apps.iter().map(|app| app.seen().len()).sum::<usize>();
    for _ in 0..2 {
        assert_eq!(mesh.post("/a", "x").send().await.status, 200);
    }
    assert_eq!(apps.iter().map(|app| app.seen().len()).sum::<usize>() - before, 2);
}

#[tokio::test]
async fn an_answer_may_not_stand_still() {
    let (mesh, _apps) = apps(1, "idle_timeout: 10ms", "").await;
    // The app rests for fifty milliseconds in the middle of its answer.
    let cut = mesh.get("/a").header("x-behave", "cut").try_send().await;
    assert!(cut.is_err());
    let timed_out = || metric(&mesh, "tollgate_reason=\"upstream_timeout\"").then_some(());
    assert!(wait_for(timed_out).await.is_some());
}

#[tokio::test]
async fn an_answer_may_not_go_on_for_ever() {
    let (mesh, _apps) = apps(1, "idle_timeout: 10s, stream_timeout: 300ms", "").await;
    assert_eq!(mesh.get("/a").send().await.status, 200);
    // It never stands still.
    let cut = mesh.get("/a").header("x-behave", "drip").try_send().await;
    assert!(cut.is_err());
    let timed_out = || metric(&mesh, "tollgate_reason=\"upstream_timeout\"").then_some(());
    assert!(wait_for(timed_out).await.is_some());
}
