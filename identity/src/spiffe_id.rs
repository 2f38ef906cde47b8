//! Names of workloads: `spiffe://trust-domain/path`, by the [SPIFFE ID specification][spec].
//!
//! A name is checked once, when it is made. Whatever the specification forbids is refused rather than mended: two
//! spellings of one identity would be two keys in every table that is indexed by it.
//!
//! [spec]: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name of a trust domain (specification, section 2.1).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest id (specification, section 2.3).
pub const MAX_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    /// Longer than anybody has to accept.
    #[error("is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// Another kind of URI.
    #[error("does not start with `spiffe://` (in lower case)")]
    Scheme,
    /// No trust domain.
    #[error("has no trust domain")]
    NoTrustDomain,
    /// A trust domain longer than a host name may be.
    #[error("has a trust domain longer than {MAX_TRUST_DOMAIN_BYTES} bytes")]
    TrustDomainTooLong,
    /// A byte that no trust domain has, a port and a user among them.
    #[error("has a trust domain with {0:?}; only a-z, 0-9, `.`, `-` and `_` are allowed")]
    TrustDomainByte(char),
    /// Nothing after the trust domain.
    #[error("names a trust domain, not a workload: it has no path")]
    NoPath,
    /// `//`, or a slash at the end.
    #[error("has an empty path segment")]
    EmptySegment,
    /// `.` or `..`
    #[error("has a path segment that is only dots")]
    DotSegment,
    /// A byte that no path has, `%`, `?` and `#` among them.
    #[error("has a path with {0:?}; only letters, digits, `.`, `-` and `_` are allowed")]
    PathByte(char),
    /// A `*` that is not the whole last segment.
    #[error("has a `*` that is not its whole last segment")]
    Wildcard,
}

/// The name of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(name: &str) -> Result<(), IdFault> {
        if name.is_empty() {
            return Err(IdFault::NoTrustDomain);
        }
        if name.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(IdFault::TrustDomainTooLong);
        }
        let wrong = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(*c));
        name.chars().find(wrong).map_or(Ok(()), |c| Err(IdFault::TrustDomainByte(c)))
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Reads `example.org`; also `spiffe://example.org`, as the specification writes it.
impl FromStr for TrustDomain {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        let name = text.strip_prefix(SCHEME).unwrap_or(text);
        Self::check(name)?;
        Ok(Self(name.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    domain: TrustDomain,
}

impl SpiffeId {
    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// What follows the trust domain, with its slash.
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.domain.0.len()..]
    }

    /// Namespace and name of a workload that is named as ours are: `/ns/NAMESPACE/sa/NAME`.
    pub fn workload(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !name.contains('/')).then_some((namespace, name))
    }

    /// The same workload by the name of another trust domain.
    #[must_use]
    pub fn within(&self, domain: &TrustDomain) -> Self {
        Self { text: format!("{SCHEME}{domain}{}", self.path()).into(), domain: domain.clone() }
    }
}

impl FromStr for SpiffeId {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        let (domain, path) = split(text)?;
        if path.is_empty() {
            return Err(IdFault::NoPath);
        }
        path[1..].split('/').try_for_each(check_segment)?;
        Ok(Self { text: text.into(), domain: TrustDomain(domain.into()) })
    }
}

/// The trust domain, and the path with its slash; the path may be empty and is not checked.
fn split(text: &str) -> Result<(&str, &str), IdFault> {
    if text.len() > MAX_ID_BYTES {
        return Err(IdFault::TooLong);
    }
    let rest = text.strip_prefix(SCHEME).ok_or(IdFault::Scheme)?;
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    TrustDomain::check(domain)?;
    Ok((domain, path))
}

