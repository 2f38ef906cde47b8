//! What a route changes about headers, path and host. Pure.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use jiff::Timestamp;
use tollgate_runtime::config::Invalid;

use crate::config::{
    Deprecation, Header, HeaderModifier, PathModifier, PathModifierType, RequestRedirect, Scheme, UrlRewrite,
};

/// Headers to remove, set and add. Empty, it costs nothing.
#[derive(Debug, Default)]
pub struct Modifier {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Modifier {
    pub(super) fn compile(config: &HeaderModifier, key: &str) -> Result<Self, Invalid> {
        let pairs = |headers: &[Header], list: &str| {
            let pair = |(index, header): (usize, &Header)| {
                let key = format!("{key}.{list}[{index}]");
                let name = name(&header.name, &format!("{key}.name"))?;
                Ok((name, value(header, &key)?))
            };
            headers.iter().enumerate().map(pair).collect::<Result<Vec<_>, Invalid>>()
        };
        let removed = |(index, text): (usize, &String)| name(text, &format!("{key}.remove[{index}]"));
        Ok(Self {
            remove: config.remove.iter().enumerate().map(removed).collect::<Result<_, _>>()?,
            set: pairs(&config.set, "set")?,
            add: pairs(&config.add, "add")?,
        })
    }

    /// Says nothing but that a version is going away.
    pub(crate) fn of_deprecation(deprecation: &Deprecation, key: &str) -> Result<Self, Invalid> {
        let mut said = Self::default();
        said.deprecate(deprecation, key)?;
        Ok(said)
    }

    /// Also says that the route is going away.
    pub(super) fn deprecate(&mut self, deprecation: &Deprecation, key: &str) -> Result<(), Invalid> {
        let since = format!("@{}", deprecation.since.as_second());
        self.say("deprecation", &since, key)?;
        if let Some(sunset) = deprecation.sunset {
            if sunset < deprecation.since {
                let problem = "it is gone before it is deprecated";
                return Err(Invalid::new(
                    format!("{key}.sunset"),
                    problem,
                    "a time after `since` (RFC 9745)",
                ));
            }
            self.say("sunset", &http_date(sunset), key)?;
        }
        if let Some(link) = &deprecation.link {
            let value = format!("<{link}>; rel=\"deprecation\"");
            let value = HeaderValue::try_from(value).map_err(|_| {
                Invalid::new(format!("{key}.link"), format!("`{link}` is not a URL"), "a URL")
            })?;
            self.add.push((http::header::LINK, value));
        }
        Ok(())
    }

    fn say(&mut self, name: &'static str, value: &str, key: &str) -> Result<(), Invalid> {
        let value = HeaderValue::try_from(value)
            .map_err(|_| Invalid::new(key, format!("`{value}` is not a time"), "a time with its zone"))?;
        self.set.push((HeaderName::from_static(name), value));
        Ok(())
    }

