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

    /// Adds a domain's rules to the one of that name, if there is one. The error is a composite key both have.
    pub fn merge(&mut self, domain: Domain) -> Result<(), String> {
        match self.domains.get_mut(&domain.name) {
            Some(there) => there.absorb(domain),
            // There is none of that name, so it is not given back.
            None => self.insert(domain).map_err(|double| double.name.into()),
        }
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

    /// The rules that a descriptor of these entries falls under; mostly none or one.
    pub fn find<'e>(&self, entries: impl IntoIterator<Item = (&'e str, &'e str)>) -> &[Arc<Rule>] {
        let mut level = &self.root;
        let mut rules: &[Arc<Rule>] = &[];
        for (key, value) in entries {
            let Some(node) = level.step(key, value) else { return &[] };
            rules = &node.rules;
            level = &node.next;
        }
        rules
    }

    /// As [`Self::find`] for entries without an order, as the buckets of a quota have: the first order in which they
    /// lead to rules, and those rules.
    pub fn find_unordered<'e>(&self, entries: &[Entry<'e>]) -> Option<(Vec<Entry<'e>>, &[Arc<Rule>])> {
        if entries.is_empty() || entries.len() > MAX_UNORDERED {
            return None;
        }
        let mut order = Vec::with_capacity(entries.len());
        let rules = self.root.any_order(entries, &mut order)?;
        Some((order, rules))
    }

    fn absorb(&mut self, other: Self) -> Result<(), String> {
        let offset = self.rules.len();
        // Renumbered whole: a rule's index is its place in the merged list.
        let renumber = |rule: &Arc<Rule>| Arc::new(Rule { index: rule.index + offset, ..(**rule).clone() });
        let renumbered: Vec<_> = other.rules.iter().map(renumber).collect();
        let mut root = other.root;
        root.replace_rules(&renumbered);
        self.root.absorb(root)?;
        self.rules.extend(renumbered);
        Ok(())
    }
}

/// A key and its value.
type Entry<'e> = (&'e str, &'e str);

/// Entries of a descriptor without an order; each order may have to be tried.
pub const MAX_UNORDERED: usize = 8;

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
    pub(super) rules: Vec<Arc<Rule>>,
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

    /// Tries the entries in every order the tree has a way for; no more ways than the tree has nodes of that depth.
    fn any_order<'e>(&self, entries: &[Entry<'e>], order: &mut Vec<Entry<'e>>) -> Option<&[Arc<Rule>]> {
        for entry in entries {
            if order.contains(entry) {
                continue;
            }
            let Some(node) = self.step(entry.0, entry.1) else { continue };
            order.push(*entry);
            if order.len() == entries.len() {
                if !node.rules.is_empty() {
                    return Some(&node.rules);
                }
            } else if let Some(rules) = node.next.any_order(entries, order) {
                return Some(rules);
            }
            order.pop();
        }
        None
    }

    fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.keys.values_mut().flat_map(|choices| {
            let wildcards = choices.wildcards.iter_mut().map(|(_, node)| node);
            choices.exact.values_mut().chain(wildcards).chain(choices.any.as_mut())
        })
    }

    fn replace_rules(&mut self, renumbered: &[Arc<Rule>]) {
        for node in self.nodes_mut() {
            for rule in &mut node.rules {
                *rule = Arc::clone(&renumbered[rule.index]);
            }
            node.next.replace_rules(renumbered);
        }
    }

    fn absorb(&mut self, other: Self) -> Result<(), String> {
        for (key, choices) in other.keys {
            for (value, node) in choices.exact {
                self.add(&key, &value, Wanted::Exactly(&value), node)?;
            }
            for (prefix, node) in choices.wildcards {
                self.add(&key, &format!("{prefix}*"), Wanted::Prefix(&prefix), node)?;
            }
            if let Some(node) = choices.any {
                self.add(&key, "", Wanted::Anything, node)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: &str, value: &str, wanted: Wanted<'_>, node: Node) -> Result<(), String> {
        if self.insert(key, wanted, node) { Ok(()) } else { Err(format!("{key}_{value}")) }
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
