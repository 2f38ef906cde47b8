//! Stories of clusters in trouble: what clients notice of it, in numbers, and what the proxy says of it meanwhile.

use std::time::Instant;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Call, Figures, Mesh, PATIENCE, endpoint};
use crate::resilience::apps;

/// A few hundred requests.
async fn load(mesh: &Mesh) -> Figures {
    Figures::of(mesh.address, "/a", 50, 8).await
}

fn said(cluster: &Value, address: std::net::SocketAddr) -> String {
    endpoint(cluster, address)["last_event"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_instance_that_fails_half_of_its_requests_is_left_out_and_clients_recover() {
    let keys = "balance: round_robin, outlier_detection: {interval: 500ms, base_ejection_time: 60s, \
                consecutive_5xx: 0, consecutive_gateway: 0, failure_percentage: {request_volume: 20}}";
    let (mesh, apps) = apps(4, "", keys).await;
    let ailing = apps[2].address();
    let before = load(&mesh).await;
    assert_eq!(before.failed, 0);

    apps[2].behave("ailing:100");
    let began = Instant::now();
    let (mut asked, mut failed) = (0, 0);
    let (during, cluster) = loop {
        let figures = load(&mesh).await;
        (asked, failed) = (asked + figures.asked, failed + figures.failed);
        let cluster = mesh.cluster("many").await;
        if endpoint(&cluster, ailing)["state"] == "ejected" {
            break (figures, cluster);
        }
        assert!(began.elapsed() < PATIENCE, "never left out: {failed} of {asked} failed");
    };
    assert!(failed > 0);
    assert!(said(&cluster, ailing).contains("% failures, 40.0 % is too much"), "{}", said(&cluster, ailing));
    assert_eq!((&cluster["usable"], &cluster["panic"]), (&Value::from(3), &Value::from(false)));

    let seen = apps[2].seen().len();
    let after = load(&mesh).await;
    println!(
        "before: {before}\nuntil it is left out: {failed} of {asked} failed; the last of them: {during}\nafter: {after}"
    );
    assert_eq!((after.failed, apps[2].seen().len() - seen), (0, 0), "nobody notices any more");
}

#[tokio::test]
async fn when_all_fail_all_are_used() {
    let keys = "balance: round_robin, outlier_detection: {consecutive_5xx: 2, max_ejection_percent: 100, \
                min_health_percent: 0, interval: 50ms, base_ejection_time: 60s}";
    let (mesh, apps) = apps(4, "", keys).await;
    for app in &apps {
        app.behave("status:503");
    }
    let failing = load(&mesh).await;
    assert_eq!(failing.failed, failing.asked);
    let cluster = mesh.cluster("many").await;
    assert_eq!((&cluster["usable"], &cluster["panic"]), (&Value::from(0), &Value::from(true)), "{cluster:#}");
    for app in &apps {
        assert_eq!(endpoint(&cluster, app.address())["state"], "ejected");
        app.behave("");
    }
    // They are left out for a minute, and yet asked: somebody has to be.
    let before: Vec<usize> = apps.iter().map(|app| app.seen().len()).collect();
    let well = load(&mesh).await;
    println!("all fail: {failing}\nall are well, and left out: {well}");
    assert_eq!(well.failed, 0);
    for (app, before) in apps.iter().zip(before) {
        assert_eq!(app.seen().len() - before, well.asked / 4);
    }
    assert_eq!(mesh.cluster("many").await["panic"], true);
}

#[tokio::test]
async fn of_many_that_fail_no_more_than_a_share_are_left_out_and_it_is_said_why() {
    let keys = "balance: round_robin, outlier_detection: {consecutive_5xx: 2, interval: 50ms, base_ejection_time: 60s}";
    let (mesh, apps) = apps(4, "", keys).await;
    for app in &apps[1..] {
        app.behave("status:503");
    }
    let figures = load(&mesh).await;
    let cluster = mesh.cluster("many").await;
    assert_eq!(
        (&cluster["usable"], &cluster["panic"]),
        (&Value::from(2), &Value::from(false)),
        "{cluster:#}"
    );
    let spared: Vec<String> = apps[1..]
        .iter()
        .filter(|app| endpoint(&cluster, app.address())["state"] == "in_use")
        .map(|app| said(&cluster, app.address()))
        .collect();
    println!("three of four fail: {figures}; {spared:?}");
    assert!(
        matches!(spared.as_slice(), [why] if why.contains("at most 2 may be (max_ejection_percent)")),
        "{spared:?}"
    );
    // Of two that are left one is well.
    let later = load(&mesh).await;
    assert_eq!(later.failed, later.asked / 2, "{later}");
}

/// Requests that are under way until the application lets them go.
fn under_way(mesh: &Mesh, count: usize) -> JoinSet<u16> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let call = Call::new(mesh.address, "GET", "/a");
        calls.spawn(async move { call.send().await.status.as_u16() });
    }
    calls
}

#[tokio::test]
async fn the_breaker_opens_at_its_number_and_closes_again() {
    let (mesh, apps) = apps(1, "", "breaker: {requests: 4}").await;
    apps[0].behave("hold");
    let calls = under_way(&mesh, 4);
    mesh.until("many", "four under way", |cluster| cluster["breaker"]["requests"] == 4).await;
    for _ in 0..10 {
        let refused = mesh.get("/a").send().await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (503, "breaker_open"));
    }
    apps[0].behave("");
    assert_eq!(calls.join_all().await, [200; 4]);
    let closed = mesh.until("many", "none under way", |cluster| cluster["breaker"]["requests"] == 0).await;
    assert_eq!(closed["breaker"]["refused_requests"], 10);
    let after = Figures::of(mesh.address, "/a", 25, 4).await;
    assert_eq!((after.failed, apps[0].seen().len()), (0, 4 + after.asked));
    // What a breaker refuses says nothing against an endpoint.
    assert_eq!(closed["endpoints"][0]["state"], "in_use");
}

#[tokio::test]
async fn requests_wait_for_a_connection_up_to_a_number() {
    let (mesh, apps) = apps(1, "", "breaker: {connections: 1, pending: 2}").await;
    apps[0].behave("hold");
    let calls = under_way(&mesh, 3);
    let full = |cluster: &Value| cluster["breaker"]["connections"] == 1 && cluster["breaker"]["pending"] == 2;
    mesh.until("many", "one under way and two waiting", full).await;
    for _ in 0..3 {
        assert_eq!(mesh.get("/a").send().await.reason(), "breaker_open");
    }
    apps[0].behave("");
    assert_eq!(calls.join_all().await, [200; 3]);
    assert_eq!((apps[0].connections(), apps[0].seen().len()), (1, 3));
}
