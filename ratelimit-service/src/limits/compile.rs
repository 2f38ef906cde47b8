//! From the shape of a limits file to a tree of checked rules.
//!
//! Everything the reference refuses is refused, and a little more where it would fall silent: a
//! limit without `requests_per_unit` (the reference takes it for 0 and refuses every request).

use std::num::NonZeroU32;
use std::sync::Arc;

use tollgate_runtime::config::Invalid;

use super::file::{DescriptorNode, LimitFile, RateLimitNode};
use super::matching::{Domain, Level, Node, Wanted};
use super::rule::{Allowance, Limit, Mode, Rule, Source};
use crate::window::{Unit, Window};

/// Entries one descriptor of a limits file may be deep; also what a request's may be long.
pub const MAX_DEPTH: usize = 32;

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

            let rule = node.rate_limit.as_ref().map(|limit| self.rule(node, limit, &place)).transpose()?;
            self.rules.extend(rule.clone());
            let next = self.level(node.descriptors.as_deref(), &place)?;
            if !level.insert(key, wanted(value), Node { rule, next }) {
                let problem = format!("is a second entry for the composite key '{}'", place.path);
                return Err(flaw(place.key, problem, "merge the two entries"));
            }
        }
        Ok(level)
    }

    fn rule(
        &self,
        node: &DescriptorNode,
        limit: &RateLimitNode,
        place: &Place,
    ) -> Result<Arc<Rule>, Invalid> {
        let mode = match (node.shadow_mode, node.quota_mode) {
            (true, _) => Mode::Shadow,
            (false, true) => Mode::Quota,
            (false, false) => Mode::Enforce,
        };
        Ok(Arc::new(Rule {
            path: place.path.as_str().into(),
            given_name: limit.name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            allowance: allowance(limit, place)?,
            replaces: replaces(limit, place)?,
            mode,
            shared: if place.shared.iter().any(Option::is_some) {
                place.shared.clone().into()
            } else {
                Box::default()
            },
            source: (self.source_of)(&format!("{}.key", place.key)),
        }))
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

fn allowance(limit: &RateLimitNode, place: &Place) -> Result<Allowance, Invalid> {
    let unit_name = limit.unit.as_deref().unwrap_or_default();
    if limit.unlimited {
        if !unit_name.is_empty() {
            let problem = "stands beside `unlimited: true`";
            return Err(place.flaw("rate_limit.unit", problem, "leave out the unit, or `unlimited`"));
        }
        return Ok(Allowance::Unlimited);
    }
    let Some(unit) = Unit::from_name(unit_name) else {
        let problem = if unit_name.is_empty() {
            "is missing".to_owned()
        } else {
            format!("'{unit_name}' is not a unit of time")
        };
        return Err(place.flaw("rate_limit.unit", problem, "second, minute, hour, day, week, month or year"));
    };
    let Some(requests) = limit.requests_per_unit else {
        let remedy = "say how many; 0 refuses every request";
        return Err(place.flaw("rate_limit.requests_per_unit", "is missing", remedy));
    };
    let Some(multiplier) = NonZeroU32::new(limit.unit_multiplier.unwrap_or(1)) else {
        let remedy = "1 or more, or leave it out";
        return Err(place.flaw("rate_limit.unit_multiplier", "is 0", remedy));
    };
    let Some(window) = Window::of_several(multiplier, unit) else {
        let problem = "makes a window of more than 136 years";
        return Err(place.flaw("rate_limit.unit_multiplier", problem, "a smaller number, or `unlimited`"));
    };
    Ok(Allowance::Limited(Limit { requests, window }))
}

fn replaces(limit: &RateLimitNode, place: &Place) -> Result<Box<[Box<str>]>, Invalid> {
    let mut names = Vec::new();
    for (index, replaced) in limit.replaces.iter().flatten().enumerate() {
        let key = format!("rate_limit.replaces[{index}]");
        let name = replaced.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(place.flaw(&key, "has no name", "name the rule to replace"));
        }
        if limit.name.as_deref() == Some(name) {
            return Err(place.flaw(&key, "names the rule itself", "name another rule"));
        }
        names.push(name.into());
    }
    Ok(names.into())
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
