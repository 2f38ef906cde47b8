//! What keeps a request's choices the same from one to the next: a value it carries, as a number. Pure.
//!
//! The number depends on the value alone, so that all proxies of a fleet, and the same proxy tomorrow, choose alike.

use http::HeaderName;
use tollgate_runtime::config::Invalid;

use super::descriptor::Facts;
use super::matcher::{cookie, query_param};
use crate::config;

/// Which value of a request decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    QueryParam(String),
    /// The verified token's subject and issuer.
    Subject,
    /// Where the request came from.
    ClientAddress,
}

impl Key {
    pub(crate) fn compile(config: &config::Key, key: &str) -> Result<Self, Invalid> {
        Ok(match config {
            config::Key::Header(name) => Self::Header(HeaderName::try_from(name).map_err(|_| {
                Invalid::new(key, format!("`{name}` is not the name of a header"), "a name such as x-tenant")
            })?),
            config::Key::Cookie(name) => Self::Cookie(name.clone()),
            config::Key::QueryParam(name) => Self::QueryParam(name.clone()),
            config::Key::Subject => Self::Subject,
            config::Key::ClientAddress => Self::ClientAddress,
        })
    }

    /// The request's number; none when it lacks the value. Different salts give unrelated numbers.
    pub fn number(&self, facts: &Facts<'_>, salt: &str) -> Option<u64> {
        let mut hash = Hash::new(salt);
        match self {
            Self::Header(name) => hash.add(facts.headers.get(name)?.as_bytes()),
            Self::Cookie(name) => hash.add(cookie(facts.headers, name)?.as_bytes()),
            Self::QueryParam(name) => hash.add(query_param(facts.query?, name)?.as_bytes()),
            Self::Subject => {
                hash.add(facts.issuer.unwrap_or_default().as_bytes());
                hash.add(facts.subject?.as_bytes());
            }
            Self::ClientAddress => match facts.client.to_canonical() {
                std::net::IpAddr::V4(address) => hash.add(&address.octets()),
                std::net::IpAddr::V6(address) => hash.add(&address.octets()),
            },
        }
        Some(hash.finish())
    }
}

/// FNV-1a, its bits mixed at the end. Not for anything that an attacker should not be able to work out.
#[derive(Debug)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new(salt: &str) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.add(salt.as_bytes());
        hash
    }

    /// Adds a part, and where it ends.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn finish(self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_salted() {
        let number = |salt: &str, value: u32| {
            let mut hash = Hash::new(salt);
            hash.add(value.to_string().as_bytes());
            hash.finish()
        };
        let low = (0..10_000).filter(|value| number("a", *value) < u64::MAX / 10).count();
        assert!((900..1100).contains(&low), "{low}");
        let both = (0..10_000).filter(|v| number("a", *v) < u64::MAX / 10 && number("b", *v) < u64::MAX / 10);
        assert!(both.count() < 150);
        assert_eq!(number("a", 7), number("a", 7));
    }
}
