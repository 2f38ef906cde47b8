//! 5,000 connections that were used once and then stand idle.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_testkit::ports::free_addresses;

use crate::parts::{Part, listening};

const CONNECTIONS: usize = 5000;
/// What they may cost together in an unoptimised build: 40 KiB each.
const MAX_MIB: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_idle_connections_fit_the_stated_memory() {
    let [ingress] = free_addresses();
    let proxy = Part::start(
        "proxy",
        "ingress",
        &[
            format!("listeners.0.bind={ingress}"),
            "listeners.0.limit_by_address.per_second=0".to_owned(),
            "listeners.0.limits.connections_per_address=0".to_owned(),
            "telemetry.endpoint=null".to_owned(),
        ],
    );
    listening(ingress).await;
    let before = proxy.rss_mib();

    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut connection = TcpStream::connect(ingress).await.unwrap();
        ask(&mut connection).await;
        connections.push(connection);
    }
    let grown = proxy.rss_mib() - before;
    assert!(grown <= MAX_MIB, "{CONNECTIONS} idle connections take {grown} MiB");

    // They are held, not merely forgotten: the first and the last still serve.
    for at in [0, CONNECTIONS - 1] {
        ask(&mut connections[at]).await;
    }
}

/// One request that the proxy answers by itself.
async fn ask(connection: &mut TcpStream) {
    connection.write_all(b"GET /nowhere HTTP/1.1\r\nhost: ingress\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let read = connection.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer[..read]));
}
