//! What is odd about a policy that is not wrong: rules that do nothing, rules that do more than they seem to. Pure.
//!
//! `check` refuses what cannot mean anything. This looks for what means something else than its author can have
//! wanted. Every finding says what to do about it.
//!
//! * error: it surely does not do what it says.
//! * warning: it does something that few would want, or nothing at all.
//! * note: it does what it says, and somebody should know.

mod bindings;
mod denials;
mod permissions;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::object::{Document, Kind, ObjectId, PolicySet};
use super::roles::{Roles, bindings};
use super::spec::{BindingSpec, IssuerSpec, ServiceSpec};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Few would want this.
    Warning,
    /// It surely does not do what it says.
    Error,
}

impl Severity {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// A word for programs.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// The object.
    pub object: ObjectId,
    /// The key within it, as in `permissions[0].paths[1]`.
    pub key: String,
    /// What is odd.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Looks a policy over; `now` is in Unix seconds. The findings stand in the order of their objects.
pub fn lint(set: &PolicySet, now: i64) -> Vec<Finding> {
    let mut linter = Linter { policy: Policy::of(set), now, findings: Vec::new() };
    for (id, document) in set {
        match document {
            Document::Issuer(spec) => services::issuer(&mut linter, id, spec),
            Document::Service(spec) => services::service(&mut linter, id, spec),
            Document::Role(spec) => permissions::role(&mut linter, id, spec),
            Document::Binding(spec) => bindings::binding(&mut linter, id, spec),
            _ => denials::other(&mut linter, id, document),
        }
    }
    linter.findings
}

/// A policy, easy to ask.
struct Policy<'p> {
    set: &'p PolicySet,
    roles: Roles<'p>,
    services: BTreeMap<(&'p str, &'p str), &'p ServiceSpec>,
    issuers: Vec<&'p IssuerSpec>,
    /// Issuers that some service accepts.
    accepted: BTreeSet<&'p str>,
    /// Roles that somebody holds, by another role too.
    held: BTreeSet<(&'p str, &'p str)>,
    /// Services that some permission names; `*` for all of a namespace.
    granted: BTreeSet<(&'p str, &'p str)>,
    /// Bindings of a namespace that speak of the same.
    alike: BTreeMap<(&'p str, String), Vec<&'p BindingSpec>>,
}

impl<'p> Policy<'p> {
    fn of(set: &'p PolicySet) -> Self {
        let mut policy = Self {
            set,
            roles: Roles::of(set),
            services: BTreeMap::new(),
            issuers: Vec::new(),
            accepted: BTreeSet::new(),
            held: BTreeSet::new(),
            granted: BTreeSet::new(),
            alike: BTreeMap::new(),
        };
        for document in set.values() {
            match document {
                Document::Issuer(spec) => policy.issuers.push(spec),
                Document::Service(spec) => {
                    policy.accepted.extend(spec.issuers.iter().map(String::as_str));
                    policy.services.insert((&spec.namespace, &spec.name), spec);
                }
                Document::Role(spec) => {
                    let named = spec.permissions.iter().map(|one| (&*spec.namespace, &*one.service));
                    policy.granted.extend(named);
                }
                _ => {}
            }
        }
        for binding in bindings(set) {
            if policy.held.insert((&binding.namespace, &binding.role)) {
                let closure = policy.roles.closure(&binding.namespace, &binding.role);
                policy.held.extend(closure.into_iter().map(|role| (&*role.namespace, &*role.name)));
            }
            policy.alike.entry((&binding.namespace, who_key(binding))).or_default().push(binding);
        }
        policy
    }

    /// The services of a namespace that `name`, or `*`, speaks of.
    fn services<'s>(
        &'s self,
        namespace: &'s str,
        name: &'s str,
    ) -> impl Iterator<Item = &'p ServiceSpec> + 's {
        let one = if name == "*" { None } else { self.services.get(&(namespace, name)).copied() };
        let all = self.services.range((namespace, "")..).take_while(move |((of, _), _)| *of == namespace);
        one.into_iter().chain(all.filter(move |_| name == "*").map(|(_, service)| *service))
    }

    /// Whether issuers are part of this policy at all. A folder of one application mostly has none, since issuers
    /// belong to the cluster; then nothing can be said about them.
    fn knows_issuers(&self) -> bool {
        !self.issuers.is_empty()
    }

    fn has_issuer(&self, name: &str) -> bool {
        // Administrators by opaque token belong to an issuer that is no row.
        name == crate::facts::ADMIN_ISSUER || self.set.contains_key(&ObjectId::new(Kind::Issuer, "", name))
    }
}

/// Two bindings with one key speak of the same.
fn who_key(binding: &BindingSpec) -> String {
    serde_json::to_string(&binding.who).unwrap_or_default()
}

struct Linter<'p> {
    policy: Policy<'p>,
    now: i64,
    findings: Vec<Finding>,
}

impl Linter<'_> {
    fn find(
        &mut self,
        (severity, code): (Severity, &str),
        (object, key): (&ObjectId, impl Into<String>),
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            code: code.to_owned(),
            severity,
            object: object.clone(),
            key: key.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }
}

#[cfg(test)]
mod tests;
