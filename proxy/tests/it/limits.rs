//! What one client may take.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tollgate_proto::attributes as a;
use tollgate_testkit::fake_collector::attribute;
use tollgate_testkit::ports::free_address;

use crate::harness::{Mesh, PATIENCE, Setup, observed, raw};
use crate::pki::{CLIENT, PROXY, Pki};
use crate::process::Process;
use crate::wire::Wire;

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
        // Ten seconds without that.
        assert!(began.elapsed() < Duration::from_secs(8));
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

/// A message with a body, one without, and one in chunks.
const THREE: &str = "POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhelloGET /open/b HTTP/1.1\r\nhost: h\r\n\r\n\
                     PUT /open/c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nho\r\n0\r\n\r\n";

/// Sends both parts, the second when nobody waits for it any more; all that is heard.
async fn in_two_parts(address: SocketAddr, whole: String, at: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&whole.as_bytes()[..at]).await.unwrap();
    // Long enough that it is looked for rather than waited for.
    tokio::time::sleep(Duration::from_millis(200)).await;
    // It may be closed already.
    let _ = stream.write_all(&whole.as_bytes()[at..]).await;
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it ends");
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn what_comes_in_pieces_is_what_it_would_be_whole() {
    let setup = Setup { listener: "limit_by_address: {per_second: 0}", ..Setup::default() };
    let mesh = setup.start().await;
    let mut asking = JoinSet::new();
    for at in 1..THREE.len() {
        let address = mesh.address;
        asking.spawn(async move { (at, in_two_parts(address, THREE.to_owned(), at).await) });
    }
    for (at, heard) in asking.join_all().await {
        assert_eq!(heard.matches("HTTP/1.1 200").count(), 3, "cut at {at}: {heard}");
    }
    let seen = mesh.app.seen();
    for (path, body) in [("/open/a", "hello"), ("/open/b", ""), ("/open/c", "ho")] {
        let count = seen.iter().filter(|seen| seen.uri.path() == path && seen.body == body).count();
        assert_eq!(count, THREE.len() - 1, "{path}");
    }
}

#[tokio::test]
async fn what_is_refused_whole_is_refused_in_pieces() {
    let setup = Setup { listener: "limit_by_address: {per_second: 0}", ..Setup::default() };
    let mesh = setup.start().await;
    let large = format!("x-large: {}\r\n", "x".repeat(100 << 10));
    let cases = [
        // What came before it is answered.
        (THREE.replace("GET /open/b HTTP/1.1\r\n", "GET /open/b HTTP/1.1\n"), "/open/b", 1, "400"),
        (THREE.replace("chunked", "chunked, gzip"), "/open/c", 2, "400"),
        (THREE.replace("connection: close\r\n", &large), "/open/c", 2, "431"),
    ];
    for (whole, path, answered, status) in cases {
        let begins = whole.find(path).unwrap();
        for at in [begins, begins + 12, begins + 30, begins + 60] {
            let heard = in_two_parts(mesh.address, whole.clone(), at).await;
            assert_eq!(heard.matches("HTTP/1.1 200").count(), answered, "cut at {at}: {heard}");
            assert_eq!(heard.matches(&format!("HTTP/1.1 {status}")).count(), 1, "cut at {at}: {heard}");
        }
        assert!(mesh.app.seen().iter().all(|seen| seen.uri.path() != path), "{path} has arrived");
        mesh.app.forget();
    }
    let broken_off = &THREE[..THREE.len() - 40];
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    stream.write_all(broken_off.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut heard)).await.expect("it ends").unwrap();
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_closed() {
    let pki = Pki::new();
    let top = pki.identity("proxy", PROXY);
    let listener = "role: sidecar, mtls: strict, limits: {head_timeout: 300ms}";
    let mesh = Setup { top: &top, listener, ..Setup::default() }.start().await;
    // What TLS begins with, and nothing at all.
    for partial in [&[0x16, 3, 1, 2, 0, 1][..], &[]] {
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        stream.write_all(partial).await.unwrap();
        let mut heard = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
        assert!(closed.is_ok() && heard.is_empty(), "{partial:?}: {heard:?}");
    }
}

