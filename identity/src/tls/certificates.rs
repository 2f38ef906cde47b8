//! Certificates for servers that are found by name, and roots other than those of our trust domains: files that are
//! read again when they change.
//!
//! A file that is damaged later leaves the last good content in force, and a line in the log.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::Service;
use tollgate_runtime::config::{FileWatch, watch_files_while};

use crate::certificate::CertificateFault;
use crate::identity::provider;
use crate::pem::{self, PemFault};
use crate::shown::Shown;

/// A server's certificate and key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificate {
    /// The names that it is for, such as `api.example.org` or `*.example.org`; the DNS names in it if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The certificate, followed by those between it and the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesFault {
    /// A file is missing or damaged.
    #[error(transparent)]
    File(#[from] PemFault),
    /// Not a certificate.
    #[error("{}: {fault}", file.display())]
    Certificate { file: PathBuf, fault: CertificateFault },
    /// A key that we cannot sign with, or of another certificate.
    #[error("{}: {problem}", file.display())]
    Key { file: PathBuf, problem: String },
    /// A certificate that no client could ask for.
    #[error("{}: it holds no DNS name and none is given", file.display())]
    Nameless { file: PathBuf },
    /// A server that has no name to prove.
    #[error("`{address}` names no server: {problem}")]
    Server { address: String, problem: String },
    /// Roots that are none.
    #[error("{}: {problem}", file.display())]
    Roots { file: PathBuf, problem: String },
}

/// Certificates by server name.
#[derive(Debug)]
pub struct NamedCertificates {
    current: Arc<ArcSwap<Vec<Named>>>,
    _watch: Option<FileWatch>,
}

#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl NamedCertificates {
    /// Reads the files and follows them for as long as this lives.
    pub fn follow(config: &[ServerCertificate], service: &Service) -> Result<Self, CertificatesFault> {
        let current = Arc::new(ArcSwap::from_pointee(read_all(config)?));
        let paths: Vec<_> =
            config.iter().flat_map(|one| [one.certificate.clone(), one.key.clone()]).collect();
        let watch = (!paths.is_empty()).then(|| {
            let (current, config) = (Arc::clone(&current), config.to_vec());
            watch_files_while(service, paths, move || match read_all(&config) {
                Ok(new) => {
                    current.store(Arc::new(new));
                    tracing::info!("server certificates read again");
                }
                Err(error) => tracing::warn!(%error, "server certificates not replaced; the old ones stay"),
            })
        });
        Ok(Self { current, _watch: watch })
    }

    /// The certificate for what a client asks for: its exact name, a wildcard for it, or else the first there is.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        let best = name.and_then(|name| {
            let exact = current.iter().find(|one| one.names.iter().any(|own| own.eq_ignore_ascii_case(name)));
            exact.or_else(|| current.iter().find(|one| one.names.iter().any(|own| is_wildcard_of(own, name))))
        });
        best.map(|one| Arc::clone(&one.key))
    }

    pub(crate) fn first(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().first().map(|one| Arc::clone(&one.key))
    }
}

/// Whether `own` is `*.` and the name without its first label.
fn is_wildcard_of(own: &str, name: &str) -> bool {
    let rest = name.split_once('.').map(|(_, rest)| rest);
    own.strip_prefix("*.").zip(rest).is_some_and(|(own, rest)| own.eq_ignore_ascii_case(rest))
}

fn read_all(config: &[ServerCertificate]) -> Result<Vec<Named>, CertificatesFault> {
    config.iter().map(read_one).collect()
}

fn read_one(config: &ServerCertificate) -> Result<Named, CertificatesFault> {
    let chain = pem::certificates(&config.certificate)?;
    let certificate = |fault| CertificatesFault::Certificate { file: config.certificate.clone(), fault };
    let mut names = config.names.clone();
    if names.is_empty() {
        let shown = chain.first().map(|leaf| Shown::read(leaf)).transpose().map_err(certificate)?;
        names = shown.map(|shown| shown.names).unwrap_or_default();
        names.retain(|name| !name.contains('@'));
    }
    if names.is_empty() {
        return Err(CertificatesFault::Nameless { file: config.certificate.clone() });
    }
    let key = |problem: String| CertificatesFault::Key { file: config.key.clone(), problem };
    let signing = provider().key_provider.load_private_key(pem::private_key(&config.key)?);
    let signing = signing.map_err(|error| key(format!("the private key cannot be used: {error}")))?;
    let certified = CertifiedKey::new(chain, signing);
    certified
        .keys_match()
        .map_err(|_| key("the private key does not belong to the certificate".to_owned()))?;
    Ok(Named { names, key: Arc::new(certified) })
}

/// Roots in a file, which somebody else keeps current.
#[derive(Debug)]
pub struct FileRoots {
    current: Arc<ArcSwap<Verifiers>>,
    _watch: FileWatch,
}

#[derive(Debug)]
pub(crate) struct Verifiers {
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    pub(crate) servers: Arc<dyn ServerCertVerifier>,
}

impl FileRoots {
    /// Reads the file and follows it for as long as this lives.
    pub fn follow(file: PathBuf, service: &Service) -> Result<Self, CertificatesFault> {
        let current = Arc::new(ArcSwap::from_pointee(verifiers(&file)?));
        let kept = Arc::clone(&current);
        let watch = watch_files_while(service, vec![file.clone()], move || match verifiers(&file) {
            Ok(new) => {
                kept.store(Arc::new(new));
                tracing::info!(file = %file.display(), "roots read again");
            }
            Err(error) => tracing::warn!(%error, "roots not replaced; the old ones stay"),
        });
        Ok(Self { current, _watch: watch })
    }

    pub(crate) fn verifiers(&self) -> Arc<Verifiers> {
        self.current.load_full()
    }
}

fn verifiers(file: &std::path::Path) -> Result<Verifiers, CertificatesFault> {
    let wrong = |problem: String| CertificatesFault::Roots { file: file.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(file)? {
        roots.add(root).map_err(|error| wrong(error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let unusable = |error: VerifierBuilderError| wrong(error.to_string());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(unusable)?;
    let clients = clients.build().map_err(unusable)?;
    Ok(Verifiers { clients, servers })
}
