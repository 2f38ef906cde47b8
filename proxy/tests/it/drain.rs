//! Stopping: what was begun is finished, nothing new is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Call, Fate, Mesh, Setup};

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
