//! What one client may take.

use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_proto::attributes as a;
use tollgate_testkit::fake_collector::attribute;

use crate::harness::{Mesh, Setup, observed, raw};
use crate::wire::Wire;

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn heads_that_are_too_large() {
    let mesh = Mesh::start().await;
    let large = |bytes: usize| {
        let padding = "x".repeat(bytes);
        format!("GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-padding: {padding}\r\n\r\n")
    };
    let fits = raw(mesh.address, large(60 << 10).as_bytes(), PATIENCE).await;
    assert!(fits.starts_with("HTTP/1.1 200"), "{fits}");
    let over = raw(mesh.address, large(66 << 10).as_bytes(), PATIENCE).await;
    assert!(over.starts_with("HTTP/1.1 431"), "{over}");
    let endless = raw(mesh.address, large(1 << 20).as_bytes(), PATIENCE).await;
    assert!(endless.starts_with("HTTP/1.1 431") || endless.is_empty(), "{endless}");

    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let heard =
        raw(mesh.address, format!("GET /open/a HTTP/1.1\r\nhost: h\r\n{many}\r\n").as_bytes(), PATIENCE)
            .await;
    assert!(heard.starts_with("HTTP/1.1 431"), "{heard}");
    assert_eq!(mesh.app.seen().len(), 1);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_408() {
    let mesh = Setup { listener: "limits: {head_timeout: 300ms}", ..Setup::default() }.start().await;
    for partial in ["G", "PRI * HT", "GET /open/a HTTP/1.1\r\nhost: h\r\nx-slow: "] {
        let began = Instant::now();
        let heard = raw(mesh.address, partial.as_bytes(), PATIENCE).await;
        assert!(heard.starts_with("HTTP/1.1 408"), "{partial}: {heard}");
        assert!(heard.ends_with("{\"reason\":\"request_timeout\"}\n"), "{heard}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    // The second request of a connection has its own time.
    let second = "GET /open/a HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut heard = vec![0; 4096];
    let count = stream.read(&mut heard).await.unwrap();
    assert!(heard[..count].starts_with(b"HTTP/1.1 200"));
    stream.write_all(b"GET /open/b HT").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 408"), "{rest}");
    assert_eq!(mesh.app.seen().len(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_kept_and_then_closed() {
    let listener = "limits: {head_timeout: 100ms, idle_timeout: 600ms}";
    let mesh = Setup { listener, ..Setup::default() }.start().await;
    let began = Instant::now();
    let heard = raw(mesh.address, b"", PATIENCE).await;
    assert_eq!(heard, "");
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(550) && waited < PATIENCE, "{waited:?}");
}

#[tokio::test]
async fn many_idle_connections_are_held() {
    let mesh = Mesh::start().await;
    let mut held = Vec::new();
    for _ in 0..500 {
        held.push(TcpStream::connect(mesh.address).await.unwrap());
    }
    assert_eq!(mesh.get("/open/a").send().await.status, 200);
    let last = held.last_mut().unwrap();
    last.write_all(b"GET /open/b HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut heard = [0; 12];
    last.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_room() {
    let mesh = Setup { listener: "limits: {max_connections: 2}", ..Setup::default() }.start().await;
    let held =
        [TcpStream::connect(mesh.address).await.unwrap(), TcpStream::connect(mesh.address).await.unwrap()];
    let waiting = mesh.get("/open/a").send();
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "it was served beyond the limit");
    drop(held);
    assert_eq!(waiting.await.status, 200);
}

#[tokio::test]
async fn one_address_cannot_flood() {
    let mesh = Setup { listener: "limit_by_address: {per_second: 5}", ..Setup::default() }.start().await;
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        calls.spawn(mesh.get("/policies/1").bearer("reader").send());
    }
    let answers = calls.join_all().await;
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(limited.len() >= 25, "{} of 40", limited.len());
    assert_eq!(
        (limited[0].reason().as_str(), limited[0].header("retry-after")),
        ("limit_address", Some("1"))
    );
    assert_eq!(mesh.authz.questions().len(), 40 - limited.len());
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let mesh = Setup { listener: "limits: {body_bytes: 1000}", ..Setup::default() }.start().await;
    let declared = mesh.post("/open/a", &"x".repeat(1001)).send().await;
    assert_eq!((declared.status.as_u16(), declared.reason().as_str()), (413, "request_too_large"));
    assert!(mesh.app.seen().is_empty());
    assert_eq!(mesh.post("/open/a", &"x".repeat(1000)).send().await.status, 200);
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let chunked = format!("POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    let heard = raw(mesh.address, chunked.as_bytes(), Duration::from_secs(2)).await;
    assert!(heard.starts_with("HTTP/1.1 413"), "{heard}");
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let setup = Setup { listener: "limits: {connections_per_address: 3}", ..Setup::default() };
    let (mesh, collector) = observed(setup).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        stream.write_all(b"GET /open/a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut heard = [0; 12];
        stream.read_exact(&mut heard).await.unwrap();
        held.push(stream);
    }
    let asked = b"GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    assert_eq!(raw(mesh.address, asked, PATIENCE).await, "", "closed without a word");
    assert_eq!(mesh.app.seen().len(), 3);
    let told = |record: &_| attribute(record, a::TOLLGATE_REASON).as_deref() == Some("limit_address");
    assert!(collector.access_records(4).await.iter().any(told));
    drop(held);
    let room =
        || async { raw(mesh.address, asked, PATIENCE).await.starts_with("HTTP/1.1 200").then_some(()) };
    for _ in 0..500 {
        if room().await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("places are given back");
}

#[tokio::test]
async fn a_connection_has_so_many_requests() {
    let mesh = Setup { listener: "limits: {requests_per_connection: 2}", ..Setup::default() }.start().await;
    let three = b"GET /open/a HTTP/1.1\r\nhost: h\r\n\r\n".repeat(3);
    let heard = raw(mesh.address, &three, PATIENCE).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
    assert_eq!(heard.matches("connection: close").count(), 1, "{heard}");
    assert_eq!(mesh.app.seen().len(), 2);

    let io = TokioIo::new(TcpStream::connect(mesh.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(connection.await) });
    for _ in 0..2 {
        let request = http::Request::get("http://h/open/a").body(Empty::<bytes::Bytes>::new()).unwrap();
        sender.ready().await.unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    }
    let gone = tokio::time::timeout(PATIENCE, driving.join_next()).await;
    assert!(gone.is_ok(), "it was told to go, and nothing is under way");
}

#[tokio::test]
async fn bodies_that_come_too_slowly() {
    let listener = "limits: {body_timeout: 400ms, min_bytes_per_second: 1000}";
    let (mesh, collector) = observed(Setup { listener, ..Setup::default() }).await;
    for drips in [false, true] {
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        let head = b"POST /forgiving/a HTTP/1.1\r\nhost: h\r\nauthorization: Bearer reader\r\ncontent-length: 100000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let mut dripping = JoinSet::new();
        dripping.spawn(async move {
            // Until the other side has enough of it.
            while !drips || write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut heard = String::new();
        let all = tokio::time::timeout(PATIENCE, read.read_to_string(&mut heard)).await;
        assert!(heard.starts_with("HTTP/1.1 408"), "{drips} {all:?}: {heard}");
        assert!(heard.contains("request_timeout"), "{heard}");
    }
    let details: Vec<_> = collector
        .access_records(2)
        .await
        .iter()
        .map(|record| attribute(record, a::TOLLGATE_RESPONSE_DETAILS).unwrap())
        .collect();
    assert!(details[0].contains("did not move for") && details[1].contains("too slowly"), "{details:?}");
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut() {
    let listener = "limits: {send_timeout: 300ms, head_timeout: 200ms, min_bytes_per_second: 100}";
    for http2 in [false, true] {
        let (mesh, collector) = observed(Setup { listener, ..Setup::default() }).await;
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        if http2 {
            // A stream of which nothing may be sent: SETTINGS_INITIAL_WINDOW_SIZE is 1.
            let mut wire = Wire::default().preface(&[(4, 1)]);
            wire.get(1, "/open/a", &[("x-behave", "big:50000000")], true);
            stream.write_all(wire.bytes()).await.unwrap();
        } else {
            let asked = b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-behave: big:50000000\r\n\r\n";
            stream.write_all(asked).await.unwrap();
        }
        let record = collector.access_records(1).await.remove(0);
        let said = |key| attribute(&record, key).unwrap();
        assert_eq!(said(a::TOLLGATE_REASON), "client_gone", "HTTP/2: {http2}");
        assert_eq!(said(a::TOLLGATE_RESPONSE_DETAILS), "cut: the client took too little of its answer");
    }
}
