//! Who a Kubernetes service-account token is for: the cluster's own API is asked (TokenReview).
//!
//! ```text
//! token ──TokenReview, audience `tollgate-ca`──> authenticated, for this audience, system:serviceaccount:NS:NAME
//!                                                   └──> spiffe://TRUST-DOMAIN/ns/NS/sa/NAME
//! ```
//!
//! What the API says is believed, so the API is known by its certificate, and its answer has a bound in bytes and in
//! time. The token is given to nobody else, and neither it nor ours is ever logged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, redirect};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tollgate_identity::spiffe_id::{SpiffeId, TrustDomain};
use tollgate_runtime::config::Invalid;
use url::Url;

/// How long the API may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest token that is shown to the API.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Questions to the API at once; who comes then is told to come again.
const MAX_QUESTIONS: usize = 16;
/// What stands before `NAMESPACE:NAME` in the name of a service account's user.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Whose workloads Tollgate's own are, in Kubernetes as in SPIFFE ids.
const SYSTEM_NAMESPACE: &str = "tollgate-system";
/// The authority itself: nobody becomes it by a token.
const AUTHORITY: &str = "authz";
/// The longest name of a namespace (a DNS label), and of a service account (a DNS name).
const MAX_NAMESPACE: usize = 63;
const MAX_NAME: usize = 253;

/// Which cluster's service accounts are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// The cluster's API.
    pub api: String,
    /// The audience that tokens must be made for, so that one made for something else is worth nothing here.
    pub audience: String,
    /// The roots that the API's certificate is believed by.
    pub ca_file: PathBuf,
    /// Our own token, which must be allowed to create `tokenreviews`. It is read anew for each question.
    pub token_file: PathBuf,
    /// Service accounts of the namespace `tollgate-system` that may have its ids, such as `ingress`. Whoever can make
    /// pods there becomes a part of Tollgate itself, so none may unless it is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_accounts: Vec<String>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        let mounted = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            api: "https://kubernetes.default.svc".to_owned(),
            audience: "tollgate-ca".to_owned(),
            ca_file: mounted.join("ca.crt"),
            token_file: mounted.join("token"),
            system_accounts: Vec::new(),
        }
    }
}

impl KubernetesConfig {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        if self.url().is_none_or(|url| url.scheme() != "https") {
            let problem = format!("`{}` is no address by HTTPS, and tokens are shown to it", self.api);
            return Err(Invalid::new("ca.kubernetes.api", problem, "https://kubernetes.default.svc"));
        }
        if self.audience.is_empty() {
            let problem = "is empty, so a token for anything would be taken";
            return Err(Invalid::new("ca.kubernetes.audience", problem, "a name such as tollgate-ca"));
        }
        if self.system_accounts.iter().any(|account| account == AUTHORITY) {
            let problem = "names the authority itself, which nobody becomes by a token";
            return Err(Invalid::new("ca.kubernetes.system_accounts", problem, "others, such as ingress"));
        }
        Ok(())
    }

    fn url(&self) -> Option<Url> {
        let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.api.trim_end_matches('/'));
        Url::parse(&url).ok()
    }
}

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesFault {
    /// It cannot be one.
    #[error("the Kubernetes token is empty or longer than {MAX_TOKEN_BYTES} bytes")]
    Shape,
    /// The cluster does not know it, or not any more.
    #[error("the Kubernetes token is not authenticated{}", because(.0))]
    NotAuthenticated(String),
    /// It was made for something else.
    #[error(
        "the Kubernetes token is for another audience ({}); project one with audience `{audience}`",
        said.join(", ")
    )]
    Audience { said: Vec<String>, audience: String },
    /// Its user is no service account, or has a name that cannot be one.
    #[error(
        "the Kubernetes token is of `{0}`, which is no service account (system:serviceaccount:NAMESPACE:NAME)"
    )]
    Username(String),
    /// A part of Tollgate itself that was not named.
    #[error(
        "service account `{0}` of {SYSTEM_NAMESPACE} may not have an id of Tollgate's own; name it in \
         ca.kubernetes.system_accounts, or use a join token"
    )]
    System(String),
    /// Too many at once.
    #[error("too many Kubernetes tokens are being looked at; try again in some seconds")]
    Busy,
    /// The API gave no answer that can be used. What is said here is for our own log.
    #[error("the Kubernetes API cannot be asked: {0}")]
    Api(String),
}

fn because(error: &str) -> String {
    if error.is_empty() { String::new() } else { format!(": {error}") }
}

/// Asks a cluster about tokens; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    config: Arc<KubernetesConfig>,
    questions: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
struct TokenReview {
    #[serde(default)]
    status: Status,
}

/// What of a TokenReview's status is read (authentication.k8s.io/v1).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    error: String,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

impl Cluster {
    pub(super) fn new(config: KubernetesConfig) -> Self {
        Self { config: Arc::new(config), questions: Arc::new(Semaphore::new(MAX_QUESTIONS)) }
    }

