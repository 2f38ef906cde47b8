//! Stopping: what was begun is finished, nothing new is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Call, Fate, Mesh, PATIENCE, Setup};

#[tokio::test]
async fn a_request_in_flight_is_finished_and_its_connection_closed() {
    let mut mesh = Mesh::start().await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    stream.write_all(b"GET /open/x HTTP/1.1\r\nhost: h\r\nx-behave: delay:300\r\n\r\n").await.unwrap();
    let (app, address) = (&mesh.app, mesh.address);
    let began = tollgate_testkit::fake_collector::wait_for(|| (!app.seen().is_empty()).then_some(())).await;
    assert!(began.is_some());
    mesh.stop().await;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(heard.contains("connection: close"), "{heard}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_stop_up() {
    let mut mesh = Mesh::start().await;
    let _fresh = TcpStream::connect(mesh.address).await.unwrap();
    let mut used = TcpStream::connect(mesh.address).await.unwrap();
    used.write_all(b"GET /open/x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut heard = [0; 12];
    used.read_exact(&mut heard).await.unwrap();
    tokio::time::timeout(Duration::from_secs(3), mesh.stop()).await.expect("within the grace");
}

#[tokio::test]
async fn under_load_nothing_is_refused_before_the_stop_and_nothing_cut_off_by_it() {
    let unlimited = "limit_by_address: {per_second: 0}";
    let mut mesh = Setup { listener: unlimited, ..Setup::default() }.start().await;
    let (address, stopping) = (mesh.address, Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let stopping = Arc::clone(&stopping);
        clients.spawn(async move {
            let mut served = 0_usize;
            loop {
                match Call::new(address, "GET", "/open/x").fate().await {
                    Fate::Answer(status) => assert_eq!(status, 200),
                    Fate::NotTaken if stopping.load(Ordering::Relaxed) => return served,
                    other => panic!("{other:?}"),
                }
                served += 1;
            }
        });
    }
    let app = &mesh.app;
    tollgate_testkit::fake_collector::wait_for(|| (app.seen().len() > 50).then_some(())).await.unwrap();
    stopping.store(true, Ordering::Relaxed);
    mesh.stop().await;
    let served: usize = clients.join_all().await.iter().sum();
    assert!(served > 50);
    assert_eq!(served, mesh.app.seen().len(), "each request that arrived was answered");
}

/// A proxy that is told to stop, and waits for others to notice for longer than this test takes.
async fn leaving(mesh: &Mesh) -> JoinSet<()> {
    let (service, mut draining) = (mesh.service.clone(), JoinSet::new());
    draining.spawn(async move { service.drain().await });
    let process = mesh.service.process_address().unwrap();
    let red =
        wait_until(|| async move { Call::new(process, "GET", "/ready").send().await.status == 503 }).await;
    assert!(red, "readiness turns red");
    draining
}

/// Whether it came true in time.
async fn wait_until<F: Future<Output = bool>>(so: impl Fn() -> F) -> bool {
    let began = tokio::time::Instant::now();
    while began.elapsed() < PATIENCE {
        if so().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

const ASK: &[u8] = b"GET /open/x HTTP/1.1\r\nhost: h\r\n\r\n";

#[tokio::test]
async fn while_readiness_is_red_whoever_comes_is_served_and_told_that_it_was_the_last_time() {
    let mesh = Setup { process: ", drain_delay: 1h", ..Setup::default() }.start().await;
    let mut fresh = TcpStream::connect(mesh.address).await.unwrap();
    let mut used = TcpStream::connect(mesh.address).await.unwrap();
    used.write_all(ASK).await.unwrap();
    let mut heard = vec![0; 4096];
    let count = used.read(&mut heard).await.unwrap();
    let first = String::from_utf8_lossy(&heard[..count]).into_owned();
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("connection: close"), "{first}");

    let _draining = leaving(&mesh).await;
    let mut late = TcpStream::connect(mesh.address).await.unwrap();
    for (which, stream) in [("used", &mut used), ("fresh", &mut fresh), ("late", &mut late)] {
        stream.write_all(ASK).await.unwrap();
        let mut heard = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut heard)).await.unwrap().unwrap();
        assert!(heard.contains("HTTP/1.1 200") && heard.contains("connection: close"), "{which}: {heard}");
    }
}

#[tokio::test]
async fn while_readiness_is_red_http2_is_told_by_goaway_and_its_streams_go_on() {
    let mesh = Setup { process: ", drain_delay: 1h", ..Setup::default() }.start().await;
    let io = TokioIo::new(TcpStream::connect(mesh.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { connection.await.unwrap() });
    let ask = |path: &str| Request::get(format!("http://h{path}")).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(ask("/open/x")).await.unwrap().status(), 200);
    mesh.app.behave("hold");
    let held = ask("/strict/x");
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { (sender.send_request(held).await, sender) });
    let arrived = wait_until(|| async { mesh.app.seen().len() == 2 }).await;
    assert!(arrived);

    let _draining = leaving(&mesh).await;
    mesh.app.behave("");
    let (answer, _sender) = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    let ended = tokio::time::timeout(PATIENCE, driving.join_next()).await.expect("the connection ends");
    ended.unwrap().unwrap();
    assert_eq!(mesh.get("/open/x").http2().send().await.status, 200, "on another connection");
}
