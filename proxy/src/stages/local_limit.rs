//! Limits that this proxy holds by itself, of a listener, a host or a route, and for each of a client's keys.
//!
//! They ask nobody, so they come first: those that need no verified token before authorization, the others after it.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_runtime::config::Invalid;

use super::buckets::{Buckets, Rate};
use crate::config;
use crate::error::{Limited, ProxyError, retry_after_value};
use crate::route::descriptor::{Facts, Value};

/// One limit, compiled.
#[derive(Debug)]
pub struct LocalLimit {
    hosts: Vec<HostPattern>,
    /// None: one bucket for all requests.
    key: Option<Value>,
    /// Values are kept as numbers, so that none of them takes more room than another.
    seeds: [RandomState; 2],
    buckets: Buckets<u128>,
    requests: u32,
    per: Duration,
}

/// Which hosts a limit is for.
#[derive(Debug, PartialEq, Eq)]
enum HostPattern {
    Exact(String),
    /// With its dot.
    Suffix(String),
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let suffix = text.strip_prefix('*');
        let name = suffix.map_or(Some(text.as_str()), |suffix| suffix.strip_prefix('.'))?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(is_host) {
            return None;
        }
        Some(suffix.map_or_else(|| Self::Exact(text.clone()), |suffix| Self::Suffix(suffix.to_owned())))
    }

    fn is(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// When a limit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before anybody is asked.
    BeforeAuthorization,
    /// Once a token is verified.
    AfterAuthorization,
}

impl LocalLimit {
    /// Compiles the limits of one place.
    pub fn compile_all(limits: &[config::LocalLimit], key: &str) -> Result<Vec<Self>, Invalid> {
        limits.iter().enumerate().map(|(at, limit)| Self::compile(limit, &format!("{key}[{at}]"))).collect()
    }

    fn compile(limit: &config::LocalLimit, at: &str) -> Result<Self, Invalid> {
        let flaw =
            |key: &str, problem: String, remedy: &str| Invalid::new(format!("{at}.{key}"), problem, remedy);
        if limit.requests == 0 {
            return Err(flaw("requests", "0 would refuse everything".to_owned(), "1 or more"));
        }
        if limit.per.is_zero() || limit.per > Duration::from_secs(86_400) {
            return Err(flaw(
                "per",
                "is no time between 1ns and a day".to_owned(),
                "a duration such as 1s or 1m",
            ));
        }
        if limit.burst == Some(0) {
            return Err(flaw("burst", "0 would refuse everything".to_owned(), "1 or more, or none"));
        }
        let key = limit.key.as_deref().map(Value::parse).transpose();
        let key = key.map_err(|problem| flaw("key", problem.to_string(), Value::EXPECTED))?;
        let hosts = limit.hostnames.iter().enumerate().map(|(index, host)| {
            HostPattern::parse(host).ok_or_else(|| {
                let problem = format!("`{host}` is not a host");
                flaw(
                    &format!("hostnames[{index}]"),
                    problem,
                    "a name such as api.example.org or *.example.org",
                )
            })
        });
        let burst = limit.burst.unwrap_or(limit.requests);
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            key,
            seeds: [RandomState::new(), RandomState::new()],
            buckets: Buckets::new(Rate::new(limit.requests, limit.per, burst)),
            requests: limit.requests,
            per: limit.per,
        })
    }

    /// When it is looked at.
    pub fn when(&self) -> When {
        match &self.key {
            Some(key) if key.needs_token() => When::AfterAuthorization,
            _ => When::BeforeAuthorization,
        }
    }

    /// Counts a request. One that lacks the key's value is not held to it.
    pub fn take(&self, facts: &Facts<'_>) -> Result<(), ProxyError> {
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.is(facts.host)) {
            return Ok(());
        }
        let number = match &self.key {
            None => 0,
            Some(key) => match key.fill(facts) {
                Some(value) => self.number(&value),
                None => return Ok(()),
            },
        };
        self.buckets.take(number).map_err(|wait| ProxyError::LocalLimit(Box::new(self.refusal(wait))))
    }

    fn number(&self, value: &str) -> u128 {
        let [high, low] = [0, 1].map(|at: usize| u128::from(self.seeds[at].hash_one(value)));
        high << 64 | low
    }

    fn refusal(&self, wait: Duration) -> Limited {
        let mut headers = HeaderMap::with_capacity(6);
        let mut limit = self.requests.to_string();
        let _ = write!(limit, ", {};w={}", self.requests, self.per.as_secs().max(1));
        if let Ok(limit) = HeaderValue::try_from(limit) {
            headers.insert(HeaderName::from_static("x-ratelimit-limit"), limit);
        }
        headers.insert(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from_static("0"));
        headers.insert(HeaderName::from_static("x-ratelimit-reset"), retry_after_value(wait));
        headers.insert(RETRY_AFTER, retry_after_value(wait));
        Limited { headers, body: None }
    }
}

