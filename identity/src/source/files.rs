//! Certificates in files, as cert-manager and Vault write them, read again whenever they change.
//!
//! A rotation that is seen half-way (a new certificate beside the old key) is no credential, so the old one stays
//! in force until the rest has arrived.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tollgate_runtime::Service;
use tollgate_runtime::config::watch_files;

use super::{Source, SourceFault};
use crate::bundle::TrustBundles;
use crate::credential::Credential;
use crate::identity::{Material, provider};
use crate::pem;
use crate::spiffe_id::TrustDomain;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// Our certificate, followed by those between it and the root (`tls.crt`).
    pub certificate: PathBuf,
    /// Its private key (`tls.key`).
    pub key: PathBuf,
    /// The roots of our own trust domain (`ca.crt`).
    pub bundle: PathBuf,
    /// The roots of other trust domains, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub federated: BTreeMap<TrustDomain, PathBuf>,
    /// Other names of our own trust domain, kept while workloads still carry them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<TrustDomain>,
}

impl FilesConfig {
    /// Reads all files.
    pub fn read(&self) -> Result<Material, SourceFault> {
        let chain = pem::certificates(&self.certificate)?;
        let credential = Credential::new(chain, pem::private_key(&self.key)?, &provider())?;
        let ours = credential.leaf.id.trust_domain().clone();
        let mut bundles = TrustBundles::default().with(ours.clone(), pem::certificates(&self.bundle)?)?;
        for (domain, file) in &self.federated {
            bundles = bundles.with(domain.clone(), pem::certificates(file)?)?;
        }
        for alias in &self.aliases {
            bundles = bundles.with_alias(alias.clone(), ours.clone())?;
        }
        Ok(Material { credential, bundles })
    }
}

/// Watches files.
#[derive(Debug)]
pub struct Files {
    config: FilesConfig,
    changed: watch::Receiver<u64>,
    started: bool,
}

impl Files {
    /// Starts to watch.
    pub fn new(config: FilesConfig, service: &Service) -> Self {
        let paths = [&config.certificate, &config.key, &config.bundle];
        let paths = paths.into_iter().chain(config.federated.values()).cloned().collect();
        let (changes, changed) = watch::channel(0);
        watch_files(service, paths, move || changes.send_modify(|count| *count += 1));
        Self { config, changed, started: false }
    }
}

impl Source for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Material, SourceFault>> {
        Box::pin(async {
            if self.started && self.changed.changed().await.is_err() {
                return Err(SourceFault::Stopped);
            }
            self.started = true;
            self.config.read()
        })
    }
}
