//! From the shape of a limits file to a tree of checked rules.
//!
//! Everything the reference refuses is refused, and a little more where it would fall silent: a
//! limit without `requests_per_unit` (the reference takes it for 0 and refuses every request).

use std::num::NonZeroU32;
use std::sync::Arc;

use tollgate_runtime::config::Invalid;

use super::file::{AlgorithmName, CandidateNode, DescriptorNode, LimitFile, RateLimitNode};
use super::matching::{Domain, Level, Node, Wanted};
use super::rule::{Algorithm, Allowance, Enforced, Limit, Mode, Rule, Source};
use crate::window::{Unit, Window};

/// Entries one descriptor of a limits file may be deep; also what a request's may be long.
pub const MAX_DEPTH: usize = 32;
/// Limits one entry may have.
const MAX_LIMITS: usize = 8;

/// Checks a file and builds its domain; `source_of` tells where a key stands.
pub fn compile(file: &LimitFile, source_of: &dyn Fn(&str) -> Source) -> Result<Domain, Invalid> {
    let name = file.domain.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(flaw("domain", "is missing or empty", "name the domain that callers send"));
    }
    let mut compiler = Compiler { source_of, rules: Vec::new() };
    let root = compiler.level(file.descriptors.as_deref(), &Place::root(name))?;
    Ok(Domain::new(name.into(), compiler.rules, root))
}

struct Compiler<'a> {
    source_of: &'a dyn Fn(&str) -> Source,
    rules: Vec<Arc<Rule>>,
}

/// Where in the file, and in the tree, the compiler is.
struct Place {
    key: String,
    path: String,
    shared: Vec<Option<Box<str>>>,
}

impl Place {
    fn root(domain: &str) -> Self {
        Self { key: String::new(), path: domain.to_owned(), shared: Vec::new() }
    }

    fn child(&self, index: usize, key: &str, value: &str, share: bool) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        let underscore = if value.is_empty() { "" } else { "_" };
        let mut shared = self.shared.clone();
        shared.push(share.then(|| value.into()));
        Self {
            key: format!("{}{dot}descriptors[{index}]", self.key),
            path: format!("{}.{key}{underscore}{value}", self.path),
            shared,
        }
    }

    fn flaw(&self, key: &str, problem: impl Into<String>, remedy: &'static str) -> Invalid {
        flaw(format!("{}.{key}", self.key), problem, remedy)
    }
}

fn flaw(key: impl Into<String>, problem: impl Into<String>, remedy: &'static str) -> Invalid {
    Invalid::new(key, problem, remedy)
}

