//! What we believe about a request: its host, its path in normal form, where it came from.
//!
//! Whatever can be read in two ways is refused here, before anything is decided about it.

use std::net::SocketAddr;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Uri, Version, request};
use tollgate_paths::{Level, normalize};

use crate::config::{Role, Trusted};
use crate::error::ProxyError;
use crate::stages::client::{self, Client};

/// The host that a request asks for.
#[derive(Debug)]
pub(crate) struct Host {
    authority: Authority,
    lower: Option<String>,
}

impl Host {
    fn new(authority: Authority) -> Self {
        let host = authority.host();
        let lower = host.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| host.to_ascii_lowercase());
        Self { authority, lower }
    }

    /// The host in lower case, without its port.
    pub(crate) fn name(&self) -> &str {
        self.lower.as_deref().unwrap_or_else(|| self.authority.host())
    }

    /// Host and port as they came.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// Checks host and path; afterwards `parts.uri` is the path in normal form, with the query, and nothing else.
pub(crate) fn read(parts: &mut request::Parts, level: Level) -> Result<Host, ProxyError> {
    if parts.method == Method::CONNECT {
        return Err(ProxyError::Malformed("CONNECT is not enabled"));
    }
    // Policy reads a method as it stands, and some applications in capitals: `delete` would be no `DELETE` to a denial.
    if parts.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(ProxyError::Malformed("the method is not in capitals"));
    }
    let host = host(parts)?;
    let path = parts.uri.path();
    let normal = normalize(path, level).map_err(ProxyError::Path)?;
    let rewritten = match (&normal, parts.uri.query()) {
        (normal, Some(query)) if *normal != path => Some(format!("{normal}?{query}")),
        (normal, None) if *normal != path => Some(normal.to_string()),
        _ => None,
    };
    let target = match rewritten {
        Some(text) => {
            Some(PathAndQuery::try_from(text).map_err(|_| ProxyError::Malformed("path is not a URI"))?)
        }
        None if parts.uri.authority().is_some() => parts.uri.path_and_query().cloned(),
        None => None,
    };
    if let Some(target) = target {
        parts.uri = Uri::from(target);
    }
    Ok(host)
}

fn host(parts: &request::Parts) -> Result<Host, ProxyError> {
    let mut given = parts.headers.get_all(HOST).iter();
    let header = given.next();
    if given.next().is_some() {
        return Err(ProxyError::Malformed("more than one Host header"));
    }
    if header.is_none() && parts.version < Version::HTTP_2 {
        return Err(ProxyError::Malformed("no Host header"));
    }
    let in_uri = parts.uri.authority();
    let authority = match (in_uri, header) {
        (Some(authority), Some(header))
            if !header.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return Err(ProxyError::Malformed("Host differs from the host of the request target"));
        }
        (Some(authority), _) => authority.clone(),
        (None, Some(header)) => {
            Authority::try_from(header.as_bytes()).map_err(|_| ProxyError::Malformed("Host is not a host"))?
        }
        (None, None) => return Err(ProxyError::Malformed("no host")),
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(ProxyError::Malformed("Host is not a host"));
    }
    Ok(Host::new(authority))
}

/// Where the request came from: at an ingress the connection's other end, or whom trusted proxies have seen; behind one what
/// it said.
pub(crate) fn client(peer: SocketAddr, role: Role, headers: &HeaderMap, trusted: &Trusted) -> Client {
    let told = || headers.get("x-forwarded-for")?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok();
    let address = match role {
        Role::Ingress => return client::find(peer.ip(), headers, trusted),
        Role::Outbound => peer.ip(),
        Role::Sidecar | Role::Egress => told().unwrap_or_else(|| peer.ip()),
    };
    Client { address, scheme: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, hosts: &[&str], version: Version) -> request::Parts {
        let mut request = Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn one_host_and_only_one() {
        for (uri, hosts, version, expected) in [
            ("/", &["a.example"][..], Version::HTTP_11, Some("a.example")),
            ("/", &["A.Example:8080"], Version::HTTP_11, Some("a.example")),
            ("/", &["[::1]:80"], Version::HTTP_11, Some("[::1]")),
            ("http://a.example/", &["a.example"], Version::HTTP_11, Some("a.example")),
            ("http://a.example/", &[], Version::HTTP_2, Some("a.example")),
            ("http://a.example/", &["A.example"], Version::HTTP_2, Some("a.example")),
            ("/", &[], Version::HTTP_11, None),
            ("/", &["a", "a"], Version::HTTP_11, None),
            ("/", &[""], Version::HTTP_11, None),
            ("/", &["a b"], Version::HTTP_11, None),
            ("/", &["user@a"], Version::HTTP_11, None),
            ("http://a.example/", &["b.example"], Version::HTTP_11, None),
            ("http://a.example/", &["b.example"], Version::HTTP_2, None),
            ("http://a.example/", &[], Version::HTTP_11, None),
            ("*", &["a.example"], Version::HTTP_11, None),
        ] {
            let mut parts = parts(uri, hosts, version);
            let host = read(&mut parts, Level::DecodeAndMerge);
            assert_eq!(host.as_ref().ok().map(Host::name), expected, "{uri} {hosts:?} {version:?}");
        }
    }

    #[test]
    fn the_path_is_rewritten_to_its_normal_form() {
        for (uri, expected) in [
            ("/a/b?c=%2F", Some("/a/b?c=%2F")),
            ("/a/../b?c=d", Some("/b?c=d")),
            ("/a%2fb", Some("/a/b")),
            ("http://h/a//b", Some("/a/b")),
            ("http://h", Some("/")),
            ("/a%00", None),
            ("/a%", None),
        ] {
            let mut parts = parts(uri, &["h"], Version::HTTP_11);
            let read = read(&mut parts, Level::DecodeAndMerge).is_ok();
            assert_eq!(read.then(|| parts.uri.to_string()).as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn who_is_believed_about_the_client() {
        let peer = "127.0.0.1:1".parse().unwrap();
        for (role, header, expected) in [
            (Role::Ingress, "192.0.2.1", "127.0.0.1"),
            (Role::Sidecar, "192.0.2.1", "192.0.2.1"),
            (Role::Sidecar, "198.51.100.9, 192.0.2.1", "192.0.2.1"),
            (Role::Sidecar, "nonsense", "127.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", header.parse().unwrap());
            let told = client(peer, role, &headers, &Trusted::default()).address;
            assert_eq!(told.to_string(), expected, "{role:?} {header}");
        }
    }
}
