//! Two ends of a TLS connection, and identities for them.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tollgate_identity::tls::{self, MinimumVersion, Mtls, ServerOptions};
use tollgate_identity::{Credential, IdPattern, Identity, Leaf, Material, TrustBundles};
use tollgate_runtime::clock::Clock;
use tollgate_testkit::authority::{Authority, Signed};

pub(crate) const SERVER: &str = "spiffe://test.example/ns/shop/sa/server";
pub(crate) const CLIENT: &str = "spiffe://test.example/ns/shop/sa/client";

pub(crate) fn bundles(authority: &Authority) -> TrustBundles {
    let root = CertificateDer::from(authority.root_der());
    TrustBundles::default().with("test.example".parse().unwrap(), vec![root]).unwrap()
}

pub(crate) fn credential(signed: &Signed) -> Credential {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.key.clone()));
    let chain = vec![CertificateDer::from(signed.certificate.clone())];
    Credential::new(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).unwrap()
}

/// What a source would bring for `id`.
pub(crate) fn material(authority: &Authority, id: &str) -> Material {
    Material { credential: credential(&authority.workload(id)), bundles: bundles(authority) }
}

pub(crate) fn identity(signed: &Signed, bundles: TrustBundles) -> Identity {
    Identity::fixed(Material { credential: credential(signed), bundles }, Clock::system())
}

pub(crate) fn strict(identity: &Identity) -> Arc<ServerConfig> {
    tls::server_config(identity, &ServerOptions { mtls: Mtls::Strict, ..ServerOptions::default() }).unwrap()
}

pub(crate) fn towards(identity: &Identity, expected: &[&str]) -> Arc<ClientConfig> {
    let expected: Vec<IdPattern> = expected.iter().map(|pattern| pattern.parse().unwrap()).collect();
    tls::client_config(identity, expected, MinimumVersion::Tls13, Vec::new()).unwrap()
}

/// Connects both ends and sends a byte each way. The client's and the server's view of the other.
pub(crate) async fn connect(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (Result<Option<Leaf>, String>, Result<Option<Leaf>, String>) {
    let (near, far) = duplex(64 * 1024);
    let accepting = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"s").await?;
        stream.flush().await?;
        stream.read_u8().await?;
        Ok(tls::peer(stream.get_ref().1).unwrap())
    };
    let connecting = async {
        let name = ServerName::try_from("ignored.invalid").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.read_u8().await?;
        stream.write_all(b"c").await?;
        stream.flush().await?;
        Ok(tls::peer(stream.get_ref().1).unwrap())
    };
    let (server, client): (std::io::Result<_>, std::io::Result<_>) = tokio::join!(accepting, connecting);
    (client.map_err(|error| error.to_string()), server.map_err(|error| error.to_string()))
}