impl Compiler<'_> {
    fn level(&mut self, nodes: Option<&[DescriptorNode]>, parent: &Place) -> Result<Level, Invalid> {
        let mut level = Level::default();
        for (index, node) in nodes.unwrap_or_default().iter().enumerate() {
            let key = node.key.as_deref().unwrap_or_default();
            let value = node.value.as_deref().unwrap_or_default();
            let place = parent.child(index, key, value, node.share_threshold);
            check_entry(node, key, value, &place)?;

            let rules = self.rules_of(node, &place)?;
            let next = self.level(node.descriptors.as_deref(), &place)?;
            if !level.insert(key, wanted(value), Node { rules, next }) {
                let problem = format!("is a second entry for the composite key '{}'", place.path);
                return Err(flaw(place.key, problem, "merge the two entries"));
            }
        }
        Ok(level)
    }

    /// The limits of one entry, each with its candidate behind it.
    fn rules_of(&mut self, node: &DescriptorNode, place: &Place) -> Result<Vec<Arc<Rule>>, Invalid> {
        let limits: Vec<(String, &RateLimitNode)> = match (&node.rate_limit, &node.rate_limits) {
            (Some(_), Some(_)) => {
                let problem = "stands beside `rate_limit`";
                return Err(place.flaw("rate_limits", problem, "put all of them into `rate_limits`"));
            }
            (Some(limit), None) => vec![("rate_limit".to_owned(), limit)],
            (None, several) => several
                .iter()
                .flatten()
                .enumerate()
                .map(|(index, limit)| (format!("rate_limits[{index}]"), limit))
                .collect(),
        };
        if limits.len() > MAX_LIMITS {
            let problem = format!("has {} limits", limits.len());
            return Err(place.flaw("rate_limits", problem, "8 at most"));
        }
        let mut rules = Vec::new();
        for (key, limit) in &limits {
            let at = At { place, key };
            let rule = self.rule(node, limit, &at)?;
            if limits.len() > 1 && rule.allowance == Allowance::Unlimited {
                return Err(at.flaw("unlimited", "stands beside other limits", "leave the others out"));
            }
            self.add(rule.clone(), &mut rules, &at)?;
            if let Some(candidate) = &limit.candidate {
                let tried = At { place, key: &format!("{key}.candidate") };
                let allowance = self.candidate(limit, candidate, &tried)?;
                let replaces = Box::default();
                let tried_rule = Rule { allowance, mode: Mode::Candidate, replaces, ..rule };
                self.add(tried_rule, &mut rules, &tried)?;
            }
        }
        Ok(rules)
    }

    /// Two limits of one entry must not share a counter.
    fn add(&mut self, mut rule: Rule, rules: &mut Vec<Arc<Rule>>, at: &At<'_>) -> Result<(), Invalid> {
        if rules.iter().any(|other| other.shares_counter(&rule)) {
            let problem = "has the window and algorithm of another limit on this key";
            return Err(at.flaw("unit", problem, "one limit for each window and algorithm"));
        }
        rule.index = self.rules.len();
        let rule = Arc::new(rule);
        self.rules.push(Arc::clone(&rule));
        rules.push(rule);
        Ok(())
    }

    fn rule(&self, node: &DescriptorNode, limit: &RateLimitNode, at: &At<'_>) -> Result<Rule, Invalid> {
        let mode = match (node.shadow_mode, node.quota_mode) {
            (true, _) => Mode::Shadow,
            (false, true) => Mode::Quota,
            (false, false) => Mode::Enforce,
        };
        let place = at.place;
        // A limit of several has a line of its own; a single one is known by its entry.
        let line_of = if at.key == "rate_limit" { "key" } else { at.key };
        Ok(Rule {
            path: place.path.as_str().into(),
            given_name: limit.name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            index: 0,
            allowance: allowance(limit, at)?,
            replaces: replaces(limit, at)?,
            mode,
            enforced: limit.enforcement.unwrap_or_default(),
            burst: limit.burst.or(limit.requests_per_unit).unwrap_or_default(),
            shared: if place.shared.iter().any(Option::is_some) {
                place.shared.clone().into()
            } else {
                Box::default()
            },
            source: (self.source_of)(&format!("{}.{line_of}", place.key)),
        })
    }

    fn candidate(
        &self,
        beside: &RateLimitNode,
        candidate: &CandidateNode,
        at: &At<'_>,
    ) -> Result<Allowance, Invalid> {
        if beside.unlimited {
            return Err(at.flaw("requests_per_unit", "tries a limit beside `unlimited`", "leave one out"));
        }
        let tried = RateLimitNode {
            requests_per_unit: candidate.requests_per_unit,
            unit: candidate.unit.clone().or_else(|| beside.unit.clone()),
            unit_multiplier: candidate.unit_multiplier,
            unlimited: false,
            name: None,
            replaces: None,
            algorithm: candidate.algorithm.or(beside.algorithm),
            burst: candidate.burst,
            enforcement: None,
            candidate: None,
        };
        allowance(&tried, at)
    }
}

/// A limit below an entry of the file.
struct At<'a> {
    place: &'a Place,
    key: &'a str,
}

impl At<'_> {
    fn flaw(&self, key: &str, problem: impl Into<String>, remedy: &'static str) -> Invalid {
        self.place.flaw(&format!("{}.{key}", self.key), problem, remedy)
    }
}

fn wanted(value: &str) -> Wanted<'_> {
    match value.strip_suffix('*') {
        Some(prefix) => Wanted::Prefix(prefix),
        None if value.is_empty() => Wanted::Anything,
        None => Wanted::Exactly(value),
    }
}

