//! The cluster's API: where it is, who we are to it, and what is read of its answers.
//!
//! What it says decides where requests go, so it is known by its certificate, always; and each of its answers has a bound in
//! bytes and in time. Nothing is run to get a credential.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::List;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::params::{ListParams, WatchParams};
use kube::core::{Request, Status, WatchEvent};
use kube::{Client, Config, Resource as _};
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use crate::follow::Service;

/// How long the API may take for a list, and for the head of any answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest list that is read: some fifteen thousand endpoints.
const MAX_LIST_BYTES: usize = 8 << 20;
/// The longest event that is read; a slice has a thousand endpoints at most.
const MAX_EVENT_BYTES: usize = 4 << 20;
/// The longest answer that is read of a refusal, and how much of it is passed on.
const MAX_REFUSAL_BYTES: usize = 16 << 10;
const MAX_REFUSAL_SAID: usize = 300;
/// For how long a watch is asked for, in seconds; drawn, so that proxies that began together do not go on so.
const WATCH_SECONDS: std::ops::Range<u32> = 240..300;
/// A watch that says nothing for so long has probably nobody at its other end. Bookmarks come every minute.
const SILENCE: Duration = Duration::from_secs(120);
/// Room that is kept for the next event.
const KEPT_BYTES: usize = 64 << 10;

/// Where a cluster's API is, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// As a pod reaches it.
    Account {
        /// `https://kubernetes.default.svc`
        url: String,
        /// The roots that its certificate is believed by.
        ca_file: PathBuf,
        /// The token of our service account. A file `namespace` beside it has our own namespace.
        token_file: PathBuf,
    },
    /// As a file for `kubectl` says, by its current context.
    Kubeconfig(PathBuf),
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Setup(String),
    #[error("the Kubernetes API cannot be reached: {0}")]
    Away(String),
    #[error("the Kubernetes API gives no answer within {} s", TIMEOUT.as_secs())]
    Slow,
    #[error("the Kubernetes API answers {status}{}", because(.said))]
    Refused { status: StatusCode, said: String, after: Option<Duration> },
    #[error("the answer of the Kubernetes API cannot be read: {0}")]
    Garbage(String),
    #[error("an answer of the Kubernetes API is longer than {0} bytes")]
    TooLong(usize),
    /// What happened since then is not known any more (410): all has to be asked for again.
    #[error("the version is gone")]
    Gone,
}

fn because(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl Fault {
    /// Whether changes may have been missed, so that a watch cannot go on where the last one ended.
    pub(crate) fn loses_count(&self) -> bool {
        match self {
            Self::Setup(_) | Self::Away(_) | Self::Slow => false,
            Self::Refused { status, .. } => {
                let for_now = [
                    StatusCode::UNAUTHORIZED,
                    StatusCode::FORBIDDEN,
                    StatusCode::REQUEST_TIMEOUT,
                    StatusCode::TOO_MANY_REQUESTS,
                ];
                !(status.is_server_error() || for_now.contains(status))
            }
            Self::Garbage(_) | Self::TooLong(_) | Self::Gone => true,
        }
    }

    /// How long the API wants us to wait.
    pub(crate) fn after(&self) -> Option<Duration> {
        match self {
            Self::Refused { after, .. } => *after,
            _ => None,
        }
    }
}

/// Reads the slices of one Service.
pub(crate) struct Reader {
    client: Client,
    path: Request,
    labels: String,
    /// The Service with its namespace, for people.
    pub(crate) service: String,
}

/// A list, and which moment it is of.
pub(crate) struct Listed {
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) version: String,
}

impl Api {
    /// Reads the credentials; nothing is sent yet.
    pub(crate) async fn open(&self, service: &Service) -> Result<Reader, Fault> {
        let (config, own_namespace) = match self {
            Self::Account { url, ca_file, token_file } => account(url, ca_file, token_file).await?,
            Self::Kubeconfig(file) => kubeconfig(file).await?,
        };
        let namespace = match &service.namespace {
            Some(namespace) => namespace.clone(),
            None => own_namespace?,
        };
        let client = client(&config).map_err(|error| Fault::Setup(chain(&error)))?;
        Ok(Reader {
            client,
            path: Request::new(EndpointSlice::url_path(&(), Some(&namespace))),
            labels: format!("kubernetes.io/service-name={}", service.name),
            service: format!("{namespace}/{}", service.name),
        })
    }
}

/// A configuration, and the namespace that counts where none is named.
type Opened = (Config, Result<String, Fault>);

async fn account(url: &str, ca_file: &Path, token_file: &Path) -> Result<Opened, Fault> {
    let mut config = Config::new(secure(url)?);
    readable(ca_file).await?;
    readable(token_file).await?;
    // The file is what counts, and is read again while we run. Without roots here, the system's would be looked for.
    config.root_cert = Some(Vec::new());
    config.root_cert_file = Some(ca_file.to_owned());
    config.auth_info.token_file = Some(token_file.display().to_string());
    let file = token_file.with_file_name("namespace");
    let namespace = tokio::fs::read_to_string(&file).await;
    let namespace = namespace
        .map(|text| text.trim().to_owned())
        .map_err(|error| Fault::Setup(format!("no `namespace` is given, and {}: {error}", file.display())));
    Ok((config, namespace))
}

async fn readable(file: &Path) -> Result<(), Fault> {
    let opened = tokio::fs::File::open(file).await;
    opened.map(drop).map_err(|error| Fault::Setup(format!("{}: {error}", file.display())))
}

