//! What a client gets when a part does not do its work.

use std::time::{Duration, Instant};

use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use tollgate_testkit::echo_app::{EchoApp, NonsenseApp};
use tollgate_testkit::ports::free_address;
use tonic::Status;

use crate::harness::{Mesh, PATIENCE, Setup, parse, raw, run};
use tollgate_runtime::Service;

#[tokio::test]
async fn without_authorization_requests_are_refused_as_503() {
    let mesh = Mesh::start().await;
    let yaml = Setup::default().yaml(free_address(), mesh.limiter.address(), mesh.app.address());
    let (address, _running) = run(parse(&yaml), Service::for_test("ingress")).await;
    let answer = crate::harness::Call::new(address, "GET", "/policies/1").bearer("reader").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "authz_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(mesh.app.seen().is_empty());
    let forgiving = crate::harness::Call::new(address, "GET", "/forgiving").send().await;
    assert_eq!(forgiving.status, 200);
}

#[tokio::test]
async fn a_slow_authorization_is_no_authorization() {
    let mesh = Mesh::start().await;
    mesh.authz.delay(2 * PATIENCE);
    let began = Instant::now();
    let answer = mesh.get("/policies/1").bearer("reader").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "authz_unavailable"));
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn an_authorization_that_makes_no_sense_is_an_error() {
    let mesh = Mesh::start().await;
    mesh.authz.answer(|_| Ok(CheckResponse::default()));
    let silent = mesh.get("/policies/1").bearer("reader").send().await;
    assert_eq!((silent.status.as_u16(), silent.reason().as_str()), (503, "authz_error"));
    mesh.authz.answer(|_| Err(Status::internal("broken")));
    let broken = mesh.get("/policies/1").bearer("reader").send().await;
    assert_eq!((broken.status.as_u16(), broken.reason().as_str()), (503, "authz_error"));
    assert!(mesh.app.seen().is_empty());
}

#[tokio::test]
async fn an_error_is_no_leave_to_pass_even_where_silence_is() {
    let mesh = Mesh::start().await;
    let yaml = Setup::default().yaml(mesh.authz.address(), mesh.limiter.address(), mesh.app.address());
    let open = yaml.replacen("authz: {", "authz: {on_error: allow, ", 1);
    let (address, _running) = run(parse(&open), Service::for_test("ingress")).await;
    mesh.authz.answer(|_| Err(Status::permission_denied("not about this service")));
    let refused = crate::harness::Call::new(address, "GET", "/policies/1").bearer("reader").send().await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (503, "authz_error"));
    assert!(mesh.app.seen().is_empty());
}

#[tokio::test]
async fn garbage_in_place_of_authorization() {
    let mesh = Mesh::start().await;
    let nonsense = NonsenseApp::start(b"220 smtp.example ESMTP\r\n").await;
    let yaml = Setup::default().yaml(nonsense.address(), mesh.limiter.address(), mesh.app.address());
    let (address, _running) = run(parse(&yaml), Service::for_test("ingress")).await;
    let answer = crate::harness::Call::new(address, "GET", "/policies/1").bearer("reader").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "authz_unavailable"));
    assert!(mesh.app.seen().is_empty());
}

#[tokio::test]
async fn without_the_limiter_requests_pass_or_not_as_configured() {
    let mesh = Mesh::start().await;
    let yaml = Setup::default().yaml(mesh.authz.address(), free_address(), mesh.app.address());
    let service = Service::for_test("ingress");
    let (address, _running) = run(parse(&yaml), service.clone()).await;
    let passed = crate::harness::Call::new(address, "GET", "/policies/1").bearer("reader").send().await;
    assert_eq!(passed.status, 200);
    let refused = crate::harness::Call::new(address, "GET", "/strict").send().await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (503, "ratelimit_unavailable"));
    let metrics = service.telemetry().render_metrics().unwrap();
    assert!(metrics.contains("failure_mode=\"allow\""), "{metrics}");
}

#[tokio::test]
async fn a_slow_limiter_does_not_hold_requests_up() {
    let mesh = Mesh::start().await;
    mesh.limiter.delay(2 * PATIENCE);
    let began = Instant::now();
    assert_eq!(mesh.get("/policies/1").bearer("reader").send().await.status, 200);
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn an_upstream_that_fails() {
    let mesh = Mesh::start().await;
    for (behaviour, status, reason) in
        [("hang-up", 502, "upstream_reset"), ("delay:5000", 504, "upstream_timeout")]
    {
        let answer = mesh.get("/open/x").header("x-behave", behaviour).send().await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason), "{behaviour}");
    }
    // Its own failures are its own to tell.
    let own = mesh.get("/open/x").header("x-behave", "status:503").send().await;
    assert!(own.status == 503 && own.body.contains("policies"));
}

#[tokio::test]
async fn an_upstream_that_is_not_there_or_not_http() {
    let gone = Setup { upstream: Some(free_address()), ..Setup::default() }.start().await;
    let answer = gone.get("/open/x").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (502, "upstream_connect"));

    let nonsense = NonsenseApp::start(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    let mesh = Setup { upstream: Some(nonsense.address()), ..Setup::default() }.start().await;
    let answer = mesh.get("/open/x").send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (502, "upstream_protocol"));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_seen_as_cut_off() {
    let mesh = Mesh::start().await;
    let answer = mesh.get("/open/x").header("x-behave", "cut").try_send().await;
    assert!(answer.is_err(), "{answer:?}");
    let after = mesh.get("/open/x").send().await;
    assert_eq!(after.status, 200);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_is_replaced() {
    let address = free_address();
    let app = EchoApp::start_at(address).await;
    let mesh = Setup { upstream: Some(address), ..Setup::default() }.start().await;
    assert_eq!(mesh.get("/open/x").send().await.status, 200);
    drop(app);
    let gone = mesh.get("/open/x").send().await;
    assert_eq!(gone.status, 502);
    let _app = EchoApp::start_at(address).await;
    assert_eq!(mesh.get("/open/x").send().await.status, 200);
}

#[tokio::test]
async fn a_body_that_stands_still_is_its_clients_fault() {
    let mesh = Mesh::start().await;
    let half = b"POST /open/x HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc";
    let heard = raw(mesh.address, half, PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    assert!(heard.contains("request_timeout"), "{heard}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_blocks_nobody() {
    let mesh = Mesh::start().await;
    assert_eq!(mesh.get("/open/x").send().await.status, 200);
    let half = b"POST /open/x HTTP/1.1\r\nhost: h\r\nx-behave: early\r\ncontent-length: 10\r\n\r\nabc";
    let mut slow = tokio::net::TcpStream::connect(mesh.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut slow, half).await.unwrap();
    let mut heard = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut slow, &mut heard).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200");
    let began = Instant::now();
    assert_eq!(mesh.get("/open/x").send().await.status, 200);
    assert!(began.elapsed() < Duration::from_millis(400));
}

#[tokio::test]
async fn a_collector_that_is_away_is_nobodys_concern() {
    let mesh = Setup { collector: Some(free_address()), ..Setup::default() }.start().await;
    for _ in 0..20 {
        assert_eq!(mesh.get("/policies/1").bearer("reader").send().await.status, 200);
    }
}
