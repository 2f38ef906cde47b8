//! Copies of requests: nobody waits for them, and nothing that proves who asked is in them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tollgate_testkit::echo_app::EchoApp;
use tollgate_testkit::fake_collector::wait_for;

use crate::harness::{Mesh, Setup};

async fn mirrored(keys: &str) -> (Mesh, EchoApp) {
    let shadow = EchoApp::start().await;
    let clusters = format!(", {{name: shadow, endpoints: {{static: ['{}']}}}}", shadow.address());
    let routes = format!(
        "routes: [{{name: m, matches: [{{}}], backends: [{{cluster: app}}], timeout: 500ms, \
         request_mirror: {{cluster: shadow, {keys}}}}}]"
    );
    let mesh = Setup { routes: Some(&routes), clusters: &clusters, ..Setup::default() }.start().await;
    (mesh, shadow)
}

async fn copies(shadow: &EchoApp, count: usize) {
    let found = || (shadow.seen().len() >= count).then_some(());
    wait_for(found).await.unwrap_or_else(|| panic!("{} of {count} copies", shadow.seen().len()));
}

#[tokio::test]
async fn a_copy_carries_no_credentials_and_says_what_it_is() {
    let (mesh, shadow) = mirrored("compare: true").await;
    let answer =
        mesh.get("/a?access_token=t&b=c").bearer("reader").header("cookie", "session=s").send().await;
    assert_eq!(answer.status, 200);
    copies(&shadow, 1).await;
    let copy = shadow.seen().remove(0);
    assert_eq!(copy.uri, "/a?b=c");
    assert_eq!(copy.headers["x-tollgate-mirror"], "1");
    for name in ["authorization", "cookie"] {
        assert!(!copy.headers.contains_key(name), "{name}");
    }
    let real = mesh.app.seen().remove(0);
    assert_eq!(real.headers["authorization"], "Bearer reader");
    assert!(!real.headers.contains_key("x-tollgate-mirror"));
    let compared = || {
        let metrics = mesh.service.telemetry().render_metrics().unwrap();
        metrics.contains("status=\"same\"").then_some(())
    };
    assert!(wait_for(compared).await.is_some());
}

#[tokio::test]
async fn answers_that_differ_are_told_apart() {
    let (mesh, shadow) = mirrored("compare: true").await;
    let counted = |status: &str| {
        let label = format!("status=\"{status}\"");
        let is_it = |line: &&str| {
            line.starts_with("tollgate_proxy_mirror_difference_seconds_count") && line.contains(&label)
        };
        let metrics = mesh.service.telemetry().render_metrics().unwrap();
        metrics.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    for (behaviour, expected) in [("", (1, 0)), ("status:500", (1, 1)), ("hang-up", (1, 2)), ("", (2, 2))] {
        shadow.behave(behaviour);
        assert_eq!(mesh.get("/a").bearer("reader").send().await.status, 200, "{behaviour}");
        let compared = || ((counted("same"), counted("different")) == expected).then_some(());
        let now = wait_for(compared).await;
        assert!(now.is_some(), "{behaviour}: {} same, {} different", counted("same"), counted("different"));
    }
}

#[tokio::test]
async fn a_copy_holds_nobody_up() {
    let (mesh, shadow) = mirrored("timeout: 5s, max_in_flight: 2").await;
    let began = std::time::Instant::now();
    // The real one hangs up at once, and its copy after as long as it likes.
    drop(mesh.get("/a").bearer("reader").header("x-behave", "delay:100").send().await);
    assert!(began.elapsed() < Duration::from_secs(2));
    copies(&shadow, 1).await;
    drop(shadow);
    for _ in 0..3 {
        assert_eq!(mesh.get("/a").bearer("reader").send().await.status, 200);
    }
}

#[tokio::test]
async fn what_changes_something_is_copied_only_when_asked() {
    let (mesh, shadow) = mirrored("").await;
    assert_eq!(mesh.post("/a", "x").bearer("reader").send().await.status, 200);
    assert_eq!(mesh.get("/a").bearer("reader").send().await.status, 200);
    copies(&shadow, 1).await;
    assert_eq!(shadow.seen()[0].method, http::Method::GET);

    let (mesh, shadow) = mirrored("unsafe_methods: true, body_bytes: 10").await;
    assert_eq!(mesh.post("/a", "0123456789").bearer("reader").send().await.status, 200);
    copies(&shadow, 1).await;
    assert_eq!(shadow.seen()[0].body, "0123456789");
    assert_eq!(mesh.post("/a", "0123456789X").bearer("reader").send().await.status, 200);
    let dropped = || {
        let metrics = mesh.service.telemetry().render_metrics().unwrap();
        metrics.contains("outcome=\"body_not_copied\"").then_some(())
    };
    assert!(wait_for(dropped).await.is_some());
    assert_eq!(shadow.seen().len(), 1);
    assert_eq!(mesh.app.seen()[1].body.len(), 11);
}

#[tokio::test]
async fn a_copy_of_a_browsers_call_is_what_the_call_became() {
    let shadow = EchoApp::start().await;
    let clusters =
        format!(", {{name: shadow, protocol: h2, endpoints: {{static: ['{}']}}}}", shadow.address());
    let routes = "routes: [{name: m, matches: [{}], backends: [{cluster: app}], grpc_web: true, \
                  request_mirror: {cluster: shadow, unsafe_methods: true, body_bytes: 11}}]";
    let setup =
        Setup { routes: Some(routes), cluster: "protocol: h2", clusters: &clusters, ..Setup::default() };
    let mesh = setup.start().await;
    let call = |body: &str| {
        let call = mesh.post("/test.Service/Call", body).bearer("reader");
        call.header("content-type", "application/grpc-web-text+proto").send()
    };
    // Eleven bytes.
    call(&STANDARD.encode(b"\0\0\0\0\x06copied")).await;
    copies(&shadow, 1).await;
    let (copy, real) = (shadow.seen().remove(0), mesh.app.seen().remove(0));
    assert_eq!(copy.body, &b"\0\0\0\0\x06copied"[..]);
    assert_eq!((copy.body, &copy.headers["content-type"]), (real.body, &real.headers["content-type"]));
}

#[tokio::test]
async fn a_refused_request_is_not_copied() {
    let (mesh, shadow) = mirrored("").await;
    assert_eq!(mesh.get("/a").send().await.status, 401);
    assert_eq!(mesh.get("/a").bearer("reader").send().await.status, 200);
    copies(&shadow, 1).await;
    assert_eq!(shadow.seen().len(), 1);
}
