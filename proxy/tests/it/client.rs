//! Whose request it is, where somebody stands between the client and the proxy, or between the proxy and the upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tollgate_proto::attributes as a;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::address::Address;
use tollgate_testkit::fake_collector::attribute;

use crate::harness::{Mesh, Setup, observed, raw};
use crate::pki::{CLIENT, PROXY, Pki};

const PATIENCE: Duration = Duration::from_secs(10);
const GET: &[u8] = b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 203.0.113.66\r\nforwarded: for=203.0.113.66\r\nconnection: close\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\x12\x67\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
const BEHIND: &str = "proxy_protocol: {from: ['127.0.0.0/8']}, limits: {head_timeout: 500ms}";

/// Whom the upstream takes the last client for, and what it heard of others.
fn told(mesh: &Mesh) -> (String, bool) {
    let seen = mesh.app.seen().pop().unwrap();
    let said = |name: &str| {
        seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
    };
    let forged = seen.headers.iter().any(|(_, value)| value.to_str().unwrap().contains("203.0.113.66"));
    (said("x-forwarded-for").join("|"), forged)
}

#[tokio::test]
async fn a_load_balancer_says_whose_connection_it_is() {
    let (mesh, collector) = observed(Setup { listener: BEHIND, ..Setup::default() }).await;
    for (header, client) in
        [(V1, "192.0.2.1"), (V2, "192.0.2.1"), (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (V2_LOCAL, "127.0.0.1")]
    {
        let heard = raw(mesh.address, &[header, GET].concat(), PATIENCE).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{header:?}: {heard}");
        assert_eq!(told(&mesh), (client.to_owned(), false), "{header:?}");
    }
    // In pieces, however small.
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in V2 {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.write_all(GET).await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    let record = collector.access_records(5).await.remove(0);
    assert_eq!(attribute(&record, a::CLIENT_ADDRESS).as_deref(), Some("192.0.2.1"));
    assert_eq!(attribute(&record, a::CLIENT_PORT).as_deref(), Some("4711"));
}

#[tokio::test]
async fn what_a_load_balancer_does_not_say_as_it_should_is_closed() {
    let (mesh, collector) = observed(Setup { listener: BEHIND, ..Setup::default() }).await;
    let cases: [&[u8]; 8] = [
        GET,
        b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 4711\r\n",
        b"PROXY TCP4 999.0.2.1 198.51.100.7 4711 443\r\n",
        &[b'P'; 4096],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        // It never comes whole.
        b"PROXY TCP4 192.0.2.1",
    ];
    for case in cases {
        let heard =
            raw(mesh.address, &[case, if case.len() < 30 { b"" } else { GET }].concat(), PATIENCE).await;
        assert_eq!(heard, "", "{case:?}");
    }
    assert!(mesh.app.seen().is_empty());
    let records = collector.access_records(cases.len()).await;
    let reasons: Vec<_> = records.iter().filter_map(|one| attribute(one, a::TOLLGATE_REASON)).collect();
    assert_eq!(reasons[..7], ["request_malformed"; 7]);
    assert_eq!(reasons[7..], ["request_timeout"]);
}

#[tokio::test]
async fn nobody_else_may_say_it() {
    let mesh = Setup { listener: "proxy_protocol: {from: ['10.0.0.0/8']}", ..Setup::default() }.start().await;
    for header in [V1, V2] {
        let heard = raw(mesh.address, &[header, GET].concat(), PATIENCE).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
    }
    assert!(mesh.app.seen().is_empty());
    let heard = raw(mesh.address, GET, PATIENCE).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert_eq!(told(&mesh), ("127.0.0.1".to_owned(), false));
}

/// An upstream that keeps what it hears, connection by connection, and answers each head.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    _running: JoinSet<()>,
}

impl Listening {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (mut running, all) = (JoinSet::new(), Arc::clone(&heard));
        running.spawn(async move {
            let mut talks = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                let number = {
                    let mut all = all.lock();
                    all.push(Vec::new());
                    all.len() - 1
                };
                talks.spawn(async move {
                    let mut piece = [0; 1024];
                    while let Ok(count @ 1..) = stream.read(&mut piece).await {
                        let head = {
                            let heard = &mut all.lock()[number];
                            heard.extend_from_slice(&piece[..count]);
                            heard.ends_with(b"\r\n\r\n")
                        };
                        if head {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                        }
                    }
                });
            }
        });
        Self { address, heard, _running: running }
    }
}

