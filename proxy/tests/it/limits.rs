//! What one client may take.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Mesh, Setup, raw};

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
