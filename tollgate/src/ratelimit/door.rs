//! The way to a rate-limit service's HTTP door.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tollgate_runtime::config::Env;

use super::At;
use crate::ca;

/// Where `tollgate up` has it.
const OVER_TLS: &str = "https://127.0.0.1:7005";
/// Where the service has it that runs alone with its example configuration.
const IN_PLAINTEXT: &str = "http://127.0.0.1:7005";
/// A trial of a day's calls takes a while.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A service's door.
pub(super) struct Door {
    client: reqwest::Client,
    server: String,
}

impl Door {
    /// The one that is named; else that of `tollgate up`, where whoever holds the data folder is the operator.
    pub(super) async fn of(at: &At, env: &Env) -> anyhow::Result<Self> {
        let (server, client) = match &at.server {
            Some(server) => (server.as_str(), at.https.client(server, env, TIMEOUT)?),
            None if at.https.is_somebody(env)? => (OVER_TLS, at.https.client(OVER_TLS, env, TIMEOUT)?),
            None => match ca::operator(&at.data.path(env), env).await? {
                Some(operator) => (OVER_TLS, at.https.client_of(&operator, env, TIMEOUT)?),
                None => (IN_PLAINTEXT, at.https.client(IN_PLAINTEXT, env, TIMEOUT)?),
            },
        };
        Ok(Self { client, server: server.trim_end_matches('/').to_owned() })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.answer(self.client.get(format!("{}{path}", self.server)), path).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answer(self.client.post(format!("{}{path}", self.server)).json(body), path).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder, path: &str) -> anyhow::Result<Value> {
        let server = &self.server;
        let answer = request.send().await.with_context(|| {
            format!("{server} does not answer; the service's key `http` says where its door is, and --server names it here")
        })?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        if !status.is_success() {
            bail!("{server}{path}: {status}: {}", body["detail"].as_str().unwrap_or("no explanation"));
        }
        Ok(body)
    }
}

/// A value of a query.
pub(super) fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A file of NAME=VALUE lines, as containers are given; quotes around a value are not part of it.
pub(super) fn env_of(file: &Path) -> anyhow::Result<Env> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pairs =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(
            |line| {
                let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
                let value = value.trim().trim_matches(['"', '\'']);
                Some((name.trim().to_owned(), value.to_owned()))
            },
        );
    Ok(Env::of(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escaped("a b&c/é"), "a%20b%26c%2F%C3%A9");
    }
}