#[tokio::test]
async fn an_upstream_is_told_whose_connection_it_is() {
    for (version, is_v1) in [("v1", true), ("v2", false)] {
        let app = Listening::start().await;
        let setup = Setup {
            listener: BEHIND,
            cluster: &format!("proxy_protocol: {version}"),
            upstream: Some(app.address),
            ..Setup::default()
        };
        let mesh = setup.start().await;
        // One client after the other, and one that asks twice on one connection.
        let two = [&b"GET /open/a HTTP/1.1\r\nhost: h\r\n\r\n"[..], GET].concat();
        for (header, requests) in [(V1, &two[..]), (b"PROXY UNKNOWN\r\n", GET)] {
            let heard = raw(mesh.address, &[header, requests].concat(), PATIENCE).await;
            assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        }
        let heard = app.heard.lock().clone();
        assert_eq!(heard.len(), 3, "a connection for each request");
        for (number, heard) in heard.iter().enumerate() {
            let expected = match (is_v1, number < 2) {
                (true, true) => V1,
                (false, true) => V2,
                (true, false) => b"PROXY TCP4 127.0.0.1 127.0.0.1 ",
                (false, false) => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01",
            };
            assert!(heard.starts_with(expected), "{version}: {}", String::from_utf8_lossy(heard));
            let at = heard.windows(4).position(|four| four == b"GET ").unwrap();
            assert!(at == expected.len() || number == 2, "{version}");
        }
    }
    // Connections of bytes as well.
    let app = Listening::start().await;
    let setup = Setup {
        listener: "proxy_protocol: {from: ['127.0.0.1']}, tcp: {cluster: app, authz: off}",
        cluster: "proxy_protocol: v1",
        upstream: Some(app.address),
        routes: Some(""),
        ..Setup::default()
    };
    let mesh = setup.start().await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    stream.write_all(&[V2, b"hello\r\n\r\n"].concat()).await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(app.heard.lock()[0], [V1, b"hello\r\n\r\n"].concat());
}

#[tokio::test]
async fn proxies_are_believed_where_they_are_trusted_and_no_further() {
    for (edge, listener, header, client) in [
        ("", "", "x-forwarded-for: 192.0.2.1", "127.0.0.1"),
        (", trusted: {hops: 1}", "", "x-forwarded-for: 203.0.113.66, 192.0.2.1", "192.0.2.1"),
        (
            ", trusted: {hops: 1}",
            "trusted: {hops: 2}",
            "x-forwarded-for: 203.0.113.66, 192.0.2.1, 10.0.0.1",
            "192.0.2.1",
        ),
        ("", "trusted: {hops: 2}", "x-forwarded-for: 192.0.2.1", "127.0.0.1"),
        (
            "",
            "trusted: {proxies: ['127.0.0.0/8', '10.0.0.0/8']}",
            "x-forwarded-for: 203.0.113.66, 192.0.2.1, 10.0.0.1",
            "192.0.2.1",
        ),
        ("", "trusted: {proxies: ['10.0.0.0/8']}", "x-forwarded-for: 192.0.2.1", "127.0.0.1"),
        (
            "",
            "trusted: {hops: 1, header: forwarded}",
            "forwarded: for=192.0.2.1;proto=https\r\nx-forwarded-for: 203.0.113.66",
            "192.0.2.1",
        ),
        ("", "trusted: {hops: 1}", "x-forwarded-for: 192.0.2.1\r\nforwarded: for=203.0.113.66", "192.0.2.1"),
    ] {
        let mesh = Setup { edge, listener, ..Setup::default() }.start().await;
        let request = format!(
            "GET /policies/1 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer reader\r\n{header}\r\nconnection: close\r\n\r\n"
        );
        let heard = raw(mesh.address, request.as_bytes(), PATIENCE).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        assert_eq!(told(&mesh), (client.to_owned(), false), "{edge} {listener} {header}");
        let proto = mesh.app.seen()[0].headers["x-forwarded-proto"].clone();
        assert_eq!(proto == "https", header.contains("https"));
        let source = mesh.authz.questions().remove(0).attributes.unwrap().source.unwrap().address.unwrap();
        let Some(Address::SocketAddress(source)) = source.address else { panic!("{source:?}") };
        assert_eq!(source.address, client);
    }
}

#[tokio::test]
async fn limits_by_address_count_the_client() {
    let listener = "trusted: {hops: 1}, limit_by_address: {per_second: 1}";
    let mesh = Setup { listener, ..Setup::default() }.start().await;
    let get = |client: &str, forged: &str| {
        mesh.get("/open/a").header("x-forwarded-for", &format!("{forged}, {client}")).send()
    };
    let mut statuses = Vec::new();
    for number in 0..10 {
        statuses.push(get("192.0.2.1", &format!("203.0.113.{number}")).await.status.as_u16());
        assert_eq!(get(&format!("198.51.100.{number}"), "192.0.2.1").await.status, 200, "somebody else");
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused >= 1, "{statuses:?}");
}

#[tokio::test]
async fn tls_begins_where_the_header_ends() {
    let pki = Pki::new();
    let (top, shown) = (pki.identity("proxy", PROXY), pki.workload(CLIENT));
    let listener = "mtls: strict, proxy_protocol: {from: ['127.0.0.1']}, limits: {head_timeout: 5s}";
    let mesh = Setup { top: &top, listener, ..Setup::default() }.start().await;
    for header in [V1, V2] {
        let (config, name) = pki.client(&shown);
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        stream.write_all(header).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut heard = Vec::new();
        let reading = async { while stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {} };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
        assert_eq!(told(&mesh), ("192.0.2.1".to_owned(), false));
    }
    // A client that speaks TLS at once is not the load balancer that must be there.
    let (config, name) = pki.client(&shown);
    let stream = TcpStream::connect(mesh.address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    assert!(TlsConnector::from(config).connect(name, stream).await.is_err());
    assert_eq!(mesh.app.seen().len(), 2);
}
