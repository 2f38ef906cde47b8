//! Where key sets are fetched from.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

/// Larger answers are refused.
const MAX_BYTES: usize = 256 * 1024;
/// How long an issuer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches key sets.
pub trait KeySource: Send + Sync + 'static {
    /// The body at `url`.
    fn fetch(&self, url: Url) -> BoxFuture<'static, Result<Vec<u8>, FetchError>>;
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
    #[error("the issuer answered with status {0}")]
    Status(u16),
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
    fn fetch(&self, url: Url) -> BoxFuture<'static, Result<Vec<u8>, FetchError>> {
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
            let mut answer = client.get(url).send().await.map_err(FetchError::Http)?;
            if answer.status() != reqwest::StatusCode::OK {
                return Err(FetchError::Status(answer.status().as_u16()));
            }
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(FetchError::Http)? {
                if body.len() + chunk.len() > MAX_BYTES {
                    return Err(FetchError::TooLarge);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        })
    }
}

/// Resolves names to public addresses only, so that no name can lead us inside.
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

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let inside = ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared;
            let no_host = ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast();
            !inside && !no_host
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_public(IpAddr::V4(mapped)),
            None => {
                let inside = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local();
                let no_host = ip.is_unspecified() || ip.is_multicast();
                !inside && !no_host
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_addresses_are_known_as_such() {
        for (ip, public) in [
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("::ffff:10.0.0.1", false),
            ("2001:4860:4860::8888", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }
}
