//! Which pages of other origins may call a route. Answered here; the upstream has no say. Pure.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, request};
use tollgate_runtime::config::Invalid;

use crate::config;

/// A route's rules, compiled.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    methods: List,
    headers: List,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum Origin {
    Any,
    Exact(String),
    /// `https://` and `.example.org`
    Below(String, String),
}

#[derive(Debug)]
enum List {
    /// Whatever the page asks for.
    Any,
    These(Option<HeaderValue>),
}

/// The method that a preflight asks about, if this is one.
pub fn announced(parts: &request::Parts) -> Option<Method> {
    if parts.method != Method::OPTIONS || !parts.headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

impl Cors {
    pub(crate) fn compile(config: &config::Cors, key: &str) -> Result<Self, Invalid> {
        let mut origins = Vec::with_capacity(config.allow_origins.len());
        for (index, text) in config.allow_origins.iter().enumerate() {
            let origin = Origin::parse(text).ok_or_else(|| {
                Invalid::new(
                    format!("{key}.allow_origins[{index}]"),
                    format!("`{text}` is not an origin"),
                    "an origin such as https://app.example.org, https://*.example.org, or `*`",
                )
            })?;
            if matches!(origin, Origin::Any) && config.allow_credentials {
                return Err(Invalid::new(
                    format!("{key}.allow_credentials"),
                    "any page at all could act for whoever is logged in",
                    "the origins by name, or no credentials",
                ));
            }
            origins.push(origin);
        }
        if origins.is_empty() {
            return Err(Invalid::new(format!("{key}.allow_origins"), "it is empty", "at least one origin"));
        }
        let list = |values: &[String], name: &str| {
            if values.iter().any(|value| value == "*") {
                return Ok(List::Any);
            }
            joined(values, &format!("{key}.{name}")).map(List::These)
        };
        Ok(Self {
            origins,
            methods: list(&config.allow_methods, "allow_methods")?,
            headers: list(&config.allow_headers, "allow_headers")?,
            expose: joined(&config.expose_headers, &format!("{key}.expose_headers"))?,
            credentials: config.allow_credentials,
            max_age: seconds(config.max_age),
        })
    }

    /// The origin of a request, if its pages may call.
    pub fn admitted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let given = headers.get(ORIGIN)?;
        let text = given.to_str().ok()?;
        self.origins.iter().any(|origin| origin.admits(text)).then(|| given.clone())
    }

    /// The headers of the answer to a preflight from an admitted origin.
    pub fn preflight(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        let fill = |list: &List, name| match list {
            List::Any => asked.get(name).cloned(),
            List::These(value) => value.clone(),
        };
        if let Some(methods) = fill(&self.methods, ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(allowed) = fill(&self.headers, ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }

    /// Says on any answer whether the page may read it. What the upstream said about it is taken back.
    pub fn say(&self, admitted: Option<&HeaderValue>, headers: &mut HeaderMap) {
        for name in
            [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS]
        {
            headers.remove(name);
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = admitted else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host) = text.split_once("://")?;
        let host_is_whole = !host.is_empty() && !host.contains(['/', '@', ' ']);
        if !matches!(scheme, "http" | "https") || !host_is_whole {
            return None;
        }
        match host.strip_prefix('*') {
            Some(below) if below.len() > 1 && below.starts_with('.') && !below.contains('*') => {
                Some(Self::Below(format!("{scheme}://"), below.to_ascii_lowercase()))
            }
            Some(_) => None,
            None if host.contains('*') => None,
            None => Some(Self::Exact(text.to_ascii_lowercase())),
        }
    }

    /// Browsers write origins in lower case; an origin in another spelling is not a browser's.
    fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => text == origin,
            Self::Below(scheme, suffix) => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(suffix.as_str()))
                .is_some_and(|label| !label.is_empty() && !label.contains(['/', '@', ':'])),
        }
    }
}

fn joined(values: &[String], key: &str) -> Result<Option<HeaderValue>, Invalid> {
    if values.is_empty() {
        return Ok(None);
    }
    let text = values.join(", ");
    HeaderValue::try_from(&text)
        .map(Some)
        .map_err(|_| Invalid::new(key, format!("`{text}` cannot stand in a header"), "a list of names"))
}

fn seconds(age: Duration) -> HeaderValue {
    HeaderValue::from(age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Result<Cors, Invalid> {
        let config = config::Cors {
            allow_origins: origins.iter().map(ToString::to_string).collect(),
            allow_methods: vec!["PUT".into(), "DELETE".into()],
            allow_headers: vec!["*".into()],
            expose_headers: vec!["x-request-id".into()],
            allow_credentials: credentials,
            max_age: Duration::from_secs(60),
        };
        Cors::compile(&config, "cors")
    }

    #[test]
    fn origins() {
        for (allowed, origin, expected) in [
            ("*", "https://any.example", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.a.example", "https://x.a.example", true),
            ("https://*.a.example", "https://x.y.a.example", true),
            ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://evil/.a.example", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("https://a.example", "null", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            let admitted = cors(&[allowed], false).unwrap().admitted(&headers).is_some();
            assert_eq!(admitted, expected, "{allowed} {origin}");
        }
        for bad in ["a.example", "ftp://a", "https://", "https://*", "https://a.*", "https://a/b"] {
            assert!(cors(&[bad], false).is_err(), "{bad}");
        }
        assert_eq!(cors(&["*"], true).unwrap_err().key, "cors.allow_credentials");
    }

    #[test]
    fn answers() {
        let cors = cors(&["https://a.example"], true).unwrap();
        let origin = HeaderValue::from_static("https://a.example");
        let mut asked = HeaderMap::new();
        asked.insert(ACCESS_CONTROL_REQUEST_HEADERS, "x-a, x-b".parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, "*".parse().unwrap());
        cors.preflight(&asked, &mut headers);
        cors.say(Some(&origin), &mut headers);
        for (name, value) in [
            ("access-control-allow-origin", "https://a.example"),
            ("access-control-allow-methods", "PUT, DELETE"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "60"),
            ("vary", "origin"),
        ] {
            assert_eq!(headers.get(name).unwrap(), value, "{name}");
        }
        cors.say(None, &mut headers);
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}