fn check_segment(segment: &str) -> Result<(), IdFault> {
    match segment {
        "" => return Err(IdFault::EmptySegment),
        "." | ".." => return Err(IdFault::DotSegment),
        _ => {}
    }
    let wrong = |c: &char| !(c.is_ascii_alphanumeric() || ".-_".contains(*c));
    segment.chars().find(wrong).map_or(Ok(()), |c| Err(IdFault::PathByte(c)))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One workload, or all workloads below a path: `spiffe://domain/ns/shop/*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdPattern {
    /// Exactly this one.
    Exact(SpiffeId),
    /// Every id that starts with this text, which ends in a slash.
    Below(Box<str>),
}

impl IdPattern {
    /// Whether `id` is one of these.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Below(prefix) => id.text.len() > prefix.len() && id.text.starts_with(&**prefix),
        }
    }

    /// As [`Self::matches`], where the trust domain that it names is another name of `domain`.
    pub(crate) fn matches_within(&self, domain: &TrustDomain, id: &SpiffeId) -> bool {
        let (_, wanted) = self.parts();
        id.domain == *domain
            && match self {
                Self::Exact(_) => id.path() == wanted,
                Self::Below(_) => id.path().len() > wanted.len() && id.path().starts_with(wanted),
            }
    }

    /// The trust domain that it names.
    pub(crate) fn trust_domain(&self) -> &str {
        self.parts().0
    }

    /// The trust domain, and the path with its slash.
    fn parts(&self) -> (&str, &str) {
        let text = match self {
            Self::Exact(id) => id.as_str(),
            Self::Below(prefix) => prefix,
        };
        let rest = &text[SCHEME.len()..];
        rest.split_at(rest.find('/').unwrap_or(rest.len()))
    }
}

impl FromStr for IdPattern {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        let Some(above) = text.strip_suffix("/*") else {
            return match text.contains('*') {
                true => Err(IdFault::Wildcard),
                false => text.parse().map(Self::Exact),
            };
        };
        let (_, path) = split(above)?;
        if above.contains('*') {
            return Err(IdFault::Wildcard);
        }
        if !path.is_empty() {
            path[1..].split('/').try_for_each(check_segment)?;
        }
        Ok(Self::Below(format!("{above}/").into()))
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string"})
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let wrong = |fault| serde::de::Error::custom(format!("`{text}` {fault}"));
                text.parse().map_err(wrong)
            }
        }
    )*};
}

as_text!(TrustDomain, SpiffeId, IdPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_specification_allows_is_read() {
        for (text, domain, path) in [
            ("spiffe://example.org/ns/a/sa/b", "example.org", "/ns/a/sa/b"),
            ("spiffe://a_b-1.c/9eebccd2-12bf", "a_b-1.c", "/9eebccd2-12bf"),
            ("spiffe://d/Upper.Case_is-fine/...", "d", "/Upper.Case_is-fine/..."),
            ("spiffe://1.2.3.4/x", "1.2.3.4", "/x"),
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!((id.trust_domain().as_str(), id.path(), id.as_str()), (domain, path, text));
        }
    }

    #[test]
    fn what_it_forbids_is_refused_by_name() {
        let long_domain = format!("spiffe://{}/x", "a".repeat(256));
        let long_id = format!("spiffe://a/{}", "x".repeat(2048));
        for (text, fault) in [
            ("", IdFault::Scheme),
            ("https://a/b", IdFault::Scheme),
            ("SPIFFE://a/b", IdFault::Scheme),
            ("spiffe:/a/b", IdFault::Scheme),
            ("spiffe://", IdFault::NoTrustDomain),
            ("spiffe:///path", IdFault::NoTrustDomain),
            ("spiffe://Example.org/b", IdFault::TrustDomainByte('E')),
            ("spiffe://a:80/b", IdFault::TrustDomainByte(':')),
            ("spiffe://user@a/b", IdFault::TrustDomainByte('@')),
            ("spiffe://a%62/b", IdFault::TrustDomainByte('%')),
            ("spiffe://ä/b", IdFault::TrustDomainByte('ä')),
            ("spiffe://a?q", IdFault::TrustDomainByte('?')),
            ("spiffe://a", IdFault::NoPath),
            ("spiffe://a/", IdFault::EmptySegment),
            ("spiffe://a//b", IdFault::EmptySegment),
            ("spiffe://a/b/", IdFault::EmptySegment),
            ("spiffe://a/./b", IdFault::DotSegment),
            ("spiffe://a/b/..", IdFault::DotSegment),
            ("spiffe://a/b?x=1", IdFault::PathByte('?')),
            ("spiffe://a/b#f", IdFault::PathByte('#')),
            ("spiffe://a/%2e", IdFault::PathByte('%')),
            ("spiffe://a/ü", IdFault::PathByte('ü')),
            ("spiffe://a/b\0", IdFault::PathByte('\0')),
            ("spiffe://a/*", IdFault::PathByte('*')),
            (&long_domain, IdFault::TrustDomainTooLong),
            (&long_id, IdFault::TooLong),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(fault), "{text}");
        }
    }

    #[test]
    fn a_pattern_covers_what_is_below_it_and_no_sibling() {
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let pattern: IdPattern = "spiffe://d/ns/shop/*".parse().unwrap();
        assert!(pattern.matches(&id("spiffe://d/ns/shop/sa/a")));
        for other in ["spiffe://d/ns/shop", "spiffe://d/ns/shop2/sa/a", "spiffe://e/ns/shop/sa/a"] {
            assert!(!pattern.matches(&id(other)), "{other}");
        }
        let whole: IdPattern = "spiffe://d/*".parse().unwrap();
        assert!(whole.matches(&id("spiffe://d/x")) && !whole.matches(&id("spiffe://d.evil/x")));
        for (text, fault) in [
            ("spiffe://d/a*", IdFault::Wildcard),
            ("spiffe://d/*/a", IdFault::Wildcard),
            ("spiffe://d/*/*", IdFault::Wildcard),
            ("spiffe://*/a", IdFault::Wildcard),
            ("spiffe:///*", IdFault::NoTrustDomain),
            ("spiffe://d//*", IdFault::EmptySegment),
        ] {
            assert_eq!(text.parse::<IdPattern>(), Err(fault), "{text}");
        }
        assert_eq!(pattern.to_string(), "spiffe://d/ns/shop/*");
    }

    #[test]
    fn an_id_can_be_said_in_another_trust_domain() {
        let id: SpiffeId = "spiffe://old.example/ns/a".parse().unwrap();
        assert_eq!(id.within(&"new".parse().unwrap()), "spiffe://new/ns/a".parse().unwrap());
    }
}
