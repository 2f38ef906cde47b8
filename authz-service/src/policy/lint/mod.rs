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
    bindings: Vec<&'p BindingSpec>,
    services: Vec<&'p ServiceSpec>,
    issuers: Vec<&'p IssuerSpec>,
}

impl<'p> Policy<'p> {
    fn of(set: &'p PolicySet) -> Self {
        let services = set.values().filter_map(|document| match document {
            Document::Service(spec) => Some(spec),
            _ => None,
        });
        let issuers = set.values().filter_map(|document| match document {
            Document::Issuer(spec) => Some(spec),
            _ => None,
        });
        Self {
            set,
            roles: Roles::of(set),
            bindings: bindings(set).collect(),
            services: services.collect(),
            issuers: issuers.collect(),
        }
    }

    /// The services of a namespace that `name`, or `*`, speaks of.
    fn services(&self, namespace: &str, name: &str) -> impl Iterator<Item = &'p ServiceSpec> {
        self.services
            .iter()
            .filter(move |service| service.namespace == namespace && (name == "*" || service.name == name))
            .copied()
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