    /// The workload that a token is for.
    pub(super) async fn workload(
        &self,
        token: &str,
        domain: &TrustDomain,
    ) -> Result<SpiffeId, KubernetesFault> {
        let token = token.trim();
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(KubernetesFault::Shape);
        }
        let _one_of_few = self.questions.try_acquire().map_err(|_| KubernetesFault::Busy)?;
        let answer = tokio::time::timeout(TIMEOUT, self.ask(token)).await;
        let answer = answer.map_err(|_| away(format!("no answer within {} s", TIMEOUT.as_secs())))??;
        let review: TokenReview = serde_json::from_slice(&answer)
            .map_err(|error| away(format!("its answer is no TokenReview: {error}")))?;
        self.believed(&review.status, domain)
    }

    /// The answer to one question. Files are read anew: both of them are replaced while we run.
    async fn ask(&self, token: &str) -> Result<Vec<u8>, KubernetesFault> {
        let KubernetesConfig { audience, ca_file, token_file, .. } = &*self.config;
        let unreadable = |file: &PathBuf, error: std::io::Error| away(format!("{}: {error}", file.display()));
        let ours =
            tokio::fs::read_to_string(token_file).await.map_err(|error| unreadable(token_file, error))?;
        let roots = tokio::fs::read(ca_file).await.map_err(|error| unreadable(ca_file, error))?;
        let roots = Certificate::from_pem_bundle(&roots)
            .map_err(|error| away(format!("{}: {}", ca_file.display(), chain(&error))))?;
        let client = Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| away(chain(&error)))?;
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        let url = self.config.url().ok_or_else(|| away(format!("`{}` is no address", self.config.api)))?;
        let asked = client.post(url).bearer_auth(ours.trim()).json(&review).send().await;
        let mut answer = asked.map_err(|error| away(chain(&error.without_url())))?;
        if !answer.status().is_success() {
            let hint = "is our service account allowed to create tokenreviews?";
            return Err(away(format!("it answered {}; {hint}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| away(chain(&error.without_url())))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(away(format!("its answer is longer than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn believed(&self, status: &Status, domain: &TrustDomain) -> Result<SpiffeId, KubernetesFault> {
        if !status.authenticated {
            return Err(KubernetesFault::NotAuthenticated(status.error.clone()));
        }
        // A server that knows no audiences answers with none, and would have taken any token.
        let audience = &self.config.audience;
        if !status.audiences.contains(audience) {
            let said = status.audiences.clone();
            return Err(KubernetesFault::Audience { said, audience: audience.clone() });
        }
        let username = &status.user.username;
        let stranger = || KubernetesFault::Username(username.clone());
        let account = username.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
        let (namespace, name) = account.ok_or_else(stranger)?;
        if !is_name(namespace, MAX_NAMESPACE, b"-") || !is_name(name, MAX_NAME, b"-.") {
            return Err(stranger());
        }
        if namespace == SYSTEM_NAMESPACE && !self.config.system_accounts.iter().any(|account| account == name)
        {
            return Err(KubernetesFault::System(name.to_owned()));
        }
        format!("spiffe://{domain}/ns/{namespace}/sa/{name}").parse().map_err(|_| stranger())
    }
}

/// Whether Kubernetes could have given such a name (RFC 1123): small letters, digits, and `inner` between them.
fn is_name(text: &str, most: usize, inner: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().next_back()) else { return false };
    text.len() <= most
        && plain(first)
        && plain(last)
        && text.bytes().all(|byte| plain(byte) || inner.contains(&byte))
}

fn away(why: impl Into<String>) -> KubernetesFault {
    KubernetesFault::Api(why.into())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text.push_str(&format!(": {one}"));
        cause = one.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster::new(KubernetesConfig {
            system_accounts: vec!["ingress".to_owned()],
            ..KubernetesConfig::default()
        })
    }

    fn status(username: &str) -> Status {
        Status {
            authenticated: true,
            audiences: vec!["tollgate-ca".to_owned()],
            error: String::new(),
            user: User { username: username.to_owned() },
        }
    }

    #[test]
    fn service_accounts_become_ids_and_nobody_else_does() {
        let domain = "example.org".parse().unwrap();
        for (username, id) in [
            ("system:serviceaccount:shop:cart", Some("spiffe://example.org/ns/shop/sa/cart")),
            ("system:serviceaccount:shop:cart.v2", Some("spiffe://example.org/ns/shop/sa/cart.v2")),
            (
                "system:serviceaccount:tollgate-system:ingress",
                Some("spiffe://example.org/ns/tollgate-system/sa/ingress"),
            ),
            ("system:serviceaccount:tollgate-system:authz", None),
            ("system:serviceaccount:tollgate-system:dashboard", None),
            ("system:serviceaccount:shop", None),
            ("system:serviceaccount:shop:", None),
            ("system:serviceaccount::cart", None),
            ("system:serviceaccount:shop:cart:more", None),
            ("system:serviceaccount:Shop:cart", None),
            ("system:serviceaccount:shop:../../tollgate-system", None),
            ("system:serviceaccount:shop:-", None),
            ("system:serviceaccount:shop/sa/x:cart", None),
            ("system:node:shop", None),
            ("kubernetes-admin", None),
            ("", None),
        ] {
            let believed = cluster().believed(&status(username), &domain);
            assert_eq!(believed.ok().as_ref().map(SpiffeId::as_str), id, "{username}");
        }
        let long = format!("system:serviceaccount:{}:cart", "x".repeat(MAX_NAMESPACE + 1));
        assert!(matches!(cluster().believed(&status(&long), &domain), Err(KubernetesFault::Username(_))));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_key() {
        let plain = KubernetesConfig { api: "http://10.0.0.1".to_owned(), ..KubernetesConfig::default() };
        let any = KubernetesConfig { audience: String::new(), ..KubernetesConfig::default() };
        let all =
            KubernetesConfig { system_accounts: vec!["authz".to_owned()], ..KubernetesConfig::default() };
        assert!(KubernetesConfig::default().check().is_ok());
        for (config, key) in [
            (plain, "ca.kubernetes.api"),
            (any, "ca.kubernetes.audience"),
            (all, "ca.kubernetes.system_accounts"),
        ] {
            assert_eq!(config.check().unwrap_err().key, key);
        }
    }
}
