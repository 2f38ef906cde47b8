//! Who holds a role, who is denied something, and what was revoked.

use std::sync::Arc;

use super::Selector;
use crate::policy::condition::Condition;
use crate::token::VerifiedToken;

/// Who holds a role.
#[derive(Debug, PartialEq)]
pub struct Binding {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Key of the role.
    pub role: Arc<str>,
    /// Who.
    pub who: Who,
    /// When it grants.
    pub period: Period,
    /// What must hold beside.
    pub when: Option<Box<Condition>>,
    /// Whether what it would grant is only recorded.
    pub dry_run: bool,
}

/// Who may not do something, whatever is granted.
#[derive(Debug, PartialEq)]
pub struct Denial {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Whom.
    pub who: Who,
    /// What.
    pub selector: Selector,
    /// When it denies.
    pub period: Period,
    /// What must hold beside.
    pub when: Option<Box<Condition>>,
    /// Whether what it would deny is only recorded.
    pub dry_run: bool,
}

/// What was issued once and is good no more.
#[derive(Debug, PartialEq)]
pub struct Revocation {
    /// Its name.
    pub name: Arc<str>,
    /// What.
    pub what: Revoked,
    /// Only tokens issued before this moment, in Unix seconds.
    pub issued_before: Option<i64>,
    /// Unix seconds from which on it counts no more.
    pub until: i64,
}

/// What a revocation is about; issuers by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// One token.
    Token {
        /// Who issued it.
        issuer: Arc<str>,
        /// Its `jti`.
        id: Box<str>,
    },
    /// All tokens of a subject.
    Subject {
        /// Who issued them.
        issuer: Arc<str>,
        /// The subject.
        subject: Box<str>,
    },
    /// All tokens of a client.
    Client {
        /// Who issued them.
        issuer: Arc<str>,
        /// The client.
        client: Box<str>,
    },
    /// All tokens signed with a key.
    Key {
        /// Who issued them.
        issuer: Arc<str>,
        /// The key's id.
        key: Box<str>,
    },
    /// A workload.
    Workload(WorkloadPattern),
    /// A certificate, by its serial number: lower-case hexadecimal digits without leading zeros.
    Certificate(Box<str>),
}

/// From when until when something counts, in Unix seconds; the end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub from: i64,
    /// The first moment after it.
    pub until: i64,
}

impl Period {
    /// Without beginning and end.
    pub const ALWAYS: Self = Self { from: i64::MIN, until: i64::MAX };

    /// Whether `now` lies in it.
    pub const fn contains(self, now: i64) -> bool {
        self.from <= now && now < self.until
    }
}

/// A conjunction; what is `None` is not asked.
#[derive(Debug, Default, PartialEq)]
pub struct Who {
    /// The issuer's name.
    pub issuer: Option<Arc<str>>,
    /// The token's subject.
    pub subject: Option<Box<str>>,
    /// One of the token's groups.
    pub group: Option<Box<str>>,
    /// The token's client.
    pub client: Option<Box<str>>,
    /// The peer.
    pub workload: Option<WorkloadPattern>,
    /// Any accepted token.
    pub authenticated: bool,
}

impl Who {
    /// Whether all that is asked of the caller holds.
    pub fn is(&self, token: Option<&VerifiedToken>, peer: Option<&str>) -> bool {
        if self.workload.as_ref().is_some_and(|wanted| !peer.is_some_and(|peer| wanted.matches(peer))) {
            return false;
        }
        if !self.authenticated {
            return true;
        }
        let Some(token) = token else { return false };
        let says = |wanted: &Option<Box<str>>, said: &mut dyn FnMut(&str) -> bool| {
            wanted.as_deref().is_none_or(said)
        };
        self.issuer.as_ref().is_none_or(|issuer| *issuer == token.issuer)
            && says(&self.subject, &mut |subject| token.subject == subject)
            && says(&self.client, &mut |client| token.client_id.as_deref() == Some(client))
            && says(&self.group, &mut |group| token.groups.iter().any(|has| has == group))
    }
}

/// A SPIFFE id, or all ids below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadPattern {
    /// Exactly this one.
    Exact(Box<str>),
    /// Every id that starts with this text, which ends in a slash.
    Below(Box<str>),
}

impl WorkloadPattern {
    /// Reads `spiffe://domain/path` or `spiffe://domain/path/*`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no SPIFFE id; write spiffe://domain/path or spiffe://domain/path/*");
        let rest = text.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let (domain, path) = rest.split_once('/').ok_or_else(wrong)?;
        if domain.is_empty() || path.is_empty() || text.contains(char::is_whitespace) {
            return Err(wrong());
        }
        match text.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => Ok(Self::Below(prefix.into())),
            None if !text.contains('*') => Ok(Self::Exact(text.into())),
            _ => Err(wrong()),
        }
    }

    /// Whether `id` is one of these.
    pub fn matches(&self, id: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *id,
            Self::Below(prefix) => id.len() > prefix.len() && id.starts_with(&**prefix),
        }
    }
}
