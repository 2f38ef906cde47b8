//! The SPIFFE Workload API, as SPIRE's agent offers it on a unix socket.
//!
//! The agent pushes whatever is new; a stream that breaks is opened again. Of several identities the first counts
//! unless one is asked for by its hint, as the specification says.

use std::path::PathBuf;
use std::pin::Pin;

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, X509Svid};

use super::{Source, SourceFault};
use crate::bundle::TrustBundles;
use crate::credential::Credential;
use crate::identity::{Material, provider};
use crate::spiffe_id::TrustDomain;

/// Where the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadApiConfig {
    /// The agent's socket, such as `/run/spire/sockets/agent.sock`.
    pub socket: PathBuf,
    /// Which identity to use where the agent gives several: the one with this hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Other names of our own trust domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<TrustDomain>,
}

type Updates = Pin<Box<dyn Stream<Item = Result<X509Context, WorkloadApiError>> + Send>>;

/// Follows an agent.
pub struct WorkloadApi {
    config: WorkloadApiConfig,
    updates: Option<Updates>,
}

impl WorkloadApi {
    /// Nothing is opened before it is asked.
    pub fn new(config: WorkloadApiConfig) -> Self {
        Self { config, updates: None }
    }

    async fn updates(&mut self) -> Result<&mut Updates, SourceFault> {
        if self.updates.is_none() {
            let endpoint = format!("unix://{}", self.config.socket.display());
            let client = WorkloadApiClient::connect_to(&endpoint).await.map_err(|error| away(&error))?;
            let stream = client.stream_x509_contexts().await.map_err(|error| away(&error))?;
            self.updates = Some(Box::pin(stream));
        }
        Ok(self.updates.as_mut().expect("it was opened just above"))
    }

    fn material(&self, context: &X509Context) -> Result<Material, SourceFault> {
        let svid = match &self.config.hint {
            None => context.default_svid(),
            Some(hint) => context.svids().iter().find(|svid| svid.hint() == Some(hint)),
        };
        let svid = svid.ok_or_else(|| SourceFault::Unavailable(self.no_identity()))?;
        let credential = credential_of(svid)?;
        let mut bundles = TrustBundles::default();
        for (domain, bundle) in context.bundle_set().iter() {
            let domain: TrustDomain = domain
                .as_str()
                .parse()
                .map_err(|fault| SourceFault::Unavailable(format!("the agent's trust domain {fault}")))?;
            let roots = bundle.authorities().iter();
            bundles = bundles.with(domain, roots.map(|root| der(root.as_bytes())).collect())?;
        }
        for alias in &self.config.aliases {
            bundles = bundles.with_alias(alias.clone(), credential.leaf.id.trust_domain().clone())?;
        }
        Ok(Material { credential, bundles })
    }

    fn no_identity(&self) -> String {
        match &self.config.hint {
            None => "the workload API gave no identity; is this workload registered?".to_owned(),
            Some(hint) => format!("the workload API gave no identity with the hint `{hint}`"),
        }
    }
}

fn away(error: &WorkloadApiError) -> SourceFault {
    SourceFault::Unavailable(format!("the workload API does not answer: {error}"))
}

fn der(bytes: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}

fn credential_of(svid: &X509Svid) -> Result<Credential, SourceFault> {
    let chain = svid.cert_chain().iter().map(|certificate| der(certificate.as_bytes())).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
    Ok(Credential::new(chain, key, &provider())?)
}

impl Source for WorkloadApi {
    fn name(&self) -> &'static str {
        "workload API"
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Material, SourceFault>> {
        Box::pin(async {
            let update = self.updates().await?.next().await;
            match update {
                Some(Ok(context)) => self.material(&context),
                Some(Err(error)) => {
                    self.updates = None;
                    Err(away(&error))
                }
                None => {
                    self.updates = None;
                    Err(SourceFault::Unavailable("the workload API closed its stream".to_owned()))
                }
            }
        })
    }
}