/// Counts a request in each limit of a place whose time has come; the first that is full refuses it.
pub fn take_all(limits: &[LocalLimit], when: When, facts: &Facts<'_>) -> Result<(), ProxyError> {
    limits.iter().filter(|limit| limit.when() == when).try_for_each(|limit| limit.take(facts))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn limit(yaml: &str) -> LocalLimit {
        let config: config::LocalLimit =
            tollgate_runtime::config::parse_yaml(std::path::Path::new("limit.yaml"), yaml).unwrap();
        LocalLimit::compile(&config, "l").unwrap()
    }

    /// How many of five requests pass.
    fn passed(limit: &LocalLimit, host: &str, client: &str, subject: Option<&str>) -> usize {
        let headers = HeaderMap::new();
        let facts = Facts {
            subject,
            host,
            client: client.parse().unwrap(),
            ..Facts::of_nobody(&Method::GET, &headers)
        };
        (0..5).filter(|_| limit.take(&facts).is_ok()).count()
    }

    #[test]
    fn each_place_and_each_key_has_its_own_bucket() {
        let whole = limit("{requests: 3, per: 1h}");
        assert_eq!((passed(&whole, "a", "192.0.2.1", None), passed(&whole, "b", "192.0.2.2", None)), (3, 0));
        let by_client = limit("{requests: 3, per: 1h, burst: 2, key: '{client.address}'}");
        assert_eq!(passed(&by_client, "a", "192.0.2.1", None), 2);
        assert_eq!(passed(&by_client, "a", "192.0.2.2", None), 2);
        let host = limit("{requests: 1, per: 1h, hostnames: ['*.example.org', 'a']}");
        assert_eq!(
            (passed(&host, "b", "192.0.2.1", None), passed(&host, "example.org", "192.0.2.1", None)),
            (5, 5)
        );
        assert_eq!(
            (passed(&host, "x.example.org", "192.0.2.1", None), passed(&host, "a", "192.0.2.1", None)),
            (1, 0)
        );
        let by_subject = limit("{requests: 1, per: 1h, key: '{token.subject}'}");
        assert_eq!(passed(&by_subject, "a", "192.0.2.1", None), 5);
        assert_eq!(passed(&by_subject, "a", "192.0.2.1", Some("reader")), 1);
        assert_eq!(
            (by_subject.when(), by_client.when()),
            (When::AfterAuthorization, When::BeforeAuthorization)
        );
    }

    #[test]
    fn wrong_limits_are_named() {
        for (yaml, key) in [
            ("{requests: 0, per: 1s}", "l.requests"),
            ("{requests: 1, per: 0s}", "l.per"),
            ("{requests: 1, per: 2d}", "l.per"),
            ("{requests: 1, per: 1s, burst: 0}", "l.burst"),
            ("{requests: 1, per: 1s, key: '{nobody}'}", "l.key"),
            ("{requests: 1, per: 1s, hostnames: ['a b']}", "l.hostnames[0]"),
        ] {
            let config: config::LocalLimit =
                tollgate_runtime::config::parse_yaml(std::path::Path::new("limit.yaml"), yaml).unwrap();
            assert_eq!(LocalLimit::compile(&config, "l").unwrap_err().key, key, "{yaml}");
        }
    }
}
