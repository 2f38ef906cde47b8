//! Connections of bytes: who may open one, where it goes, and what ends it.

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::SanType;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_proto::attributes as a;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use tollgate_testkit::authority::workload;
use tollgate_testkit::fake_authz::{FakeAuthz, allow, deny};
use tollgate_testkit::fake_collector::{attribute, wait_for};
use tollgate_testkit::ports::free_address;

use crate::harness::{Mesh, Setup, Tls, observed};
use crate::pki::{CLIENT, PROXY, Pki, client, reachable, short};

const TCP: &str = "role: sidecar, mtls: strict, tcp: {cluster: app, service: insurance/ledger}";
/// Longer than anything here takes, also on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says back what it hears, and `bye` once it has heard everything.
struct Echo {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                        let _ = to.write_all(b"bye").await;
                    }
                });
            }
        });
        Self { address, _serving: serving }
    }
}

/// A proxy with one TCP listener before an echo, which may be asked for by every workload but `stranger`.
async fn ledger(pki: &Pki, echo: &Echo, listener: &str) -> Mesh {
    let top = pki.identity("proxy", PROXY);
    let setup =
        Setup { top: &top, listener, upstream: Some(echo.address), routes: Some(""), ..Setup::default() };
    let mesh = setup.start().await;
    admit(&mesh.authz);
    mesh
}

fn admit(authz: &FakeAuthz) {
    authz.answer(|question| {
        let may = !principal(question).is_empty() && !principal(question).ends_with("/stranger");
        Ok(if may { allow("nobody") } else { deny(403, "caller_denied", "") })
    });
}

fn principal(question: &CheckRequest) -> &str {
    question.attributes.as_ref().and_then(|of| of.source.as_ref()).map_or("", |source| &source.principal)
}

async fn dial(to: SocketAddr, (config, name): Tls) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(to).await.unwrap();
    TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), stream).await.unwrap()
}

/// Everything that still comes, however the connection ends.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut heard = Vec::new();
    let reading = async { while stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends");
    heard
}

async fn say_and_hear(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = vec![0; text.len()];
    let hearing = stream.read_exact(&mut heard);
    tokio::time::timeout(PATIENCE, hearing).await.expect("it is said back").unwrap();
    assert_eq!(heard, text);
}

#[tokio::test]
async fn bytes_are_carried_for_a_workload_that_may_and_recorded() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let top = pki.identity("proxy", PROXY);
    let mut params = reachable(PROXY);
    params.subject_alt_names.push(SanType::DnsName("ledger.insurance".try_into().unwrap()));
    pki.keep("proxy", &pki.root.sign(params), &pki.root.root_pem());
    let setup = Setup {
        top: &top,
        listener: TCP,
        upstream: Some(echo.address),
        routes: Some(""),
        ..Setup::default()
    };
    let (mesh, collector) = observed(setup).await;
    admit(&mesh.authz);
    let (config, _) = pki.client(&pki.workload(CLIENT));
    let mut stream = dial(mesh.address, (config, "ledger.insurance")).await;
    // More than any buffer on the way holds.
    let much = vec![b'x'; 300_000];
    let (mut from, mut to) = tokio::io::split(&mut stream);
    let sending = async {
        to.write_all(&much).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (heard, ()) = tokio::join!(rest(&mut from), sending);
    assert_eq!((heard.len(), &heard[heard.len() - 3..]), (much.len() + 3, &b"bye"[..]));

    let question = &mesh.authz.questions()[0];
    let attributes = question.attributes.as_ref().unwrap();
    assert!(attributes.request.is_none(), "it is about a connection");
    assert_eq!(principal(question), CLIENT);
    assert!(attributes.source.as_ref().unwrap().certificate.starts_with("-----BEGIN%20CERTIFICATE-----"));
    assert!(attributes.source.as_ref().unwrap().address.is_some());
    let destination = attributes.destination.as_ref().unwrap();
    assert!(destination.principal == PROXY && destination.address.is_some());
    assert_eq!(attributes.tls_session.as_ref().unwrap().sni, "ledger.insurance");
    for (key, expected) in [
        ("tollgate.service", "insurance/ledger"),
        ("tollgate.route", "main"),
        ("tollgate.point", "sidecar-in"),
    ] {
        assert_eq!(attributes.context_extensions[key], expected);
    }

    let record = &collector.access_records(1).await[0];
    for (key, expected) in [
        (a::TOLLGATE_REASON, "ok"),
        (a::TOLLGATE_SOURCE_PRINCIPAL, CLIENT),
        (a::TOLLGATE_SOURCE_WORKLOAD, "client"),
        (a::TOLLGATE_DESTINATION_WORKLOAD, "ledger"),
        (a::TOLLGATE_DESTINATION_PRINCIPAL, PROXY),
        (a::TOLLGATE_CONNECTION_SECURITY_POLICY, "mutual_tls"),
        (a::TOLLGATE_AUTHZ_DECISION, "allow"),
        (a::TOLLGATE_UPSTREAM_CLUSTER, "app"),
        (a::NETWORK_PROTOCOL_NAME, "tcp"),
        (a::SERVER_ADDRESS, "ledger.insurance"),
        (a::TOLLGATE_CONNECTION_RECEIVED, "300000"),
        (a::TOLLGATE_CONNECTION_SENT, "300003"),
    ] {
        assert_eq!(attribute(record, key).as_deref(), Some(expected), "{key}");
    }
    let counted = || {
        let metrics = mesh.service.telemetry().render_metrics().unwrap();
        let labelled = |line: &str| line.contains("listener=\"main\"") && line.contains("=\"ok\"");
        let of_one =
            |line: &&str| line.starts_with("tollgate_proxy_tcp_connections_total{") && line.ends_with(" 1");
        metrics.lines().filter(of_one).any(labelled).then_some(())
    };
    assert!(wait_for(counted).await.is_some(), "{}", mesh.service.telemetry().render_metrics().unwrap());
}

