//! A rule: what one place in a limits file allows.

use std::path::Path;
use std::sync::Arc;

use crate::window::Window;

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Windows cut from the epoch, as the reference has; refused requests count.
    FixedWindow,
    /// Never more than the limit in any time as long as the window (see [`crate::sliding`]).
    SlidingWindow,
    /// A burst at once, and the limit's rate after it (see [`crate::bucket`]).
    TokenBucket {
        /// The tokens a bucket holds.
        burst: u32,
    },
}

impl Algorithm {
    /// The word of the limits file.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::TokenBucket { .. } => "token_bucket",
        }
    }
}

/// So many requests in such a window, counted so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests allowed in one window.
    pub requests: u32,
    /// The window they are counted in.
    pub window: Window,
    /// How.
    pub algorithm: Algorithm,
}

impl Limit {
    /// In a fixed window.
    pub fn fixed(requests: u32, window: Window) -> Self {
        Self { requests, window, algorithm: Algorithm::FixedWindow }
    }

    /// Hits that can pass at once.
    pub fn capacity(&self) -> u32 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            _ => self.requests,
        }
    }
}

/// What a rule grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// Nothing is counted.
    Unlimited,
    /// Counted and held to the limit.
    Limited(Limit),
}

/// What passing a limit leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The request is refused.
    Enforce,
    /// The request passes; only metrics tell.
    Shadow,
    /// The request is refused only if all of its rules in this mode are passed.
    Quota,
    /// Tried beside the limit in force: counted, shown to operators, and never part of an answer.
    Candidate,
}

impl Mode {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Quota => "quota",
            Self::Candidate => "candidate",
        }
    }
}

/// Who holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// This service, request by request.
    #[default]
    Exact,
    /// The proxies, by shares of it that this service deals out (RLQS).
    Quota,
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: Arc<Path>,
    /// The line of its descriptor entry.
    pub line: u32,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One `rate_limit` of a limits file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The composite key, such as `insurance.subject` or `shop.plan_free.user`.
    pub path: Box<str>,
    /// The name it was given, which other rules may say they replace.
    pub given_name: Option<Box<str>>,
    /// Its place among the rules of its domain.
    pub index: usize,
    /// What it grants.
    pub allowance: Allowance,
    /// Names of the rules that do not count in a request this one matches.
    pub replaces: Box<[Box<str>]>,
    /// What passing it leads to.
    pub mode: Mode,
    /// Who holds it.
    pub enforced: Enforced,
    /// What may be taken at once of it where it is divided among proxies.
    pub burst: u32,
    /// By depth, the wildcard whose values share one counter (`share_threshold`).
    pub shared: Box<[Option<Box<str>>]>,
    /// Where it stands.
    pub source: Source,
}

impl Rule {
    /// What people know it by: the name it was given, else its composite key.
    pub fn name(&self) -> &str {
        self.given_name.as_deref().unwrap_or(&self.path)
    }

    /// The limit, where there is one.
    pub fn limit(&self) -> Option<&Limit> {
        match &self.allowance {
            Allowance::Limited(limit) => Some(limit),
            Allowance::Unlimited => None,
        }
    }

    /// Whether two rules of one entry would count in the same counter.
    pub fn shares_counter(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (self.limit(), other.limit()) else { return false };
        let same_kind = std::mem::discriminant(&ours.algorithm) == std::mem::discriminant(&theirs.algorithm);
        let tried = |rule: &Self| rule.mode == Mode::Candidate;
        same_kind && ours.window.seconds() == theirs.window.seconds() && tried(self) == tried(other)
    }
}
