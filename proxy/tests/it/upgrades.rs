//! Connections that go over from HTTP/1.1 to another protocol: who may, what passes, and what is told about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};
use tollgate_proto::attributes as a;
use tollgate_testkit::fake_collector::{FakeCollector, attribute};

use crate::harness::{Mesh, Setup, observed, raw};

const PATIENCE: Duration = Duration::from_secs(10);

const ROUTES: &str = r#"
routes:
  - name: chat
    service: insurance/chat
    matches: [{path: {type: PathPrefix, value: /chat}}]
    backends: [{cluster: app}]
    upgrades: [websocket]
    cors: {allow_origins: ["https://friend.example"]}
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
    upgrades: [websocket, tunnel/1]
  - name: plain
    matches: [{path: {type: PathPrefix, value: /plain}}]
    authz: off
    backends: [{cluster: app}]
"#;

/// A WebSocket server that says back what it hears.
#[derive(Debug)]
struct Echo {
    address: SocketAddr,
    _running: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut talks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                talks.spawn(async move {
                    let Ok(mut socket) = accept_async(stream).await else { return };
                    while let Some(Ok(message)) = socket.next().await {
                        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, _running: running }
    }
}

/// A server that reads a head, says one thing, and keeps what comes after.
#[derive(Debug)]
struct Blunt {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    after: Arc<Mutex<Vec<u8>>>,
    _running: JoinSet<()>,
}

impl Blunt {
    async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, after) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let mut running = JoinSet::new();
        let (heads_of, after_of) = (Arc::clone(&heads), Arc::clone(&after));
        running.spawn(async move {
            let mut talks = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (heads, after) = (Arc::clone(&heads_of), Arc::clone(&after_of));
                talks.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    heads.lock().push(String::from_utf8(head).unwrap());
                    let _ = stream.write_all(answer).await;
                    let mut piece = [0; 1024];
                    while let Ok(count @ 1..) = stream.read(&mut piece).await {
                        after.lock().extend_from_slice(&piece[..count]);
                    }
                });
            }
        });
        Self { address, heads, after, _running: running }
    }
}

async fn before(echo: &Echo, listener: &str) -> (Mesh, FakeCollector) {
    observed(Setup { upstream: Some(echo.address), listener, routes: Some(ROUTES), ..Setup::default() }).await
}

type Socket = WebSocketStream<TcpStream>;

