//! Limits from an xDS server over TLS: who must have which certificate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tollgate_ratelimit::xds::{XdsStream, XdsTlsConfig};
use tollgate_runtime::Service;
use tollgate_testkit::authority::{Authority, Signed};

use crate::support::eventually;
use crate::xds::{DAY, Xds, answer, served_from};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Takes TLS off connections and hands them on to a server; clients need a certificate.
struct Terminator {
    address: SocketAddr,
    refused: Arc<AtomicUsize>,
    service: Service,
}

impl Terminator {
    async fn start(target: SocketAddr, authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.root_der())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let ours = authority.server(&[LOOPBACK]);
        let key = PrivateKeyDer::try_from(ours.key).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![ours.certificate.into()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let (address, refused) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let (service, refusals) = (Service::for_test("terminator"), Arc::clone(&refused));
        let tasks = service.tasks().clone();
        drop(service.tasks().spawn("accept", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, refusals) = (acceptor.clone(), Arc::clone(&refusals));
                drop(tasks.spawn("hand-on", async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        refusals.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    let mut onward = TcpStream::connect(target).await.unwrap();
                    // Ends when either side does.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                }));
            }
        }));
        Self { address, refused, service }
    }
}

fn written(folder: &Path, name: &str, pem: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, pem).unwrap();
    file
}

fn tls(folder: &Path, root_pem: &str, client: Option<&Signed>, server_name: Option<&str>) -> XdsTlsConfig {
    XdsTlsConfig {
        ca: Some(written(folder, "ca.pem", root_pem)),
        cert: client.map(|client| written(folder, "cert.pem", &client.certificate_pem)),
        key: client.map(|client| written(folder, "key.pem", &client.key_pem)),
        server_name: server_name.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_come_over_tls_and_only_where_both_sides_know_each_other() {
    let (authority, stranger) = (Authority::new("xds"), Authority::new("another"));
    let client = authority.workload("spiffe://test/limits");
    let unknown = stranger.workload("spiffe://test/limits");
    let xds = Xds::default();
    xds.say_first(answer("1", DAY, 2));
    let (plain, server) = xds.start("127.0.0.1:0").await;
    let terminator = Terminator::start(plain, &authority).await;
    let (folder, address) = (tempfile::tempdir().unwrap(), format!("https://{}", terminator.address));

    let wrong = [
        ("its certificate is of another authority", stranger.root_pem(), Some(&client), None),
        ("we have no certificate", authority.root_pem(), None, None),
        ("ours is of another authority", authority.root_pem(), Some(&unknown), None),
        ("it has another name", authority.root_pem(), Some(&client), Some("limits.example")),
    ];
    for (what, root_pem, client, name) in wrong {
        let before = terminator.refused.load(Ordering::Relaxed);
        let files = tls(folder.path(), &root_pem, client, name);
        let served = served_from(address.clone(), XdsStream::Aggregated, files).await;
        // It is tried more than once.
        eventually(what, || async { terminator.refused.load(Ordering::Relaxed) > before + 1 }).await;
        assert_eq!(served.service.readiness().blockers(), ["limits"], "{what}");
        served.service.stop().await;
    }
    assert!(xds.heard().is_empty());

    // Certificates are read for each connection: the one that is missing now is there later.
    let files = tls(folder.path(), &authority.root_pem(), Some(&unknown), None);
    let before = terminator.refused.load(Ordering::Relaxed);
    let served = served_from(address, XdsStream::Aggregated, files).await;
    eventually("a refusal", || async { terminator.refused.load(Ordering::Relaxed) > before }).await;
    tls(folder.path(), &authority.root_pem(), Some(&client), None);
    eventually("limits", || async { served.service.readiness().is_ready() }).await;
    assert_eq!(served.passing_of(5, "a").await, 2);
    served.service.stop().await;
    terminator.service.stop().await;
    server.stop().await;
}
