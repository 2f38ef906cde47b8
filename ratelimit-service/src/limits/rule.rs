//! A rule: what one place in a limits file allows.

use std::path::Path;
use std::sync::Arc;

use crate::window::Window;

/// So many requests in such a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests allowed in one window.
    pub requests: u32,
    /// The window they are counted in.
    pub window: Window,
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
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: Arc<Path>,
    /// The line of its descriptor entry.
    pub line: u32,
}

/// One `rate_limit` of a limits file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The composite key, such as `insurance.subject` or `shop.plan_free.user`.
    pub path: Box<str>,
    /// The name it was given, which other rules may say they replace.
    pub given_name: Option<Box<str>>,
    /// What it grants.
    pub allowance: Allowance,
    /// Names of the rules that do not count in a request this one matches.
    pub replaces: Box<[Box<str>]>,
    /// What passing it leads to.
    pub mode: Mode,
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
}
