//! The HTTP door over TLS: for callers that the configuration names, each by its certificate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_identity::config::IdentityConfig;
use tollgate_identity::source::FilesConfig;
use tollgate_identity::tls::{Clients, DoorTls, Plaintext};
use tollgate_ratelimit::{App, Config};
use tollgate_runtime::config::ServiceConfig as _;
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::authority::{Authority, Signed, now, workload};

const RATELIMIT: &str = "spiffe://test.example/ns/tollgate-system/sa/ratelimit";
const OPERATOR: &str = "spiffe://test.example/ns/ops/sa/operator";

const LIMITS: &str = "domain: shop
descriptors:
  - {key: user, rate_limit: {unit: day, requests_per_unit: 3, name: per-user}}
";

fn identity(root: &Authority, folder: &Path) -> IdentityConfig {
    let mut params = workload(RATELIMIT);
    params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    let signed = root.sign(params);
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    IdentityConfig::Files(FilesConfig {
        certificate: write("tls.crt", &signed.certificate_pem),
        key: write("tls.key", &signed.key_pem),
        bundle: write("ca.crt", &root.root_pem()),
        federated: std::collections::BTreeMap::default(),
        aliases: Vec::new(),
    })
}

fn configured(root: &Authority, folder: &Path) -> Config {
    let limits = folder.join("limits");
    std::fs::create_dir_all(&limits).unwrap();
    std::fs::write(limits.join("shop.yaml"), LIMITS).unwrap();
    let mut config = Config::with_folder(limits);
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.http = Some("127.0.0.1:0".parse().unwrap());
    config.identity = Some(identity(root, folder));
    config.http_tls = Some(DoorTls::default());
    config.http_callers = vec![OPERATOR.parse().unwrap()];
    config
}

struct Door {
    address: std::net::SocketAddr,
    root: Authority,
    _service: Service,
    _folder: tempfile::TempDir,
}

impl Door {
    async fn open(change: impl FnOnce(&mut Config)) -> Self {
        let (root, folder) = (Authority::new("root"), tempfile::tempdir().unwrap());
        let mut config = configured(&root, folder.path());
        change(&mut config);
        config.check().unwrap();
        let service = Service::for_test("ratelimit");
        let app = App::build(config, service.clone()).await.unwrap();
        let address = app.addresses().http.unwrap();
        drop(service.tasks().spawn("app", app.run()));
        Self { address, root, _service: service, _folder: folder }
    }

    /// A connection by this certificate; none where the server's is not believed.
    async fn connect(&self, shown: Option<&Signed>) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.root_der().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match shown {
            Some(signed) => {
                let chain = vec![CertificateDer::from(signed.certificate.clone())];
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.key.clone()));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
    }

    /// What a request by this certificate is answered; nothing where the handshake is refused.
    async fn ask(&self, shown: Option<&Signed>, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let stream = self.connect(shown).await?;
        // A name of the network: over TLS the certificate says who may.
        request(stream, "limits.example:7005", path, body).await
    }
}

async fn request(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
    body: Option<Value>,
) -> Option<(u16, Value)> {
    let (method, body) = body.map_or(("GET", String::new()), |body| ("POST", body.to_string()));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).unwrap_or(Value::Null)))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_callers_that_are_named_come_in_and_what_they_do_bears_their_name() {
    let door = Door::open(|_| {}).await;
    let operator = door.root.workload(OPERATOR);
    let other = door.root.workload("spiffe://test.example/ns/ops/sa/other");
    assert_eq!(door.ask(Some(&operator), "/v1/usage", None).await.unwrap().0, 200);
    let (status, refused) = door.ask(Some(&other), "/v1/usage", None).await.unwrap();
    assert_eq!((status, refused["reason"].as_str()), (403, Some("caller_denied")));
    assert!(door.ask(None, "/v1/usage", None).await.is_none());
    let stranger = Authority::new("root").workload(OPERATOR);
    assert!(door.ask(Some(&stranger), "/v1/usage", None).await.is_none());

    let reset = json!({"domain": "shop", "entries": [["user", "a"]], "by": "alice", "reason": "a test"});
    let (status, done) = door.ask(Some(&operator), "/v1/reset", Some(reset)).await.unwrap();
    assert_eq!((status, done["by"].as_str()), (200, Some(&*format!("{OPERATOR} (alice)"))));

    let plain = TcpStream::connect(door.address).await.unwrap();
    assert_eq!(request(plain, "localhost", "/v1/usage", None).await.unwrap().0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_may_come_in_plaintext_where_that_is_allowed_and_by_its_own_name_alone() {
    let door = Door::open(|config| {
        config.http_tls = Some(DoorTls { plaintext: Plaintext::Loopback, ..DoorTls::default() });
    })
    .await;
    for (host, status) in [("localhost", 200), ("limits.example", 421)] {
        let plain = TcpStream::connect(door.address).await.unwrap();
        assert_eq!(request(plain, host, "/v1/usage", None).await.unwrap().0, status, "{host}");
    }
    let other = door.root.workload("spiffe://test.example/ns/ops/sa/other");
    assert_eq!(door.ask(Some(&other), "/v1/usage", None).await.unwrap().0, 403);
}

/// Minutes before its peer's certificate ends, a connection is told to go; it is not cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_before_its_peers_certificate_ends() {
    let door = Door::open(|_| {}).await;
    let mut params = workload(OPERATOR);
    params.not_before = (now() - Duration::from_secs(86_400)).into();
    params.not_after = (now() + Duration::from_secs(300)).into();
    let mut stream = door.connect(Some(&door.root.sign(params))).await.unwrap();
    let mut heard = Vec::new();
    let ended = async {
        loop {
            let asked = stream.write_all(b"GET /healthcheck HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut chunk = [0; 4096];
            match (asked, stream.read(&mut chunk).await) {
                (Ok(()), Ok(length @ 1..)) => heard.extend_from_slice(&chunk[..length]),
                _ => return,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ended).await.expect("it goes while the certificate holds");
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
}

#[tokio::test]
async fn a_door_that_would_let_everybody_in_is_refused() {
    let (root, folder) = (Authority::new("root"), tempfile::tempdir().unwrap());
    let config = || configured(&root, folder.path());
    let open = DoorTls { clients: Some(Clients::Optional), ..DoorTls::default() };
    for (config, key) in [
        (Config { http_tls: Some(open), ..config() }, "http_tls.clients"),
        (Config { http_callers: Vec::new(), ..config() }, "http_callers"),
        (Config { identity: None, ..config() }, "http_tls"),
    ] {
        assert_eq!(config.check().unwrap_err().key, key);
    }
    let plain = Config { http: Some("0.0.0.0:0".parse().unwrap()), http_tls: None, ..config() };
    let refused = App::build(plain, Service::for_test("ratelimit")).await.unwrap_err();
    assert!(format!("{refused:#}").contains("write a section `http_tls`"), "{refused:#}");
}
