//! The built-in authority, over gRPC: a token for the first certificate, that one for the next.
//!
//! ```text
//! token ──Enrol──> certificate ──half of its life──Renew──> certificate ──> …
//!     │                                             └ it ended first: another token
//!     ├ a join token, good once: its hash of the root is how the authority is known before there is a bundle
//!     └ a Kubernetes service account's, which the cluster keeps fresh: then a file of roots says who the authority is
//! ```
//!
//! Between renewals the authority is asked every few seconds whom to believe: new roots, and what is revoked.
//!
//! The key is made here, anew for every certificate, and never leaves this process, not even to disk: a process that
//! starts again enrols again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_proto::identity::certificate_authority_client::CertificateAuthorityClient;
use tollgate_proto::identity::enrol_request::Proof;
use tollgate_proto::identity::revocation::What;
use tollgate_proto::identity::{BundleRequest, CertificateResponse, EnrolRequest, RenewRequest, Revocation};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Invalid;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

use super::{Source, SourceFault};
use crate::bundle::TrustBundles;
use crate::credential::Credential;
use crate::fresh_key::FreshKey;
use crate::identity::{Identity, Material, draw, provider};
use crate::pem;
use crate::renewal;
use crate::revoked::Revocations;
use crate::spiffe_id::{IdPattern, SpiffeId};
use crate::tls::{self, GrpcChannel, MinimumVersion};

/// How long the authority may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the authority is asked whom to believe: a revocation is in force at the first handshake after that.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest answer to that.
const MAX_BUNDLE_BYTES: usize = 4 * 1024 * 1024;
/// Most certificates of an answer that are read.
const MAX_ROOTS: usize = 64;

/// Where the authority is, and how we prove who we are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// `host:port` of the authority.
    pub address: String,
    /// The file with the join token, as printed by `tollgate ca join-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token_file: Option<PathBuf>,
    /// In place of it the file with a Kubernetes service-account token, projected for the audience `tollgate-ca`. It is
    /// read anew for each enrolment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token_file: Option<PathBuf>,
    /// With such a token, the roots by which the authority is known, as printed by `tollgate ca bundle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// Who we want to be: a token for somebody else is then noticed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// Who the authority is. Its own trust domain's `ns/tollgate-system/sa/authz` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_id: Option<SpiffeId>,
}

/// How we prove who we are.
enum Proving<'c> {
    JoinToken(&'c Path),
    /// With the roots that the authority is known by.
    ServiceAccount(&'c Path, &'c Path),
}

impl AuthorityConfig {
    /// With a join token, the usual way.
    pub fn by_join_token(address: String, file: PathBuf) -> Self {
        Self {
            address,
            join_token_file: Some(file),
            service_account_token_file: None,
            bundle: None,
            spiffe_id: None,
            authority_id: None,
        }
    }

    /// The one proof, or the key that is wrong about it and what would be right.
    fn proving(&self) -> Result<Proving<'_>, (&'static str, &'static str)> {
        match (&self.join_token_file, &self.service_account_token_file, &self.bundle) {
            (Some(file), None, None) => Ok(Proving::JoinToken(file)),
            (None, Some(file), Some(bundle)) => Ok(Proving::ServiceAccount(file, bundle)),
            (None, Some(_), None) => Err((
                "bundle",
                "a file of roots, as printed by `tollgate ca bundle`: nothing else says who the authority is",
            )),
            (Some(_), None, Some(_)) => {
                Err(("bundle", "none beside a join token, which says itself who the authority is"))
            }
            (Some(_), Some(_), _) | (None, None, _) => {
                Err(("join_token_file", "one of `join_token_file` and `service_account_token_file`"))
            }
        }
    }

    /// What serde cannot check; `key` is where this stands.
    pub fn check(&self, key: &str) -> Result<(), Invalid> {
        let wrong = |(name, remedy)| {
            Invalid::new(format!("{key}.{name}"), "does not say how we prove who we are", remedy)
        };
        self.proving().map(drop).map_err(wrong)
    }
}

/// Follows the authority.
pub struct Authority {
    config: AuthorityConfig,
    clock: Clock,
    given: Option<Given>,
}

struct Given {
    /// What was given, for our own calls to the authority.
    identity: Identity,
    material: Material,
    renew_at: f64,
    channel: GrpcChannel,
    known_version: String,
    revoked: Arc<Revocations>,
}

impl Authority {
    /// Nothing is asked before it is needed.
    pub fn new(config: AuthorityConfig, clock: Clock) -> Self {
        Self { config, clock, given: None }
    }

    fn now(&self) -> i64 {
        self.clock.unix_seconds().cast_signed()
    }

