//! The rules as trees, one a domain, and the walk that finds a descriptor's rule.
//!
//! At each level an exact value wins over a wildcard, wildcards are tried in the order they stand
//! in the file, and a key without a value comes last. There is no way back: once a level has
//! chosen, the others are not tried. A rule matches only a descriptor that ends where it stands.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::rule::Rule;

/// Every rule of every domain, immutable.
#[derive(Debug, Default)]
pub struct LimitSet {
    domains: FxHashMap<Box<str>, Domain>,
}

impl LimitSet {
    /// The domain of that name.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// The domains, in no order.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }

    /// Whether no limits are loaded at all.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Adds a domain; gives it back if one of that name is there already.
    pub fn insert(&mut self, mut domain: Domain) -> Result<(), Domain> {
        if self.domains.contains_key(&*domain.name) {
            return Err(domain);
        }
        domain.index = self.domains.len();
        self.domains.insert(domain.name.clone(), domain);
        Ok(())
    }
}

/// The rules of one domain.
#[derive(Debug)]
pub struct Domain {
    name: Box<str>,
    index: usize,
    rules: Vec<Arc<Rule>>,
    root: Level,
}

impl Domain {
    pub(super) fn new(name: Box<str>, rules: Vec<Arc<Rule>>, root: Level) -> Self {
        Self { name, index: 0, rules, root }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place among the domains of its set, from 0 without gaps.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its rules in the order of the file.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule that a descriptor of these entries falls under.
    pub fn find<'e>(&self, entries: impl IntoIterator<Item = (&'e str, &'e str)>) -> Option<&Rule> {
        let mut level = &self.root;
        let mut rule = None;
        for (key, value) in entries {
            let node = level.step(key, value)?;
            rule = node.rule.as_deref();
            level = &node.next;
        }
        rule
    }
}

/// What may stand at one depth of a descriptor.
#[derive(Debug, Default)]
pub(super) struct Level {
    keys: FxHashMap<Box<str>, Choices>,
}

/// What follows one key.
#[derive(Debug, Default)]
struct Choices {
    exact: FxHashMap<Box<str>, Node>,
    wildcards: Vec<(Box<str>, Node)>,
    any: Option<Node>,
}

/// One entry of a limits file.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) rule: Option<Arc<Rule>>,
    pub(super) next: Level,
}

/// The value an entry of a limits file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    Exactly(&'a str),
    Prefix(&'a str),
    Anything,
}

impl Level {
    fn step(&self, key: &str, value: &str) -> Option<&Node> {
        let choices = self.keys.get(key)?;
        choices
            .exact
            .get(value)
            .or_else(|| {
                choices.wildcards.iter().find(|(prefix, _)| value.starts_with(&**prefix)).map(|(_, n)| n)
            })
            .or(choices.any.as_ref())
    }

    /// Adds an entry; false if there is one like it.
    pub(super) fn insert(&mut self, key: &str, wanted: Wanted<'_>, node: Node) -> bool {
        let choices = self.keys.entry(key.into()).or_default();
        match wanted {
            Wanted::Exactly(value) if !choices.exact.contains_key(value) => {
                choices.exact.insert(value.into(), node);
            }
            Wanted::Prefix(prefix) if choices.wildcards.iter().all(|(other, _)| **other != *prefix) => {
                choices.wildcards.push((prefix.into(), node));
            }
            Wanted::Anything if choices.any.is_none() => choices.any = Some(node),
            _ => return false,
        }
        true
    }
}
