//! How many connections there may be, and how long one without a certificate lives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tollgate_identity::tls::{self, Accepted, ConnectionBounds, Mtls, ServerOptions};
use tollgate_runtime::Service;
use tollgate_testkit::authority::Authority;

use crate::following::Logged;
use crate::wire::{CLIENT, SERVER, bundles, identity, towards};

struct Door {
    address: SocketAddr,
    incoming: ReceiverStream<std::io::Result<Accepted>>,
    anonymous: Arc<rustls::ClientConfig>,
    known: Arc<rustls::ClientConfig>,
    _service: Service,
}

impl Door {
    async fn open(bounds: ConnectionBounds) -> Self {
        let authority = Authority::new("root");
        let mut params = tollgate_testkit::authority::workload(SERVER);
        params.subject_alt_names.push(rcgen::SanType::DnsName("ignored.invalid".try_into().unwrap()));
        let server = identity(&authority.sign(params), bundles(&authority));
        let client = identity(&authority.workload(CLIENT), bundles(&authority));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root_der().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let anonymous = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let options = ServerOptions { mtls: Mtls::Permissive, ..ServerOptions::default() };
        let config = tls::server_config(&server, &options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service::for_test("door");
        let incoming = tls::incoming(listener, config, &server, &service, bounds);
        Self { address, incoming, anonymous, known: towards(&client, &[SERVER]), _service: service }
    }

    /// Connects from an address of this machine; both ends, if there is a place.
    async fn enter(
        &mut self,
        from: &str,
        config: &Arc<rustls::ClientConfig>,
    ) -> Option<(TlsStream<TcpStream>, Accepted)> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let name = ServerName::try_from("ignored.invalid").unwrap();
        let shaken = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.ok()?;
        Some((shaken, self.incoming.next().await.unwrap().unwrap()))
    }
}

#[tokio::test]
async fn whoever_says_nothing_holds_one_of_a_bounded_number_of_places() {
    let bounds = ConnectionBounds { total: 3, per_address: 2, ..ConnectionBounds::default() };
    let mut door = Door::open(bounds).await;
    let known = Arc::clone(&door.known);
    let first = door.enter("127.0.0.1", &known).await.unwrap();
    let second = door.enter("127.0.0.1", &known).await.unwrap();
    assert!(door.enter("127.0.0.1", &known).await.is_none(), "a third from one address");
    let other = door.enter("127.0.0.2", &known).await.unwrap();
    assert!(door.enter("127.0.0.3", &known).await.is_none(), "a fourth in all");
    // A silent handshake has a place too, and gives it back; so does a connection when it is dropped.
    drop((first, other));
    let silent = TcpStream::connect(door.address).await.unwrap();
    let third = door.enter("127.0.0.2", &known).await.unwrap();
    assert!(door.enter("127.0.0.3", &known).await.is_none(), "a fourth in all");
    drop((silent, second, third));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while door.enter("127.0.0.3", &known).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn plaintext_on_a_port_for_workloads_is_closed_and_the_log_says_so() {
    let logged = Logged::default();
    let _listening = logged.listen();
    let door = Door::open(ConnectionBounds::default()).await;
    let mut plain = TcpStream::connect(door.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard).await;
    assert!(heard.is_empty());
    let told = tollgate_testkit::fake_collector::wait_for(|| {
        logged.lines("the client speaks plaintext, and this port takes TLS alone").first().cloned()
    });
    assert!(told.await.unwrap().contains("peer=127.0.0.1:"));
}

#[tokio::test]
async fn who_shows_no_certificate_is_cut_soon() {
    let bounds =
        ConnectionBounds { anonymous_life: Duration::from_millis(50), ..ConnectionBounds::default() };
    let mut door = Door::open(bounds).await;
    let (anonymous, known) = (Arc::clone(&door.anonymous), Arc::clone(&door.known));
    let (_client, mut served) = door.enter("127.0.0.1", &anonymous).await.unwrap();
    let (_other, mut stays) = door.enter("127.0.0.1", &known).await.unwrap();
    let cut = served.read_u8().await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionAborted, "{cut}");
    assert!(futures_util::poll!(Box::pin(stays.read_u8())).is_pending());
}