    /// Changes the headers.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            crate::stages::headers::remove_with_lookalikes(headers, name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn value(header: &Header, key: &str) -> Result<HeaderValue, Invalid> {
    const EXPECTED: &str = "visible characters and spaces";
    let Some(file) = &header.value_file else {
        return HeaderValue::try_from(&header.value).map_err(|_| {
            let problem = format!("`{}` cannot stand in a header", header.value);
            Invalid::new(format!("{key}.value"), problem, EXPECTED)
        });
    };
    let key = format!("{key}.value_file");
    if !header.value.is_empty() {
        return Err(Invalid::new(key, "there is a `value` too", "either `value` or `value_file`"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| {
        Invalid::new(&key, format!("{} cannot be read: {error}", file.display()), "a file with one line")
    })?;
    // What is in the file is a secret: no error shows it.
    let mut value = HeaderValue::try_from(text.trim_end())
        .map_err(|_| Invalid::new(key, "what is in the file cannot stand in a header", EXPECTED))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Framing and addressing belong to the proxy; the host has a key of its own.
fn name(text: &str, key: &str) -> Result<HeaderName, Invalid> {
    let name = HeaderName::try_from(text).map_err(|_| {
        Invalid::new(key, format!("`{text}` is not the name of a header"), "a name such as x-team")
    })?;
    if matches!(name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING | CONNECTION | UPGRADE | TE) {
        let problem = format!("`{name}` frames or addresses the request");
        return Err(Invalid::new(key, problem, "another header; for the host, `url_rewrite.hostname`"));
    }
    Ok(name)
}

/// As HTTP writes dates: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Another path, compiled.
#[derive(Debug)]
struct Path {
    kind: PathModifierType,
    /// For a prefix, without its last slash.
    value: String,
}

impl Path {
    fn compile(config: Option<&PathModifier>, key: &str) -> Result<Option<Self>, Invalid> {
        let Some(config) = config else { return Ok(None) };
        let good = config.value.starts_with('/') && !config.value.contains(['?', '#']);
        if !good || PathAndQuery::try_from(config.value.as_str()).is_err() {
            return Err(Invalid::new(
                format!("{key}.value"),
                format!("`{}` is not a path", config.value),
                "a path such as /v2, without a query",
            ));
        }
        let value = match config.kind {
            PathModifierType::ReplaceFullPath => config.value.clone(),
            PathModifierType::ReplacePrefixMatch => config.value.trim_end_matches('/').to_owned(),
        };
        Ok(Some(Self { kind: config.kind, value }))
    }

    /// Path and query, where `matched` is the prefix of the route's match.
    fn apply(&self, uri: &Uri, matched: &str) -> String {
        let mut path = self.value.clone();
        if self.kind == PathModifierType::ReplacePrefixMatch {
            path.push_str(uri.path().get(matched.trim_end_matches('/').len()..).unwrap_or_default());
        }
        if path.is_empty() {
            path.push('/');
        }
        if let Some(query) = uri.query() {
            path.push('?');
            path.push_str(query);
        }
        path
    }
}

/// What the upstream is asked for instead.
#[derive(Debug)]
pub struct Rewrite {
    host: Option<Authority>,
    path: Option<Path>,
}

impl Rewrite {
    pub(super) fn compile(config: &UrlRewrite, key: &str) -> Result<Self, Invalid> {
        let host = config.hostname.as_deref().map(|host| authority(host, None, &format!("{key}.hostname")));
        let path = Path::compile(config.path.as_ref(), &format!("{key}.path"))?;
        Ok(Self { host: host.transpose()?, path })
    }

    /// The host to ask for, if it is another one.
    pub fn host(&self) -> Option<&Authority> {
        self.host.as_ref()
    }

    /// The path to ask for, if it is another one.
    pub fn path(&self, uri: &Uri, matched: &str) -> Option<Uri> {
        let path = self.path.as_ref()?.apply(uri, matched);
        PathAndQuery::try_from(path).ok().map(Uri::from)
    }
}

/// Where a client is sent.
#[derive(Debug)]
pub struct Redirect {
    /// The status that sends it.
    pub status: StatusCode,
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<Path>,
}

impl Redirect {
    pub(super) fn compile(config: &RequestRedirect, key: &str) -> Result<Self, Invalid> {
        if let Some(host) = &config.hostname {
            authority(host, config.port, &format!("{key}.hostname"))?;
        }
        let status = StatusCode::from_u16(config.status_code)
            .ok()
            .filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
        let status = status.ok_or_else(|| {
            let problem = format!("{} sends nobody anywhere", config.status_code);
            Invalid::new(format!("{key}.status_code"), problem, "301, 302, 303, 307 or 308")
        })?;
        Ok(Self {
            status,
            scheme: config.scheme,
            host: config.hostname.clone(),
            port: config.port,
            path: Path::compile(config.path.as_ref(), &format!("{key}.path"))?,
        })
    }

    /// The URL for a request that came to `host` by `scheme`.
    pub fn location(&self, scheme: &str, host: &Authority, uri: &Uri, matched: &str) -> String {
        let stays = self.scheme.is_none() && self.host.is_none();
        let port = self.port.or_else(|| host.port_u16().filter(|_| stays));
        let scheme = match self.scheme {
            Some(Scheme::Http) => "http",
            Some(Scheme::Https) => "https",
            None => scheme,
        };
        let name = self.host.as_deref().unwrap_or_else(|| host.host());
        let mut location = format!("{scheme}://{name}");
        let usual = if scheme == "https" { 443 } else { 80 };
        if let Some(port) = port.filter(|port| *port != usual) {
            location.push_str(&format!(":{port}"));
        }
        match &self.path {
            Some(path) => location.push_str(&path.apply(uri, matched)),
            None => location.push_str(uri.path_and_query().map_or("/", |target| target.as_str())),
        }
        location
    }
}

fn authority(host: &str, port: Option<u16>, key: &str) -> Result<Authority, Invalid> {
    let text = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Authority::try_from(text.as_str())
        .ok()
        .filter(|authority| !host.contains('@') && !authority.host().is_empty())
        .ok_or_else(|| Invalid::new(key, format!("`{host}` is not a host"), "a name such as api.example.org"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(kind: PathModifierType, value: &str) -> Option<PathModifier> {
        Some(PathModifier { kind, value: value.to_owned() })
    }

    #[test]
    fn paths_are_replaced() {
        use PathModifierType::{ReplaceFullPath, ReplacePrefixMatch};
        for (kind, value, matched, uri, expected) in [
            (ReplaceFullPath, "/x", "/a", "/a/b?c=d", "/x?c=d"),
            (ReplacePrefixMatch, "/x", "/a", "/a/b?c=d", "/x/b?c=d"),
            (ReplacePrefixMatch, "/x/", "/a/", "/a/b", "/x/b"),
            (ReplacePrefixMatch, "/", "/a", "/a/b", "/b"),
            (ReplacePrefixMatch, "/", "/a", "/a", "/"),
            (ReplacePrefixMatch, "/x", "/", "/a", "/x/a"),
            (ReplacePrefixMatch, "/x", "/a", "/a", "/x"),
        ] {
            let config = UrlRewrite { hostname: None, path: path(kind, value) };
            let rewrite = Rewrite::compile(&config, "k").unwrap();
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(rewrite.path(&uri, matched).unwrap(), expected, "{kind:?} {value} {matched} {uri}");
        }
    }

    #[test]
    fn locations() {
        let redirect = |scheme, hostname: Option<&str>, port, path| RequestRedirect {
            scheme,
            hostname: hostname.map(str::to_owned),
            port,
            path,
            status_code: 301,
        };
        for (config, expected) in [
            (redirect(None, None, None, None), "http://h:8080/a/b?c"),
            (redirect(Some(Scheme::Https), None, None, None), "https://h/a/b?c"),
            (redirect(Some(Scheme::Https), None, Some(8443), None), "https://h:8443/a/b?c"),
            (redirect(None, Some("other"), Some(80), None), "http://other/a/b?c"),
            (
                redirect(None, Some("other"), None, path(PathModifierType::ReplacePrefixMatch, "/z")),
                "http://other/z/b?c",
            ),
        ] {
            let redirect = Redirect::compile(&config, "k").unwrap();
            let host = Authority::from_static("h:8080");
            assert_eq!(redirect.location("http", &host, &"/a/b?c".parse().unwrap(), "/a"), expected);
        }
    }

    #[test]
    fn what_cannot_be_done_names_its_key() {
        let header = |name: &str| HeaderModifier { remove: vec![name.into()], ..HeaderModifier::default() };
        assert_eq!(Modifier::compile(&header("a b"), "k").unwrap_err().key, "k.remove[0]");
        assert_eq!(Modifier::compile(&header("Host"), "k").unwrap_err().key, "k.remove[0]");
        let rewrite = UrlRewrite { hostname: Some("a/b".into()), path: None };
        assert_eq!(Rewrite::compile(&rewrite, "k").unwrap_err().key, "k.hostname");
        let rewrite = UrlRewrite { hostname: None, path: path(PathModifierType::ReplaceFullPath, "x") };
        assert_eq!(Rewrite::compile(&rewrite, "k").unwrap_err().key, "k.path.value");
    }

    #[test]
    fn what_is_going_away_says_so() {
        let deprecation = Deprecation {
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            sunset: Some("2027-06-30T12:00:00Z".parse().unwrap()),
            link: Some("https://docs.example/v2".into()),
        };
        let mut modifier = Modifier::default();
        modifier.deprecate(&deprecation, "k").unwrap();
        let mut headers = HeaderMap::new();
        modifier.apply(&mut headers);
        assert_eq!(headers["deprecation"], "@1767225600");
        assert_eq!(headers["sunset"], "Wed, 30 Jun 2027 12:00:00 GMT");
        assert_eq!(headers["link"], "<https://docs.example/v2>; rel=\"deprecation\"");
    }
}