#[tokio::test]
async fn a_connection_that_is_refused_is_closed_and_recorded_with_its_reason() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let top = pki.identity("proxy", PROXY);
    let setup = Setup {
        top: &top,
        listener: TCP,
        upstream: Some(echo.address),
        routes: Some(""),
        ..Setup::default()
    };
    let (mesh, collector) = observed(setup).await;
    admit(&mesh.authz);
    let mut stranger =
        dial(mesh.address, pki.client(&pki.workload("spiffe://test.example/ns/shop/sa/stranger"))).await;
    let _ = stranger.write_all(b"hello").await;
    assert_eq!(rest(&mut stranger).await, b"");
    // Plaintext is answered with nothing: it may be anything but HTTP.
    let mut plain = TcpStream::connect(mesh.address).await.unwrap();
    plain.write_all(b"hello").await.unwrap();
    assert_eq!(rest(&mut plain).await, b"");
    // Without an answer from authorization nobody passes.
    mesh.authz.answer(|_| Err(tonic::Status::unavailable("away")));
    let mut unlucky = dial(mesh.address, pki.client(&pki.workload(CLIENT))).await;
    assert_eq!(rest(&mut unlucky).await, b"");

    let records = collector.access_records(3).await;
    let mut reasons: Vec<_> =
        records.iter().map(|record| attribute(record, a::TOLLGATE_REASON).unwrap()).collect();
    reasons.sort();
    assert_eq!(reasons, ["authz_unavailable", "caller_denied", "mtls_required"]);
    let denied = |record: &&_| attribute(record, a::TOLLGATE_REASON).as_deref() == Some("caller_denied");
    let record = records.iter().find(denied).unwrap();
    assert_eq!(attribute(record, a::TOLLGATE_AUTHZ_DECISION).as_deref(), Some("deny"));
    assert_eq!(attribute(record, a::SECURITY_RULE_NAME).as_deref(), Some("default-deny"));
    assert_eq!(attribute(record, a::TOLLGATE_CONNECTION_SENT).as_deref(), Some("0"));
}

#[tokio::test]
async fn bytes_go_from_sidecar_to_sidecar_over_mtls() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let ledger = ledger(&pki, &echo, TCP).await;
    for (caller, passes) in [(CLIENT, true), ("spiffe://test.example/ns/shop/sa/stranger", false)] {
        let top = pki.identity("caller", caller);
        let outbound = Setup {
            top: &top,
            listener: "role: outbound, tcp: {cluster: app, authz: off}",
            cluster: &format!("tls: {{spiffe_ids: ['{PROXY}']}}"),
            upstream: Some(ledger.address),
            routes: Some(""),
            ..Setup::default()
        };
        let outbound = outbound.start().await;
        let mut stream = TcpStream::connect(outbound.address).await.unwrap();
        if passes {
            say_and_hear(&mut stream, b"hello").await;
            stream.shutdown().await.unwrap();
            assert_eq!(rest(&mut stream).await, b"bye");
        } else {
            assert_eq!(rest(&mut stream).await, b"");
        }
        assert!(outbound.authz.questions().is_empty(), "it is the other sidecar that asks");
    }
}

