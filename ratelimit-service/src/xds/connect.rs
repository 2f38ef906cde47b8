//! The way to the xDS server: plaintext, or TLS by certificates from files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{XdsConfig, XdsTlsConfig};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that went away without a word is noticed after these.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel that connects when it is first used.
pub(super) fn channel(config: &XdsConfig) -> anyhow::Result<Channel> {
    let is_tls = config.address.starts_with("https://");
    // What tonic is told is plaintext; the connector below makes it TLS.
    let endpoint = Endpoint::from_shared(config.address.replacen("https://", "http://", 1))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if !is_tls {
        return Ok(endpoint.connect_lazy());
    }
    let host = endpoint.uri().host().unwrap_or_default().to_owned();
    let name = config.tls.server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let name = ServerName::try_from(name).context("limits.xds.tls.server_name is no name")?;
    let address = format!("{host}:{}", endpoint.uri().port_u16().unwrap_or(443));
    let connector = TlsConnector::from(Arc::new(client(&config.tls)?));
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    })))
}

fn client(files: &XdsTlsConfig) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in files.ca.as_deref().map(certificates).transpose()?.unwrap_or_default() {
        roots.add(certificate).context("a certificate of limits.xds.tls.ca cannot be used")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key);
            let private = private.with_context(|| format!("cannot read {}", key.display()))?;
            builder.with_client_auth_cert(certificates(cert)?, private)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("cannot read {}", file.display()))
}