async fn kubeconfig(file: &Path) -> Result<Opened, Fault> {
    let wrong = |problem: String| Fault::Setup(format!("{}: {problem}", file.display()));
    let read = Kubeconfig::read_from(file).map_err(|error| wrong(chain(&error)))?;
    let proxied = |cluster: &kube::config::Cluster| cluster.proxy_url.is_some();
    if read.clusters.iter().filter_map(|one| one.cluster.as_ref()).any(proxied) {
        return Err(wrong("`proxy-url` is not followed".to_owned()));
    }
    let options = KubeConfigOptions::default();
    let mut config =
        Config::from_custom_kubeconfig(read, &options).await.map_err(|error| wrong(chain(&error)))?;
    if config.accept_invalid_certs {
        return Err(wrong("`insecure-skip-tls-verify`: anybody could say where requests go".to_owned()));
    }
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        let problem =
            "`exec` and `auth-provider` are commands, and none is run here; use a token or a certificate";
        return Err(wrong(problem.to_owned()));
    }
    secure(&config.cluster_url.to_string()).map_err(|fault| wrong(fault.to_string()))?;
    // The environment may name one.
    config.proxy_url = None;
    let namespace = config.default_namespace.clone();
    Ok((config, Ok(namespace)))
}

fn secure(url: &str) -> Result<Uri, Fault> {
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("https") => Ok(uri),
        _ => Err(Fault::Setup(format!("`{url}` is no address by HTTPS"))),
    }
}

/// `kube`'s own stack retries and logs; here both are done in one place, by `follow`.
fn client(config: &Config) -> kube::Result<Client> {
    let http =
        legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(config.rustls_https_connector()?);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

impl Reader {
    /// All slices there are.
    pub(crate) async fn list(&self) -> Result<Listed, Fault> {
        let request = self.path.list(&ListParams::default().labels(&self.labels));
        let answer = timeout(TIMEOUT, async {
            let answer = self.send(request).await?;
            read(answer, MAX_LIST_BYTES).await
        });
        let answer = answer.await.map_err(|_| Fault::Slow)??;
        let list: List<EndpointSlice> =
            serde_json::from_slice(&answer).map_err(|error| Fault::Garbage(error.to_string()))?;
        let part = list.metadata.continue_.is_some_and(|more| !more.is_empty());
        match list.metadata.resource_version.filter(|version| !version.is_empty()) {
            _ if part => Err(Fault::Garbage("it is a part of a list".to_owned())),
            None => Err(Fault::Garbage("it is a list of no version".to_owned())),
            Some(version) => Ok(Listed { slices: list.items, version }),
        }
    }

    /// What changes from that version on.
    pub(crate) async fn watch(&self, version: &str) -> Result<Watch, Fault> {
        let seconds = rand::random_range(WATCH_SECONDS);
        let request = self.path.watch(&WatchParams::default().labels(&self.labels).timeout(seconds), version);
        let answer = timeout(TIMEOUT, self.send(request)).await.map_err(|_| Fault::Slow)??;
        Ok(Watch { body: answer.into_body(), rest: Vec::new() })
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Response<Body>, Fault> {
        let request = request.map_err(|error| Fault::Setup(chain(&error)))?;
        let answer = self.client.send(request.map(Body::from)).await;
        let answer = answer.map_err(|error| Fault::Away(chain(&error)))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(Fault::Gone),
            status => {
                let after = answer.headers().get(http::header::RETRY_AFTER);
                let after =
                    after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
                let said = read(answer, MAX_REFUSAL_BYTES).await.unwrap_or_default();
                let said = serde_json::from_slice::<Status>(&said).map(|said| said.message);
                let said = said.unwrap_or_default().chars().take(MAX_REFUSAL_SAID).collect();
                Err(Fault::Refused { status, said, after })
            }
        }
    }
}

async fn read(answer: Response<Body>, most: usize) -> Result<Vec<u8>, Fault> {
    match Limited::new(answer.into_body(), most).collect().await {
        Ok(whole) => Ok(whole.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLong(most)),
        Err(error) => Err(Fault::Away(chain(&*error))),
    }
}

/// Changes, as they are told.
pub(crate) struct Watch {
    body: Body,
    /// The beginning of an event.
    rest: Vec<u8>,
}

impl Watch {
    /// What was told next; none, once the watch is over. One that breaks off is over too: whether the API is away shows when it
    /// is asked again.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<WatchEvent<EndpointSlice>>>, Fault> {
        loop {
            let data = match timeout(SILENCE, self.body.frame()).await {
                Err(_) | Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    tracing::debug!("a watch of EndpointSlices broke off: {}", chain(&error));
                    return Ok(None);
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            let before = self.rest.len();
            self.rest.extend_from_slice(&data);
            let whole = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| before + end + 1);
            if self.rest.len() - whole > MAX_EVENT_BYTES {
                return Err(Fault::TooLong(MAX_EVENT_BYTES));
            }
            if whole == 0 {
                continue;
            }
            let lines = self.rest[..whole].split(|byte| *byte == b'\n');
            let events = lines.filter(|line| !line.trim_ascii().is_empty()).map(serde_json::from_slice);
            let events: Result<Vec<_>, _> = events.collect();
            self.rest.drain(..whole);
            self.rest.shrink_to(KEPT_BYTES);
            return events.map(Some).map_err(|error| Fault::Garbage(error.to_string()));
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let said = one.to_string();
        // Some say their cause themselves.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = one.source();
    }
    text
}