async fn open(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, tungstenite::Error> {
    let mut request = format!("ws://policies.insurance{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(request, stream).await.map(|(socket, _)| socket)
}

/// The answer of somebody who does not switch.
fn refusal(tried: Result<Socket, tungstenite::Error>) -> (Response<()>, String) {
    match tried {
        Err(tungstenite::Error::Http(answer)) => {
            let (parts, body) = answer.into_parts();
            let body: serde_json::Value =
                serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
            let reason = body["reason"].as_str().unwrap_or_default().to_owned();
            (Response::from_parts(parts, ()), reason)
        }
        other => panic!("{other:?}"),
    }
}

async fn say_and_hear(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time").unwrap().unwrap();
    assert!(heard == message, "{} bytes came back of {}", heard.len(), message.len());
}

#[tokio::test]
async fn a_websocket_is_judged_once_and_carries_both_ways() {
    let echo = Echo::start().await;
    let (mesh, collector) = before(&echo, "").await;
    let mut socket = open(mesh.address, "/chat/1", &[("authorization", "Bearer reader")]).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("")] {
        say_and_hear(&mut socket, message).await;
    }
    assert_eq!(mesh.authz.questions().len(), 1);
    assert!(collector.access_records(0).await.is_empty(), "it is told when it is over");
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    let record = collector.access_records(1).await.remove(0);
    let said = |key| attribute(&record, key).unwrap_or_default();
    assert_eq!(
        (said(a::HTTP_RESPONSE_STATUS_CODE).as_str(), said(a::TOLLGATE_REASON).as_str()),
        ("101", "ok")
    );
    assert_eq!(said(a::HTTP_ROUTE), "/chat");
    for key in [
        a::TOLLGATE_CONNECTION_RECEIVED,
        a::TOLLGATE_CONNECTION_SENT,
        a::HTTP_REQUEST_SIZE,
        a::HTTP_RESPONSE_SIZE,
    ] {
        let bytes: usize = said(key).parse().unwrap();
        assert!((300_005..300_100).contains(&bytes), "{key}: {bytes}");
    }
    assert!(
        said(a::TOLLGATE_DURATION_US).parse::<u64>().unwrap() >= said(a::TOLLGATE_TTFB_US).parse().unwrap()
    );
}

#[tokio::test]
async fn who_may_not_does_not_reach_the_upstream() {
    let app = Blunt::start(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let setup = Setup { upstream: Some(app.address), routes: Some(ROUTES), ..Setup::default() };
    let mesh = setup.start().await;
    let reader = ("authorization", "Bearer reader");
    for (path, headers, status, reason) in [
        ("/plain", &[][..], 403, "upgrade_refused"),
        ("/chat", &[], 401, ""),
        ("/chat", &[reader, ("origin", "https://evil.example")], 403, "upgrade_refused"),
        ("/chat", &[reader, ("origin", "null")], 403, "upgrade_refused"),
        ("/chat", &[reader, ("upgrade", "tunnel/1")], 403, "upgrade_refused"),
        ("/open", &[("upgrade", "websocket, tunnel/1")], 403, "upgrade_refused"),
        ("/open", &[("content-length", "1")], 400, "request_malformed"),
    ] {
        let heard = raw(mesh.address, &asking(path, headers), PATIENCE).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{path} {headers:?}: {heard}");
        assert!(
            heard.contains(&format!("\"reason\":\"{reason}")) || reason.is_empty(),
            "{path} {headers:?}: {heard}"
        );
        assert!(heard.contains("connection: close"), "{heard}");
    }
    assert!(app.heads.lock().is_empty(), "{:?}", app.heads.lock());
    let (answer, reason) = refusal(open(mesh.address, "/plain", &[]).await);
    assert_eq!((answer.status(), reason.as_str()), (StatusCode::FORBIDDEN, "upgrade_refused"));
    for origin in ["https://friend.example", "https://policies.insurance"] {
        let asked = asking("/chat", &[reader, ("origin", origin)]);
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        let mut heard = [0; 12];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 101", "{origin}");
    }
}

/// A request to switch, as it stands on the wire. A body of one byte if it says that it has one.
fn asking(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("GET {path} HTTP/1.1\r\nhost: policies.insurance\r\nconnection: Upgrade\r\n");
    if !headers.iter().any(|(name, _)| *name == "upgrade") {
        text.push_str("upgrade: WebSocket\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    if headers.iter().any(|(name, _)| *name == "content-length") {
        text.push('x');
    }
    text.into_bytes()
}

#[tokio::test]
async fn bytes_before_the_answer_reach_nobody() {
    let app = Blunt::start(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let setup = Setup { upstream: Some(app.address), routes: Some(ROUTES), ..Setup::default() };
    let mesh = setup.start().await;
    let smuggled = b"GET /open/smuggled HTTP/1.1\r\nhost: policies.insurance\r\n\r\n";
    for path in ["/open", "/plain"] {
        for early in [&smuggled[..], b"\x82\x03abc", b"\r\n"] {
            let heard = raw(mesh.address, &[&asking(path, &[])[..], early].concat(), PATIENCE).await;
            let expected = if path == "/open" { "HTTP/1.1 400" } else { "HTTP/1.1 403" };
            assert!(heard.starts_with(expected), "{heard}");
            assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{heard}");
        }
    }
    // What came first was judged and asked for; what followed it is nowhere.
    assert!(
        app.heads.lock().iter().all(|head| head.starts_with("GET /open HTTP/1.1\r\n")),
        "{:?}",
        app.heads.lock()
    );
    assert!(app.after.lock().is_empty());
}

#[tokio::test]
async fn what_the_upstream_makes_of_it() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ";
    for (path, ask, answer, expected) in [
        // It need not switch.
        ("/open", true, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), "HTTP/1.1 200"),
        (
            "/open",
            true,
            "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 426",
        ),
        // It may not switch to what nobody asked for.
        ("/open", true, format!("{switch}tunnel/1\r\n\r\n"), "HTTP/1.1 502"),
        ("/open", true, "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), "HTTP/1.1 502"),
        ("/plain", false, format!("{switch}websocket\r\n\r\n"), "HTTP/1.1 502"),
    ] {
        let app = Blunt::start(answer.leak().as_bytes()).await;
        let setup = Setup { upstream: Some(app.address), routes: Some(ROUTES), ..Setup::default() };
        let mesh = setup.start().await;
        let asked = match ask {
            true => asking(path, &[]),
            false => format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").into_bytes(),
        };
        let heard = raw(mesh.address, &asked, PATIENCE).await;
        assert!(heard.starts_with(expected), "{path} {ask}: {heard}");
        assert!(heard.contains("connection: close"), "{heard}");
        assert_eq!(app.heads.lock().len(), 1);
    }
}

#[tokio::test]
async fn switched_connections_are_bounded() {
    let echo = Echo::start().await;
    let (mesh, collector) = before(&echo, "limits: {upgrades: 1}").await;
    let mut first = open(mesh.address, "/open", &[]).await.unwrap();
    say_and_hear(&mut first, Message::text("one")).await;
    let (answer, reason) = refusal(open(mesh.address, "/open", &[]).await);
    assert_eq!((answer.status(), reason.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "limit_local"));
    assert_eq!(answer.headers()["retry-after"], "1");
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    drop(first);
    collector.access_records(2).await;
    let mut second = open(mesh.address, "/open", &[]).await.unwrap();
    say_and_hear(&mut second, Message::text("two")).await;
}

/// A route whose 101 no socket takes at once: it is larger than what systems hold for a connection.
fn large() -> String {
    let value = "x".repeat(1 << 20);
    let headers: Vec<String> = (0..16).map(|n| format!("{{name: x-large-{n}, value: {value}}}")).collect();
    format!(
        "{ROUTES}  - name: large
    matches: [{{path: {{type: PathPrefix, value: /large}}}}]
    authz: off
    backends: [{{cluster: app}}]
    upgrades: [websocket]
    response_header_modifier: {{set: [{}]}}
",
        headers.join(", ")
    )
}

/// A client who has read the first words of a 101, and no more.
async fn half_way(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(&asking("/large", &[])).await.unwrap();
    let mut heard = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("in time").unwrap();
    assert_eq!(&heard, b"HTTP/1.1 101");
    stream
}

#[tokio::test]
async fn an_answer_that_is_not_taken_leaves_nothing_behind() {
    let app = Blunt::start(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let routes = large();
    let listener = "limits: {upgrades: 1, send_timeout: 500ms}";
    let setup = Setup { upstream: Some(app.address), listener, routes: Some(&routes), ..Setup::default() };
    let (mesh, collector) = observed(setup).await;
    for (reads_slowly, expected) in [(false, 1), (true, 3)] {
        let stream = half_way(mesh.address).await;
        // A slow reader stays, and is cut; the other one resets the connection.
        let stays = Some(stream).filter(|_| reads_slowly);
        let records = collector.access_records(expected).await;
        let record = records.last().expect("it is told about");
        let said = |key| attribute(record, key).unwrap_or_default();
        assert_eq!(
            (said(a::HTTP_RESPONSE_STATUS_CODE).as_str(), said(a::TOLLGATE_REASON).as_str()),
            ("101", "client_gone"),
            "{reads_slowly}"
        );
        assert_eq!(
            said(a::TOLLGATE_RESPONSE_DETAILS),
            "the client did not take the answer that its connection goes over"
        );
        // There is room again.
        let mut honest = TcpStream::connect(mesh.address).await.unwrap();
        honest.write_all(&asking("/open", &[])).await.unwrap();
        let mut heard = [0; 12];
        honest.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 101", "{reads_slowly}");
        drop((honest, stays));
        assert_eq!(collector.access_records(expected + 1).await.len(), expected + 1);
    }
}

#[tokio::test]
async fn a_proxy_that_stops_tells_of_answers_that_are_not_taken() {
    let app = Blunt::start(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .await;
    let routes = large();
    let setup = Setup { upstream: Some(app.address), routes: Some(&routes), ..Setup::default() };
    let (mut mesh, collector) = observed(setup).await;
    let _stays = half_way(mesh.address).await;
    mesh.stop().await;
    let record = collector.access_records(1).await.remove(0);
    let details = attribute(&record, a::TOLLGATE_RESPONSE_DETAILS).unwrap();
    assert_eq!(details, "cut: the proxy stops, or a certificate has ended");
}

#[tokio::test]
async fn what_is_quiet_or_old_is_closed() {
    let echo = Echo::start().await;
    let (mesh, collector) = before(&echo, "limits: {idle_timeout: 400ms}").await;
    let mut socket = open(mesh.address, "/open", &[]).await.unwrap();
    say_and_hear(&mut socket, Message::text("hello")).await;
    let closed = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
    assert!(!matches!(closed, Some(Ok(_))), "{closed:?}");
    let record = collector.access_records(1).await.remove(0);
    let details = attribute(&record, a::TOLLGATE_RESPONSE_DETAILS).unwrap();
    assert_eq!(details, "cut: nothing moved for 400ms");
}

#[tokio::test]
async fn a_proxy_that_stops_closes_what_it_has_no_words_for_once_it_is_quiet() {
    let app =
        Blunt::start(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tunnel/1\r\n\r\n")
            .await;
    let setup = Setup { upstream: Some(app.address), routes: Some(ROUTES), ..Setup::default() };
    let (mut mesh, collector) = observed(setup).await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    let ask = b"GET /open HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: tunnel/1\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        heard.push(stream.read_u8().await.unwrap());
    }
    let mut stopping = JoinSet::new();
    stopping.spawn(async move { mesh.stop().await });
    let mut more = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut more)).await.expect("in time");
    assert!(ended.is_err() || more.is_empty(), "{more:?}");
    stopping.join_next().await.unwrap().unwrap();
    let record = collector.access_records(1).await.remove(0);
    assert_eq!(attribute(&record, a::TOLLGATE_RESPONSE_DETAILS).unwrap(), "cut: the proxy stops");
}
