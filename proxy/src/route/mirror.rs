//! Which requests are copied, and what a copy leaves out. Pure but for the count of copies under way.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri};
use tokio::sync::Semaphore;
use tollgate_runtime::config::Invalid;

use super::descriptor::Facts;
use super::key::Key;
use crate::config::{self, Credentials, Percent};
use crate::stages::headers::proves_who_asks;

/// Where copies of a route's requests go.
#[derive(Debug)]
pub struct Mirror {
    /// The cluster, by its name.
    pub cluster: String,
    /// The largest body that is copied.
    pub body_bytes: usize,
    /// How long a copy may take.
    pub timeout: Duration,
    /// Whether its answer is compared with the real one.
    pub compare: bool,
    percent: Percent,
    key: Option<Key>,
    unsafe_methods: bool,
    credentials: Credentials,
    /// Room for copies under way.
    pub(crate) room: Arc<Semaphore>,
    salt: String,
}

/// Where RFC 6750 allows a token in a query.
const TOKEN_PARAM: &str = "access_token";

impl Mirror {
    pub(super) fn compile(config: &config::Mirror, route: &str, key: &str) -> Result<Self, Invalid> {
        if config.max_in_flight == 0 {
            return Err(Invalid::new(format!("{key}.max_in_flight"), "0 is too small", "1 or more"));
        }
        let by = config.key.as_ref().map(|by| Key::compile(by, &format!("{key}.key")));
        Ok(Self {
            cluster: config.cluster.clone(),
            body_bytes: config.body_bytes,
            timeout: config.timeout,
            compare: config.compare,
            percent: config.percent,
            key: by.transpose()?,
            unsafe_methods: config.unsafe_methods,
            credentials: config.credentials,
            room: Arc::new(Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS))),
            salt: format!("mirror:{route}"),
        })
    }

    /// Whether this request is copied.
    pub fn wants(&self, facts: &Facts<'_>) -> bool {
        if !self.unsafe_methods && !facts.method.is_safe() {
            return false;
        }
        let draw = match &self.key {
            // Who lacks the key is no part of the sample.
            Some(key) => key.number(facts, &self.salt),
            None if self.percent == Percent::all() => Some(0),
            None => Some(rand::random()),
        };
        draw.is_some_and(|draw| self.percent.includes(draw))
    }

    /// Takes out of a copy what proves who asked, unless it may stay.
    pub fn redact(&self, headers: &mut HeaderMap, uri: &mut Uri) {
        if self.credentials == Credentials::Keep {
            return;
        }
        let named: Vec<HeaderName> = headers.keys().filter(|name| proves_who_asks(name)).cloned().collect();
        for name in named {
            headers.remove(name);
        }
        if let Some(query) = uri.query().filter(|query| query.contains(TOKEN_PARAM)) {
            let kept = query
                .split('&')
                .filter(|pair| pair.split_once('=').map_or(*pair, |(name, _)| name) != TOKEN_PARAM);
            let kept = kept.collect::<Vec<_>>().join("&");
            let target =
                if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{kept}", uri.path()) };
            if let Ok(target) = target.parse() {
                *uri = target;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn mirror(percent: u32, key: Option<config::Key>) -> Mirror {
        let config = config::Mirror {
            cluster: "c".into(),
            percent: Percent::of_hundred(percent),
            key,
            unsafe_methods: false,
            credentials: Credentials::Redact,
            max_in_flight: 1,
            body_bytes: 1,
            timeout: Duration::from_secs(1),
            compare: false,
        };
        Mirror::compile(&config, "r", "k").unwrap()
    }

    fn wants(mirror: &Mirror, method: &Method, tenant: Option<u32>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(tenant) = tenant {
            headers.insert("x-tenant", tenant.into());
        }
        mirror.wants(&Facts::of_nobody(method, &headers))
    }

    #[test]
    fn the_sample_is_the_same_every_time() {
        let by_tenant = mirror(20, Some(config::Key::Header("x-tenant".into())));
        let sample =
            || (0..1000).map(|tenant| wants(&by_tenant, &Method::GET, Some(tenant))).collect::<Vec<_>>();
        let first = sample();
        assert_eq!(first, sample());
        let count = first.iter().filter(|wanted| **wanted).count();
        assert!((150..250).contains(&count), "{count}");
        assert!(!wants(&by_tenant, &Method::GET, None));
        assert!(wants(&mirror(100, None), &Method::GET, None));
        assert!(!wants(&mirror(100, None), &Method::POST, None));
        assert!(!wants(&mirror(0, None), &Method::GET, None));
    }

    #[test]
    fn what_proves_who_asked_is_left_out() {
        let mut headers: HeaderMap = ["authorization", "cookie", "x-api-key", "x-auth-token", "accept"]
            .into_iter()
            .map(|name| (HeaderName::from_static(name), "x".parse().unwrap()))
            .collect();
        let mut uri: Uri = "/a?access_token=t&b=c".parse().unwrap();
        mirror(1, None).redact(&mut headers, &mut uri);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
        assert_eq!(uri, "/a?b=c");
    }
}
