//! Where the policy is: behind the admin API of a running service, or in the database of this machine.
//!
//! Both ways give the same answers. The API answers from what the token's holder may read; whoever can read the
//! database reads all of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use tollgate_authz::policy::documents;
use tollgate_authz::policy::object::{Document, PolicySet};
use tollgate_authz::store::Store;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, Secret};

use crate::commands::DataFolder;
use crate::https::Https;

/// How long a running service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the policy is.
#[derive(Debug, Args)]
pub struct Place {
    /// Admin API of a running service, such as `https://HOST:7003` or, on this machine, `http://127.0.0.1:7003`
    #[arg(long, conflicts_with = "data")]
    pub(crate) server: Option<String>,
    /// File with an administrator's token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) https: Https,
    #[command(flatten)]
    pub(crate) data: DataFolder,
}

/// The policy, wherever it is.
pub(crate) enum Policy {
    Here(Store),
    There(Remote),
}

/// A running service.
pub(crate) struct Remote {
    client: reqwest::Client,
    server: String,
    /// Who has none comes by a certificate.
    token: Option<Secret>,
}

/// The database of a data folder, or the one that `TOLLGATE_DATABASE_URL` names.
pub fn database_url(data: &Path, env: &Env) -> Secret {
    match env.var("TOLLGATE_DATABASE_URL") {
        Some(url) => Secret::new(url),
        None => Secret::new(format!("sqlite://{}", data.join("authz.db").display())),
    }
}

fn has_store(data: &Path, env: &Env) -> bool {
    env.var("TOLLGATE_DATABASE_URL").is_some() || data.join("authz.db").exists()
}

/// Opens the database of this machine.
pub(crate) async fn open_store(data: &Path, env: &Env) -> anyhow::Result<Store> {
    if !has_store(data, env) {
        bail!("no policy in {}; name the folder with --data, or a service with --server", data.display());
    }
    Ok(Store::open(&database_url(data, env), Clock::system()).await?)
}

impl Policy {
    /// Opens it.
    pub(crate) async fn open(at: &Place, env: &Env) -> anyhow::Result<Self> {
        match Remote::of(at, env)? {
            Some(remote) => Ok(Self::There(remote)),
            None => Ok(Self::Here(open_store(&at.data.path(env), env).await?)),
        }
    }

    /// Opens it where there is one: a draft can be looked at without.
    pub(crate) async fn open_if_any(at: &Place, env: &Env) -> anyhow::Result<Option<Self>> {
        if at.server.is_none() && !has_store(&at.data.path(env), env) {
            return Ok(None);
        }
        Self::open(at, env).await.map(Some)
    }

    /// The policy, as it is or as it was at an epoch; and that epoch.
    pub(crate) async fn set(&self, epoch: Option<u64>) -> anyhow::Result<(PolicySet, u64)> {
        match self {
            Self::Here(store) => match epoch {
                Some(epoch) => Ok((store.policy_at(epoch).await?.0, epoch)),
                None => {
                    let loaded = store.load().await?;
                    let objects = loaded.objects.into_iter();
                    Ok((objects.map(|(id, stored)| (id, stored.document)).collect(), loaded.epoch))
                }
            },
            Self::There(remote) => {
                let query = epoch.map_or_else(String::new, |epoch| format!("?epoch={epoch}"));
                let path = format!("/v1/export{query}");
                let (yaml, at) = remote.text(&path).await?;
                let written = documents::parse(Path::new(&path), &yaml)?;
                Ok((documents::policy_set(&written), at))
            }
        }
    }

    /// The objects of a namespace, or all.
    pub(crate) async fn documents(
        &self,
        namespace: Option<&str>,
        epoch: Option<u64>,
    ) -> anyhow::Result<Vec<Document>> {
        let (set, _) = self.set(epoch).await?;
        let wanted = set.into_iter().filter(|(id, _)| namespace.is_none_or(|name| id.namespace == name));
        Ok(wanted.map(|(_, document)| document).collect())
    }
}

impl Remote {
    /// The service that the arguments name.
    pub(crate) fn of(at: &Place, env: &Env) -> anyhow::Result<Option<Self>> {
        let Some(server) = &at.server else { return Ok(None) };
        let token = match &at.token_file {
            Some(file) => {
                let token = std::fs::read_to_string(file);
                let token = token.with_context(|| format!("cannot read {}", file.display()))?;
                Some(Secret::new(token.trim()))
            }
            None if at.https.is_somebody(env)? => None,
            None => bail!("--server: say who asks, by --token-file or by --cert and --key"),
        };
        let client = at.https.client(server, env, TIMEOUT)?;
        let server = server.trim_end_matches('/').to_owned();
        Ok(Some(Self { client, server, token }))
    }

    /// Reads what a path has.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(reqwest::Method::GET, path, None).await
    }

    /// As [`Remote::get`], or nothing where there is nothing (any more).
    pub(crate) async fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.send(reqwest::Method::GET, path, None).await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(self.good(path, answer).await?.json().await?))
    }

    /// Sends a question or a change.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(reqwest::Method::POST, path, Some(body)).await
    }

    /// Wants something done, for a reason.
    pub(crate) async fn act(&self, path: &str, reason: &str) -> anyhow::Result<Value> {
        let mut request = self.client.post(format!("{}{path}", self.server));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if !reason.is_empty() {
            request = request.header("x-tollgate-change-reason", reason);
        }
        let answer = request.send().await.with_context(|| format!("{} does not answer", self.server))?;
        Ok(self.good(path, answer).await?.json().await?)
    }

    /// Reads a text, and the epoch that it is of.
    async fn text(&self, path: &str) -> anyhow::Result<(String, u64)> {
        let answer = self.send(reqwest::Method::GET, path, None).await?;
        let answer = self.good(path, answer).await?;
        let epoch =
            answer.headers().get("x-tollgate-epoch").and_then(|epoch| epoch.to_str().ok()?.parse().ok());
        Ok((answer.text().await?, epoch.unwrap_or_default()))
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body).await?;
        Ok(self.good(path, answer).await?.json().await?)
    }

    async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        let server = &self.server;
        let mut request = self.client.request(method, format!("{server}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.with_context(|| format!("{server} does not answer"))
    }

    /// The answer, or what the service says is wrong.
    async fn good(&self, path: &str, answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body: Value = answer.json().await.unwrap_or_default();
        let detail = body["detail"].as_str().or(body["title"].as_str()).unwrap_or("no explanation");
        let faults = body["faults"].as_array().into_iter().flatten().map(|fault| {
            let of = |key: &str| fault[key].as_str().unwrap_or_default().to_owned();
            let object = &fault["object"];
            let part = |key: &str| object[key].as_str().unwrap_or_default();
            format!(
                "\n  {} {}/{}: {}: {}",
                part("kind"),
                part("namespace"),
                part("name"),
                of("key"),
                of("problem")
            )
        });
        let path = path.split('?').next().unwrap_or(path);
        bail!("{}{path}: {status}: {detail}{}", self.server, faults.collect::<String>());
    }
}

/// A value as it may stand in a query.
pub(crate) fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if plain(byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
