//! A running mesh, as the stories ask and change it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use http::header::HOST;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tollgate_runtime::clock::Clock;

use crate::demo::behaviour::{self, Seen, Wanted};
use crate::demo::issuer::{Grant, Issuer};
use crate::demo::map::Map;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Where a story has no other need, it has so many requests under way at once.
pub(super) const AT_ONCE: usize = 8;

pub(super) struct Stage {
    pub(super) map: Map,
    issuer: Issuer,
    client: Client,
}

/// What one request came to.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// 0 where none came.
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// Why a proxy refused it.
    pub(super) fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    pub(super) fn version(&self) -> &str {
        self.body["version"].as_str().unwrap_or_default()
    }
}

impl Stage {
    pub(super) fn open(data: &Path) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(PATIENCE).build()?;
        Ok(Self { map: Map::read(data)?, issuer: Issuer::open(data)?, client })
    }

    /// Asks for a policy, or for whatever else is at `host`, as the application `quotes` would.
    pub(super) async fn ask(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.client.get(format!("http://{}{path}", self.map.outbound)).header(HOST, host);
        answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// Asks for a policy as somebody who may read.
    pub(super) async fn enter(&self, subject: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let grant = Grant {
            subject: subject.to_owned(),
            client: String::from("demo-patterns"),
            scopes: vec![String::from("policies:read")],
            ttl: Duration::from_secs(60),
            expired: false,
            bound_to: None,
        };
        let token = self.issuer.token(&grant, &Clock::system())?;
        let request =
            self.client.get(format!("http://{}/policies/POL-1", self.map.ingress)).bearer_auth(token);
        Ok(answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await)
    }

    /// So many requests for a policy, so many of them at once: how often each status and reason came.
    pub(super) async fn burst(&self, count: usize, at_once: usize) -> Outcomes {
        let asked = (0..count).map(|_| self.ask("policies.insurance", "/policies/POL-1", &[]));
        let answers: Vec<Answer> = stream::iter(asked).buffer_unordered(at_once).collect().await;
        Outcomes::of(&answers)
    }

    /// Changes how an instance behaves.
    pub(super) async fn behave(&self, instance: SocketAddr, wanted: Wanted) -> anyhow::Result<Seen> {
        self.behaviour(self.client.put(url(instance)).json(&wanted), instance).await
    }

    /// What an instance has seen.
    pub(super) async fn seen(&self, instance: SocketAddr) -> anyhow::Result<Seen> {
        self.behaviour(self.client.get(url(instance)), instance).await
    }

    async fn behaviour(&self, request: RequestBuilder, instance: SocketAddr) -> anyhow::Result<Seen> {
        let answer = request.send().await.with_context(|| {
            format!("no demo application answers at {instance}; does `tollgate up` run on this data folder?")
        })?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// What a proxy says of itself.
    pub(super) async fn status(&self, part: &str) -> anyhow::Result<Value> {
        let url = format!("http://{}/status", self.map.process(part)?);
        let answer = self.client.get(&url).send().await.with_context(|| format!("no {part} answers"))?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// One cluster of a proxy's status.
    pub(super) async fn cluster(&self, part: &str, name: &str) -> anyhow::Result<Value> {
        let status = self.status(part).await?;
        let clusters = status["clusters"].as_array().into_iter().flatten();
        let found = clusters.into_iter().find(|cluster| cluster["name"] == name);
        found.cloned().with_context(|| format!("{part} has no cluster `{name}`"))
    }
}

/// How often each came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) passed: usize,
    /// By status and reason.
    failed: BTreeMap<String, usize>,
}

impl Outcomes {
    fn of(answers: &[Answer]) -> Self {
        let mut outcomes = Self::default();
        for answer in answers {
            if answer.is_ok() {
                outcomes.passed += 1;
            } else {
                let why = format!("{} {}", answer.status, answer.reason());
                *outcomes.failed.entry(why.trim_end().to_owned()).or_default() += 1;
            }
        }
        outcomes
    }

    pub(super) fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    pub(super) fn with(&self, why: &str) -> usize {
        self.failed.get(why).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        for (why, count) in other.failed {
            *self.failed.entry(why).or_default() += count;
        }
    }
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed", self.passed)?;
        self.failed.iter().try_for_each(|(why, count)| write!(f, ", {count} were {why}"))
    }
}

/// Looks until something is there, or nobody believes in it any more.
pub(super) async fn until<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if began.elapsed() > within {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    match request.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            Answer { status, body: answer.json().await.unwrap_or(Value::Null) }
        }
        Err(_) => Answer { status: 0, body: Value::Null },
    }
}

fn url(instance: SocketAddr) -> String {
    format!("http://{instance}{}", behaviour::PATH)
}