    async fn enrol(&self) -> Result<Material, SourceFault> {
        let proving = self.config.proving().map_err(|(key, remedy)| {
            SourceFault::Refused(format!("authority.{key}: nothing proves who we are; write {remedy}"))
        })?;
        let unusable = |error: rustls::Error| SourceFault::Unavailable(error.to_string());
        let alpn = vec![b"h2".to_vec()];
        let (proof, config, remedy) = match proving {
            Proving::JoinToken(file) => {
                let token = read_token("join token", file)?;
                let root = root_of(&token).ok_or_else(|| {
                    SourceFault::Unavailable(format!(
                        "join token {}: is no join token (tgj_….…)",
                        file.display()
                    ))
                })?;
                let config = tls::pinned_client_config(root, alpn).map_err(unusable)?;
                let remedy =
                    format!("Write a new token into {}: tollgate ca join-token --id …", file.display());
                (Proof::JoinToken(token), config, remedy)
            }
            Proving::ServiceAccount(file, bundle) => {
                let token = read_token("service-account token", file)?;
                let roots = pem::certificates(bundle)?;
                let authority = self.config.authority_id.clone();
                let config = tls::bundled_client_config(roots, authority, alpn).map_err(unusable)?;
                let remedy = format!("The token is in {}", file.display());
                (Proof::K8sToken(token), config, remedy)
            }
        };
        let key = self.key()?;
        let request = EnrolRequest { csr_der: key.csr_der.clone(), proof: Some(proof) };
        let answer = self.client(config)?.enrol(request).await.map_err(|status| match refused(&status) {
            SourceFault::Refused(why) => SourceFault::Refused(format!("{why}. {remedy}")),
            fault => fault,
        })?;
        material(answer.into_inner(), &key)
    }

    /// The next certificate. Whose attestation is too old proves it anew, where there is a token that is kept fresh.
    async fn renew_or_enrol(&self, identity: &Identity) -> Result<Material, SourceFault> {
        match self.renew(identity).await {
            Err(SourceFault::Refused(why)) if self.config.service_account_token_file.is_some() => {
                tracing::info!(why, "not renewed by the certificate; trying by the service-account token");
                self.enrol().await
            }
            renewed => renewed,
        }
    }

    async fn renew(&self, identity: &Identity) -> Result<Material, SourceFault> {
        let key = self.key()?;
        let expected = vec![IdPattern::Exact(self.authority_id(identity)?)];
        let config = tls::client_config(identity, expected, MinimumVersion::Tls13, vec![b"h2".to_vec()])
            .map_err(|error| SourceFault::Unavailable(error.to_string()))?;
        let answer = self.client(config)?.renew(RenewRequest { csr_der: key.csr_der.clone() }).await;
        material(answer.map_err(|status| refused(&status))?.into_inner(), &key)
    }

    /// Who the authority is.
    fn authority_id(&self, identity: &Identity) -> Result<SpiffeId, SourceFault> {
        if let Some(id) = &self.config.authority_id {
            return Ok(id.clone());
        }
        let domain = identity.material().credential.leaf.id.trust_domain().clone();
        let id = format!("spiffe://{domain}/ns/tollgate-system/sa/authz");
        id.parse().map_err(|fault| SourceFault::Unavailable(format!("{id} {fault}")))
    }

    fn endpoint(&self) -> Result<Endpoint, SourceFault> {
        let endpoint = Endpoint::try_from(format!("http://{}", self.config.address)).map_err(|error| {
            SourceFault::Unavailable(format!("address `{}`: {error}", self.config.address))
        })?;
        Ok(endpoint.timeout(TIMEOUT).connect_timeout(TIMEOUT))
    }

    fn key(&self) -> Result<FreshKey, SourceFault> {
        let id = self.config.spiffe_id.as_ref();
        FreshKey::generate(id).map_err(|fault| SourceFault::Unavailable(fault.to_string()))
    }

    fn client(
        &self,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<CertificateAuthorityClient<Channel>, SourceFault> {
        let address = self.config.address.clone();
        let connector = service_fn(move |_: Uri| {
            let (config, address) = (Arc::clone(&config), address.clone());
            async move { tls::connect(config, &address).await.map(hyper_util::rt::TokioIo::new) }
        });
        let channel = self.endpoint()?.connect_with_connector_lazy(connector);
        Ok(CertificateAuthorityClient::new(channel))
    }
}

/// The token of a file, as it is now.
fn read_token(what: &str, file: &Path) -> Result<String, SourceFault> {
    let token = std::fs::read_to_string(file).map_err(|source| {
        SourceFault::Unavailable(format!("{what} {}: cannot be read: {source}", file.display()))
    })?;
    Ok(token.trim().to_owned())
}

/// The hash of the root that stands in a join token.
fn root_of(token: &str) -> Option<[u8; 32]> {
    let (_, root) = token.trim().strip_prefix("tgj_")?.split_once('.')?;
    URL_SAFE_NO_PAD.decode(root).ok()?.try_into().ok()
}

fn refused(status: &tonic::Status) -> SourceFault {
    let why = format!("the authority gives no certificate: {}", status.message());
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented => SourceFault::Refused(why),
        _ => SourceFault::Unavailable(why),
    }
}