fn check_entry(node: &DescriptorNode, key: &str, value: &str, place: &Place) -> Result<(), Invalid> {
    if key.is_empty() {
        return Err(place.flaw("key", "is missing or empty", "name the descriptor entry's key"));
    }
    if key.ends_with('*') {
        return Err(place.flaw("key", "ends in '*'", "put the wildcard into `value`"));
    }
    if node.share_threshold && !value.ends_with('*') {
        let problem = "needs a value that ends in '*'";
        return Err(place.flaw(
            "share_threshold",
            problem,
            "give `value` a wildcard, or leave share_threshold out",
        ));
    }
    if place.shared.len() > MAX_DEPTH {
        let problem = format!("is more than {MAX_DEPTH} entries deep");
        return Err(flaw(place.key.clone(), problem, "use fewer levels"));
    }
    Ok(())
}

fn allowance(limit: &RateLimitNode, at: &At<'_>) -> Result<Allowance, Invalid> {
    let unit_name = limit.unit.as_deref().unwrap_or_default();
    if limit.unlimited {
        if !unit_name.is_empty() {
            return Err(at.flaw(
                "unit",
                "stands beside `unlimited: true`",
                "leave out the unit, or `unlimited`",
            ));
        }
        return Ok(Allowance::Unlimited);
    }
    let Some(unit) = Unit::from_name(unit_name) else {
        let problem = if unit_name.is_empty() {
            "is missing".to_owned()
        } else {
            format!("'{unit_name}' is not a unit of time")
        };
        return Err(at.flaw("unit", problem, "second, minute, hour, day, week, month or year"));
    };
    let Some(requests) = limit.requests_per_unit else {
        return Err(at.flaw("requests_per_unit", "is missing", "say how many; 0 refuses every request"));
    };
    let Some(multiplier) = NonZeroU32::new(limit.unit_multiplier.unwrap_or(1)) else {
        return Err(at.flaw("unit_multiplier", "is 0", "1 or more, or leave it out"));
    };
    let Some(window) = Window::of_several(multiplier, unit) else {
        let problem = "makes a window of more than 136 years";
        return Err(at.flaw("unit_multiplier", problem, "a smaller number, or `unlimited`"));
    };
    Ok(Allowance::Limited(Limit { requests, window, algorithm: algorithm(limit, requests, at)? }))
}

fn algorithm(limit: &RateLimitNode, requests: u32, at: &At<'_>) -> Result<Algorithm, Invalid> {
    let name = limit.algorithm.unwrap_or(AlgorithmName::FixedWindow);
    let divided = limit.enforcement == Some(Enforced::Quota);
    match (name, limit.burst) {
        (AlgorithmName::TokenBucket, Some(0)) => {
            Err(at.flaw("burst", "is 0, which refuses every request", "1 or more, or leave it out"))
        }
        (AlgorithmName::TokenBucket, burst) => {
            Ok(Algorithm::TokenBucket { burst: burst.unwrap_or(requests) })
        }
        (_, Some(_)) if !divided => {
            let problem = "means something for a bucket only";
            Err(at.flaw("burst", problem, "`algorithm: token_bucket`, or no burst"))
        }
        (AlgorithmName::FixedWindow, _) => Ok(Algorithm::FixedWindow),
        (AlgorithmName::SlidingWindow, _) => Ok(Algorithm::SlidingWindow),
    }
}

fn replaces(limit: &RateLimitNode, at: &At<'_>) -> Result<Box<[Box<str>]>, Invalid> {
    let mut names = Vec::new();
    for (index, replaced) in limit.replaces.iter().flatten().enumerate() {
        let key = format!("replaces[{index}]");
        let name = replaced.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(at.flaw(&key, "has no name", "name the rule to replace"));
        }
        if limit.name.as_deref() == Some(name) {
            return Err(at.flaw(&key, "names the rule itself", "name another rule"));
        }
        names.push(name.into());
    }
    Ok(names.into())
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
