//! Where key sets are fetched from.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use url::Url;

use super::address::is_public;

/// Larger answers are refused.
const MAX_BYTES: usize = 256 * 1024;
/// How long an issuer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches key sets and discovery documents.
pub trait KeySource: Send + Sync + 'static {
    /// What is at `url`.
    fn fetch(&self, url: Url) -> BoxFuture<'static, Result<Document, FetchError>>;
}

/// An issuer's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub body: Vec<u8>,
    /// The value of `cache-control`.
    pub cache_control: Option<String>,
    /// The value of `age`.
    pub age: Option<String>,
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address lies where a policy must not make us look.
    #[error("{0} is a private or link-local address; set keys.allow_private_addresses to allow it")]
    PrivateAddress(IpAddr),
    /// No answer.
    #[error("the issuer does not answer")]
    Http(#[source] reqwest::Error),
    /// The wrong answer.
    #[error("the issuer answered with status {0}, where it should be 200 (redirects are not followed)")]
    Status(u16),
    /// An answer that is no JSON.
    #[error("the issuer answered with {0}, where it should be application/json")]
    ContentType(String),
    /// Too much of an answer.
    #[error("the issuer's answer is larger than {MAX_BYTES} bytes")]
    TooLarge,
}

/// Fetches over HTTP, follows no redirect, and looks at no private address unless allowed.
#[derive(Debug, Clone)]
pub struct HttpKeys {
    client: reqwest::Client,
    allow_private: bool,
}

impl HttpKeys {
    /// `allow_private` lets issuers live on this machine or in a private network.
    pub fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve names where our resolver's rule does not hold.
            .no_proxy()
            .dns_resolver(PublicOnly { allow_private })
            .build()?;
        Ok(Self { client, allow_private })
    }
}

impl KeySource for HttpKeys {
    fn fetch(&self, url: Url) -> BoxFuture<'static, Result<Document, FetchError>> {
        let (client, allow_private) = (self.client.clone(), self.allow_private);
        Box::pin(async move {
            // A literal address never reaches the resolver.
            let literal = match url.host() {
                Some(url::Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
                Some(url::Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
                _ => None,
            };
            if let Some(ip) = literal.filter(|ip| !allow_private && !is_public(*ip)) {
                return Err(FetchError::PrivateAddress(ip));
            }
            let answer = client.get(url).send().await.map_err(FetchError::Http)?;
            read(answer).await
        })
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Document, FetchError> {
    if answer.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    let text = |name: HeaderName| {
        answer.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (cache_control, age) = (text(CACHE_CONTROL), text(AGE));
    if let Some(kind) = text(CONTENT_TYPE).filter(|kind| !is_json(kind)) {
        return Err(FetchError::ContentType(kind.chars().take(100).flat_map(char::escape_debug).collect()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(FetchError::Http)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Document { body, cache_control, age })
}

/// `application/json`, `application/jwk-set+json` and their kin. What is fetched stays with us, but a page that is no
/// JSON is never looked into either.
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(&*kind, "application/json" | "text/json")
        || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Resolves names to public addresses only, so that no name can lead us inside. The client connects to the very
/// addresses that were looked at, so a name cannot change its mind in between.
#[derive(Debug)]
struct PublicOnly {
    allow_private: bool,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(address) = found.iter().find(|address| !allow_private && !is_public(address.ip())) {
                return Err(FetchError::PrivateAddress(address.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_looked_into() {
        for (kind, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jwk-set+json", true),
            ("text/html", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind), json, "{kind}");
        }
    }
}