#[tokio::test]
async fn whoever_is_refused_again_and_again_does_not_fill_the_log() {
    let (pki, nobody) = (Pki::new(), free_address());
    let top = pki.identity("proxy", PROXY);
    let setup = Setup { top: &top, listener: "role: sidecar, mtls: strict", ..Setup::default() };
    let process = Process::start(&setup.yaml(nobody, nobody, nobody)).await;
    let (refused, began, mut tried) = ("plaintext refused", Instant::now(), 0);
    let left_out = || process.said("left out").iter().filter_map(|line| line["lines"].as_u64()).sum::<u64>();
    while left_out() == 0 {
        assert!(tried < 10_000, "{} lines", process.said(refused).len());
        for _ in 0..50 {
            let heard = raw(process.main, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", PATIENCE).await;
            assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
            tried += 1;
        }
    }
    let (left_out, written) = (left_out(), process.said(refused).len() as u64);
    assert!(written + left_out <= tried, "{written} and {left_out} of {tried}");
    assert!(written <= 100 + 10 * (began.elapsed().as_secs() + 1), "{written} of {tried}");
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
    let chunked = format!(
        "POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunk}"
    );
    let heard = raw(mesh.address, chunked.as_bytes(), PATIENCE).await;
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

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_served_as_before() {
    let pki = Pki::new();
    let top = pki.identity("proxy", PROXY);
    // The proxy looks each second; after five without a request it keeps no more than it must.
    let limits = "limits: {head_timeout: 1s}";
    let plain = Setup { listener: limits, ..Setup::default() }.start().await;
    let listener = format!("role: sidecar, mtls: strict, {limits}");
    let strict = Setup { top: &top, listener: &listener, ..Setup::default() }.start().await;
    let (config, name) = pki.client(&pki.workload(CLIENT));
    let stream = TcpStream::connect(strict.address).await.unwrap();
    let tls = TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
    tokio::join!(rests_and_goes_on(TcpStream::connect(plain.address).await.unwrap()), rests_and_goes_on(tls));
}

async fn rests_and_goes_on<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";
    for idle in [0, 7, 7] {
        tokio::time::sleep(Duration::from_secs(idle)).await;
        // In two pieces, and one more right behind.
        stream.write_all(&ASK[..1]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&[&ASK[1..], ASK].concat()).await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = String::new();
        while heard.matches("HTTP/1.1 200 OK").count() < 2 || !heard.ends_with("ok\n") {
            let mut next = [0; 4096];
            let count = stream.read(&mut next).await.unwrap();
            assert!(count > 0, "closed after {heard}");
            heard.push_str(std::str::from_utf8(&next[..count]).unwrap());
        }
    }
    // What wakes it is a head like any other, with its time.
    tokio::time::sleep(Duration::from_secs(7)).await;
    stream.write_all(&ASK[..9]).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
}

#[tokio::test]
async fn the_rest_of_a_body_is_no_request_however_late_it_comes() {
    // An upstream that answers whole before it has the body, and waits for nothing more.
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = upstream.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            open.push(stream);
        }
    });
    let listener = "limits: {head_timeout: 1s}";
    let mesh = Setup { listener, upstream: Some(address), ..Setup::default() }.start().await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    let begun = b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 200\r\n\r\nnot all of it";
    stream.write_all(begun).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"ok") {
        assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
    }
    assert!(heard.starts_with(b"HTTP/1.1 200 OK"));
    // Long enough for a connection on which nothing is asked to be put to rest.
    tokio::time::sleep(Duration::from_secs(8)).await;
    // The connection may be gone by now, which is as good.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "", "it was taken for a request");
}