#[tokio::test]
async fn what_is_quiet_old_or_without_a_valid_certificate_is_cut() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let shown = pki.workload(CLIENT);
    for (keys, limits) in [("", "limits: {idle_timeout: 300ms}"), (", max_duration: 300ms", "limits: {}")] {
        let listener = format!(
            "role: sidecar, mtls: strict, {limits}, tcp: {{cluster: app, service: insurance/ledger{keys}}}"
        );
        let mesh = ledger(&pki, &echo, &listener).await;
        let mut stream = dial(mesh.address, pki.client(&shown)).await;
        let _ = stream.write_all(b"hello").await;
        rest(&mut stream).await;
    }

    let mesh = ledger(&pki, &echo, TCP).await;
    let begun = tokio::time::Instant::now();
    let ending = pki.root.sign(short(CLIENT, 4));
    let (mut ends, mut stays) =
        (dial(mesh.address, pki.client(&ending)).await, dial(mesh.address, pki.client(&shown)).await);
    say_and_hear(&mut ends, b"still here").await;
    rest(&mut ends).await;
    // Certificates tell whole seconds.
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    say_and_hear(&mut stays, b"hello").await;
}

#[tokio::test]
async fn connections_are_bounded_and_a_proxy_that_stops_waits_until_they_are_quiet() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let mut mesh = ledger(&pki, &echo, &format!("{TCP}, limits: {{max_connections: 1}}")).await;
    let tls = pki.client(&pki.workload(CLIENT));
    let mut first = dial(mesh.address, tls.clone()).await;
    say_and_hear(&mut first, b"one").await;
    // The second waits in the system's backlog, where nobody shakes hands with it.
    let mut second = Box::pin(dial(mesh.address, tls));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut second).await.is_err());
    first.shutdown().await.unwrap();
    assert_eq!(rest(&mut first).await, b"bye");
    let mut second = second.await;
    say_and_hear(&mut second, b"two").await;

    let mut stopping = JoinSet::new();
    stopping.spawn(async move {
        mesh.stop().await;
    });
    assert_eq!(rest(&mut second).await, b"", "it is quiet, and closed");
    stopping.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_passed_over() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let nobody = free_address();
    let top = pki.identity("proxy", PROXY);
    let endpoints = format!(
        ", {{name: two, balance: round_robin, endpoints: {{static: ['{nobody}', '{}']}}}}",
        echo.address
    );
    let listener = "role: sidecar, mtls: strict, tcp: {cluster: two, service: insurance/ledger}";
    let setup = Setup { top: &top, listener, clusters: &endpoints, routes: Some(""), ..Setup::default() };
    let (mesh, _collector) = observed(setup).await;
    admit(&mesh.authz);
    for _ in 0..4 {
        let mut stream = dial(mesh.address, pki.client(&pki.workload(CLIENT))).await;
        say_and_hear(&mut stream, b"hello").await;
    }
}

#[tokio::test]
async fn servers_may_come_in_by_tls_alone_where_a_listener_says_so() {
    let (pki, echo) = (Pki::new(), Echo::start().await);
    let mut params = workload(CLIENT);
    params.subject_alt_names = vec![SanType::DnsName("ledger.example".try_into().unwrap())];
    let signed = pki.root.sign(params);
    let (crt, key) =
        (pki.write("ledger.crt", &signed.certificate_pem), pki.write("ledger.key", &signed.key_pem));
    let listener = format!(
        "tls: {{certificates: [{{certificate: '{}', key: '{}'}}]}}, tcp: {{cluster: app, authz: off}}",
        crt.display(),
        key.display()
    );
    let setup =
        Setup { listener: &listener, upstream: Some(echo.address), routes: Some(""), ..Setup::default() };
    let mesh = setup.start().await;
    let (config, _) = client(&pki.root, None, &[&rustls::version::TLS13], &[b"ledger/1"]);
    let mut stream = dial(mesh.address, (config, "ledger.example")).await;
    say_and_hear(&mut stream, b"hello").await;
    assert!(mesh.authz.questions().is_empty());
}
