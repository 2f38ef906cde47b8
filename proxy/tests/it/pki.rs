//! Certificates for a proxy and its clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tollgate_testkit::authority::{Authority, Signed, now, workload};

use crate::harness::Tls;

pub(crate) const PROXY: &str = "spiffe://test.example/ns/shop/sa/proxy";
pub(crate) const CLIENT: &str = "spiffe://test.example/ns/shop/sa/client";

/// A root, and a folder for what it signs.
pub(crate) struct Pki {
    pub(crate) root: Authority,
    folder: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self { root: Authority::new("root"), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file, as cert-manager does it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, beside) = (self.path(name), self.path(&format!("{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &path).unwrap();
        path
    }

    /// Files `NAME.crt`, `NAME.key` and `NAME.ca`, and the section that reads them.
    pub(crate) fn identity(&self, name: &str, id: &str) -> String {
        let signed = self.root.sign(reachable(id));
        self.keep(name, &signed, &self.root.root_pem());
        let at = |ending: &str| self.path(&format!("{name}.{ending}")).display().to_string();
        format!(
            "identity: {{files: {{certificate: '{}', key: '{}', bundle: '{}'}}}}\n",
            at("crt"),
            at("key"),
            at("ca")
        )
    }

    pub(crate) fn keep(&self, name: &str, signed: &Signed, roots: &str) {
        self.write(&format!("{name}.ca"), roots);
        self.write(&format!("{name}.crt"), &signed.certificate_pem);
        self.write(&format!("{name}.key"), &signed.key_pem);
    }

    /// A client that shows this certificate.
    pub(crate) fn client(&self, shown: &Signed) -> Tls {
        client(&self.root, Some(shown), &[&rustls::version::TLS13], &[])
    }

    /// A client that shows none.
    pub(crate) fn anonymous(&self) -> Tls {
        client(&self.root, None, &[&rustls::version::TLS13], &[])
    }

    pub(crate) fn workload(&self, id: &str) -> Signed {
        self.root.workload(id)
    }
}

/// A workload's certificate that a client may also find by its address.
pub(crate) fn reachable(id: &str) -> CertificateParams {
    let mut params = workload(id);
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    params
}

/// As that, for so many seconds from now on.
pub(crate) fn short(id: &str, seconds: u64) -> CertificateParams {
    let mut params = reachable(id);
    params.not_before = now().into();
    params.not_after = (now() + Duration::from_secs(seconds)).into();
    params
}

pub(crate) fn client(
    trusted: &Authority,
    shown: Option<&Signed>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.root_der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key.clone()));
            let chain = vec![CertificateDer::from(shown.certificate.clone())];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (Arc::new(config), "127.0.0.1")
}

pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
