//! Limits that are divided among proxies: decided here, by the share that the rate-limit service has assigned.
//!
//! ```text
//! request --> table (bucket: take) --> passes, or 429
//!               |  ^
//!       reports v  | assignments
//!             stream (RLQS) <--> rate-limit service
//! ```
//!
//! A request waits for nobody. What has no assignment is decided by a small bucket of the configuration's size: that
//! is what this proxy may add to the limit, and a metric tells both the bound and what was added.

mod bucket;
mod stream;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::caller::Caller;
use crate::config::RateLimitConfig;
use crate::error::{Limited, retry_after_value};
use crate::record::Reporter;
use bucket::By;
use table::{Entries, Table};

/// The shares of this proxy. The stream ends with it.
#[derive(Debug)]
pub(crate) struct Quota {
    inner: Arc<Inner>,
    _streaming: DropGuard,
}

#[derive(Debug)]
struct Inner {
    config: RateLimitConfig,
    table: Mutex<Table>,
    /// A bucket is there that the service has not heard of.
    news: Notify,
    reporter: Arc<Reporter>,
    started: Instant,
}

/// What came of a request's descriptors.
#[derive(Debug)]
pub(crate) enum Decided {
    /// It passes, unless somebody else refuses it.
    Within(Held),
    /// A bucket is empty: this one.
    Over(String, Box<Limited>),
}

/// What a request has taken.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<Entries>);

impl Quota {
    /// Starts the stream.
    pub(crate) fn start(
        config: &RateLimitConfig,
        caller: &Caller<'_>,
        reporter: &Arc<Reporter>,
    ) -> anyhow::Result<Self> {
        let quota = &config.quota;
        let inner = Arc::new(Inner {
            config: config.clone(),
            table: Mutex::new(Table::new(quota.max_buckets, quota.unassigned_per_second)),
            news: Notify::new(),
            reporter: Arc::clone(reporter),
            started: Instant::now(),
        });
        let ending = CancellationToken::new();
        let expected = config.spiffe_id.as_ref();
        let channel = caller.channels("ratelimit", &config.address, expected, 1)?.pop();
        let channel = channel.context("one channel was asked for")?;
        let conversation = stream::Conversation::new(Arc::clone(&inner), channel, ending.clone());
        reporter.service.tasks().spawn("quota-stream", conversation.run());
        Ok(Self { inner, _streaming: ending.drop_guard() })
    }

    pub(crate) fn config(&self) -> &RateLimitConfig {
        &self.inner.config
    }

    /// Takes from the bucket of each descriptor, or from none.
    pub(crate) fn take(&self, descriptors: Vec<Vec<(String, String)>>) -> Decided {
        let now_ns = self.inner.now_ns();
        let metrics = &self.inner.reporter.metrics;
        let domain = &self.inner.config.domain;
        let mut held = Held::default();
        let mut table = self.inner.table.lock();
        for mut entries in descriptors {
            // A bucket is a map; its entries have no order.
            entries.sort_unstable();
            let taken = table.take(&entries, now_ns);
            if taken.is_new {
                self.inner.news.notify_one();
            }
            match taken.result {
                Ok(()) => {
                    metrics.quota(domain, &entries, "allow", by(taken.by));
                    held.0.push(entries);
                }
                Err(wait_ns) => {
                    metrics.quota(domain, &entries, "deny", by(taken.by));
                    held.0.iter().for_each(|entries| table.give_back(entries));
                    let limited = refusal(Duration::from_nanos(wait_ns));
                    return Decided::Over(described(&entries), Box::new(limited));
                }
            }
        }
        Decided::Within(held)
    }

    /// Another limit has refused what passed here.
    pub(crate) fn give_back(&self, held: &Held) {
        let mut table = self.inner.table.lock();
        held.0.iter().for_each(|entries| table.give_back(entries));
    }
}

impl Inner {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn by(by: By) -> &'static str {
    match by {
        By::Share => "share",
        By::Nothing => "unassigned",
    }
}

fn described(entries: &Entries) -> String {
    let pairs: Vec<_> = entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// The whole limit is not known here, so what is left of it and when are all that can be said.
fn refusal(wait: Duration) -> Limited {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from_static("0"));
    headers.insert(HeaderName::from_static("x-ratelimit-reset"), retry_after_value(wait));
    headers.insert(RETRY_AFTER, retry_after_value(wait));
    Limited { headers, body: None }
}
