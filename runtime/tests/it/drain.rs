//! A server that is told to stop finishes what it has begun, and the process listener says so.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_runtime::{Service, http_server, net};

async fn fetch(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_and_a_new_one_is_not() {
    let service = Service::for_test("sample");
    let listener = net::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, begin) = tokio::sync::oneshot::channel();
    let (finish, finished) = tokio::sync::oneshot::channel();
    let gates = std::sync::Arc::new(parking_lot::Mutex::new(Some((begun, finished))));
    let router = Router::new().route(
        "/slow",
        get(move || async move {
            let (begun, finished) = gates.lock().take().expect("asked once");
            begun.send(()).expect("the test waits");
            finished.await.expect("the test lets go");
            "done"
        }),
    );
    let tasks = service.tasks().clone();
    service.tasks().spawn("server", async move { http_server::serve(&tasks, listener, router).await });

    let asking = tokio::spawn(fetch(address, "/slow"));
    begin.await.unwrap();
    let stopping = tokio::spawn({
        let service = service.clone();
        async move { service.stop().await }
    });
    while fetch(address, "/slow").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!service.readiness().is_ready());
    finish.send(()).unwrap();
    assert!(asking.await.unwrap().unwrap().ends_with("done"));
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_accepted_just_before_the_stop_is_answered() {
    let service = Service::for_test("sample");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, from_here) = tokio::sync::mpsc::channel(1);
    let incoming = Box::pin(stream::unfold(from_here, async |mut from_here| {
        Some((Ok(from_here.recv().await?), from_here))
    }));
    let (tasks, router) = (service.tasks().clone(), Router::new().route("/", get(async || "heard")));
    service
        .tasks()
        .spawn("server", async move { http_server::serve_incoming(&tasks, incoming, router).await });
    accepted.send(listener.accept().await.unwrap().0).await.unwrap();
    let taken = accepted.reserve().await.unwrap();
    service.tasks().stop();
    // On this one thread everybody notices before the client goes on.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("heard"), "{answer}");
    drop(taken);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_listener_answers() {
    let process = ProcessConfig { listen: Some("127.0.0.1:0".parse().unwrap()), ..Default::default() };
    let service = Service::start("sample", &process, &TelemetryConfig::default()).unwrap();
    let address = service.process_address().unwrap();
    let blocker = service.readiness().blocker("policy snapshot");
    let waiting = fetch(address, "/ready").await.unwrap();
    assert!(waiting.starts_with("HTTP/1.1 503") && waiting.contains("policy snapshot"), "{waiting}");
    drop(blocker);
    assert!(fetch(address, "/ready").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(fetch(address, "/live").await.unwrap().starts_with("HTTP/1.1 200"));
    service.published().config(&serde_json::json!({ "listen": "here" }));
    assert!(fetch(address, "/config").await.unwrap().contains("\"listen\":\"here\""));
    assert!(fetch(address, "/metrics").await.unwrap().contains("text/plain"));
    service.stop().await;
}
