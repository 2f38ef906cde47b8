//! A port for browsers and tools: which certificate it shows, whom it asks for one, and what becomes of plaintext.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;
use tollgate_identity::tls::{
    Clients, Door, DoorTls, MinimumVersion, Peer, Plaintext, PortStream, ServerCertificate,
};
use tollgate_identity::{Identity, Leaf};
use tollgate_runtime::Service;
use tollgate_testkit::authority::{Authority, workload};
use tonic::transport::server::Connected as _;

use crate::following::Logged;
use crate::wire::{CLIENT, SERVER, bundles, identity, towards};

struct Open {
    address: SocketAddr,
    streams: tollgate_identity::tls::PortStreams,
    service: Service,
}

impl Open {
    fn new(tls: &DoorTls, clients: Clients, identity: Option<&Identity>) -> Self {
        let service = Service::for_test("door");
        let any = "127.0.0.1:0".parse().unwrap();
        let door = Door::bind(any, ("door", "door.tls"), Some(tls), clients).unwrap();
        let address = door.local_addr().unwrap();
        let streams = door.incoming(identity, &service).unwrap();
        Self { address, streams, service }
    }

    /// Who comes in next.
    async fn next(&mut self) -> (Peer, bool) {
        let stream = self.streams.next().await.unwrap().unwrap();
        (stream.connect_info(), matches!(stream, PortStream::Secure(_)))
    }

    /// The names in the certificate that it shows to who asks for `name`.
    async fn shown(&self, name: &'static str, config: Arc<ClientConfig>) -> std::io::Result<Vec<u8>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name).unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    }
}

fn anonymous(
    roots: &[&Authority],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.root_der().into()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(store).with_no_client_auth())
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn own(authority: &Authority) -> Identity {
    let mut params = workload(SERVER);
    params.subject_alt_names.push(rcgen::SanType::DnsName("own.example".try_into().unwrap()));
    identity(&authority.sign(params), bundles(authority))
}

fn file(authority: &Authority, folder: &Path, name: &str) -> ServerCertificate {
    let signed = authority.named(&[name]);
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    std::fs::write(&certificate, signed.certificate_pem).unwrap();
    std::fs::write(&key, signed.key_pem).unwrap();
    ServerCertificate { names: Vec::new(), certificate, key }
}

#[tokio::test]
async fn a_workload_may_show_itself_and_nobody_must() {
    let authority = Authority::new("root");
    let server = own(&authority);
    let mut open = Open::new(&DoorTls::default(), Clients::Optional, Some(&server));
    let client = identity(&authority.workload(CLIENT), bundles(&authority));
    open.shown("own.example", towards(&client, &[SERVER])).await.unwrap();
    let (peer, is_tls) = open.next().await;
    assert_eq!((peer.leaf.unwrap().id.as_str(), is_tls), (CLIENT, true));
    open.shown("own.example", anonymous(&[&authority], BOTH)).await.unwrap();
    assert!(open.next().await.0.leaf.is_none());
    // TLS 1.2 is spoken where that is said.
    let old = anonymous(&[&authority], &[&rustls::version::TLS12]);
    assert!(open.shown("own.example", Arc::clone(&old)).await.is_err());
    let tls = DoorTls { min_version: MinimumVersion::Tls12, ..DoorTls::default() };
    let open = Open::new(&tls, Clients::Optional, Some(&server));
    open.shown("own.example", old).await.unwrap();
}

#[tokio::test]
async fn certificates_from_files_are_shown_to_everybody() {
    let (mesh, public, folder) =
        (Authority::new("mesh"), Authority::new("public"), tempfile::tempdir().unwrap());
    let certificates =
        vec![file(&public, folder.path(), "a.example"), file(&public, folder.path(), "b.example")];
    let tls = DoorTls { certificates, ..DoorTls::default() };
    let server = own(&mesh);
    let open = Open::new(&tls, Clients::Optional, Some(&server));
    let browser = anonymous(&[&public, &mesh], BOTH);
    for name in ["a.example", "b.example"] {
        open.shown(name, Arc::clone(&browser)).await.unwrap();
    }
    // The identity says whose certificates to believe, and is itself shown to nobody.
    assert!(open.shown("own.example", browser).await.is_err());
    let client = identity(&mesh.workload(CLIENT), bundles(&mesh));
    assert!(open.shown("own.example", towards(&client, &[SERVER])).await.is_err());
    assert!(Leaf::read(&public.named(&["a.example"]).certificate).is_err());
}

async fn says(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn plaintext_is_told_so_in_the_answer_and_in_the_log() {
    let (logged, authority) = (Logged::default(), Authority::new("root"));
    let _listening = logged.listen();
    let server = own(&authority);
    let open = Open::new(&DoorTls::default(), Clients::Optional, Some(&server));
    let heard = says(open.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 400 ") && heard.ends_with("ask by https://\n"), "{heard}");
    let told = tollgate_testkit::fake_collector::wait_for(|| {
        logged.lines("the client speaks plaintext, and this port takes TLS alone").first().cloned()
    });
    assert!(told.await.unwrap().contains("peer=127.0.0.1:"));
    drop(open.service);
}

#[tokio::test]
async fn this_machine_may_speak_plaintext_where_that_is_allowed() {
    let authority = Authority::new("root");
    let server = own(&authority);
    let tls = DoorTls { plaintext: Plaintext::Loopback, ..DoorTls::default() };
    let mut open = Open::new(&tls, Clients::Required, Some(&server));
    let mut plain = TcpStream::connect(open.address).await.unwrap();
    plain.write_all(b"G").await.unwrap();
    let (peer, is_tls) = open.next().await;
    assert!(!is_tls && peer.leaf.is_none() && peer.address.ip().is_loopback());
    // Over TLS it asks for a certificate all the same.
    let mut refused = TlsConnector::from(anonymous(&[&authority], BOTH))
        .connect(
            ServerName::try_from("own.example").unwrap(),
            TcpStream::connect(open.address).await.unwrap(),
        )
        .await
        .unwrap();
    assert!(refused.read_u8().await.unwrap_err().to_string().contains("CertificateRequired"));
}