fn material(answer: CertificateResponse, key: &FreshKey) -> Result<Material, SourceFault> {
    let der = |certificates: Vec<Vec<u8>>| -> Vec<CertificateDer<'static>> {
        certificates.into_iter().take(MAX_ROOTS).map(CertificateDer::from).collect()
    };
    let credential = Credential::new(der(answer.chain_der), key.private_key(), &provider())?;
    let domain = credential.leaf.id.trust_domain().clone();
    let bundles = TrustBundles::default().with(domain, der(answer.roots_der))?;
    Ok(Material { credential, bundles })
}

impl Source for Authority {
    fn name(&self) -> &'static str {
        "built-in authority"
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Material, SourceFault>> {
        Box::pin(async {
            while let Some(given) = &mut self.given {
                let left = renewal::until(given.renew_at, self.clock.unix_seconds().cast_signed());
                tokio::time::sleep(left.min(LOOK_EVERY)).await;
                if left <= LOOK_EVERY {
                    break;
                }
                if let Some(material) = given.look().await {
                    return Ok(material);
                }
            }
            // A certificate that has ended proves nothing any more: then it takes a token.
            let material = match &self.given {
                Some(given) if self.now() < given.material.credential.leaf.not_after => {
                    self.renew_or_enrol(&given.identity).await?
                }
                _ => self.enrol().await?,
            };
            self.given(material).await
        })
    }
}

impl Authority {
    /// Keeps what was given, with what is revoked by now; until that is known, what was known before.
    async fn given(&mut self, mut material: Material) -> Result<Material, SourceFault> {
        let (known_version, revoked) = match self.given.take() {
            Some(before) => (before.known_version, before.revoked),
            None => (String::new(), Arc::default()),
        };
        material.bundles = material.bundles.with_revocations(Arc::clone(&revoked));
        let leaf = &material.credential.leaf;
        let renew_at = renewal::renew_at(leaf.not_before, leaf.not_after, draw());
        let identity = Identity::fixed(material.clone(), self.clock.clone());
        let expected = vec![IdPattern::Exact(self.authority_id(&identity)?)];
        let channel = GrpcChannel::mutual(self.endpoint()?, identity.clone(), expected, self.clock.clone())
            .map_err(|error| SourceFault::Unavailable(error.to_string()))?;
        let given = Given { identity, material, renew_at, channel, known_version, revoked };
        let given = self.given.insert(given);
        Ok(given.look().await.unwrap_or_else(|| given.material.clone()))
    }
}

impl Given {
    /// What is new about whom to believe. An authority that is away is asked again; what was known stays.
    async fn look(&mut self) -> Option<Material> {
        let domain = self.material.credential.leaf.id.trust_domain().clone();
        let request =
            BundleRequest { trust_domain: domain.to_string(), known_version: self.known_version.clone() };
        let mut client = CertificateAuthorityClient::new(self.channel.channel())
            .max_decoding_message_size(MAX_BUNDLE_BYTES);
        // Short, since a renewal may be due meanwhile.
        let asked = tokio::time::timeout(LOOK_EVERY, client.bundle(request)).await;
        let answer = match asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "the authority does not say whom to believe");
                return None;
            }
        };
        if !answer.version.is_empty() && answer.version == self.known_version {
            return None;
        }
        let revoked = Arc::new(revocations(answer.revocations));
        let roots = answer.roots_der.into_iter().take(MAX_ROOTS).map(CertificateDer::from).collect();
        let bundles = match TrustBundles::default().with(domain, roots) {
            Ok(bundles) => bundles.with_revocations(Arc::clone(&revoked)),
            Err(error) => {
                tracing::warn!(%error, "the authority's roots cannot be used; the old ones stay");
                return None;
            }
        };
        (self.known_version, self.revoked) = (answer.version, revoked);
        if bundles == self.material.bundles {
            return None;
        }
        self.material.bundles = bundles;
        self.identity.replace(self.material.clone());
        Some(self.material.clone())
    }
}

/// What cannot be understood is left out, loudly: the rest must not wait for it.
fn revocations(said: Vec<Revocation>) -> Revocations {
    let mut revoked = Revocations::default();
    for Revocation { what, until } in said {
        match what {
            Some(What::Serial(serial)) => revoked.serial(&serial, until),
            Some(What::Workload(pattern)) => match pattern.parse() {
                Ok(pattern) => revoked.workloads(pattern, until),
                Err(fault) => tracing::error!(pattern, %fault, "a revocation cannot be understood"),
            },
            None => {}
        }
    }
    revoked
}
