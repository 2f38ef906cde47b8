//! From what people wrote to a [`Model`], with every fault named at once.
//!
//! The check is also what keeps namespaces apart. A role names services of its own namespace and a
//! binding names a role of its own, so whoever may write in one namespace can grant nothing in
//! another, and rights over Tollgate itself can only be granted in `tollgate-system`.

mod conditions;
mod holders;
mod roles;
mod services;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use holders::{normal_serial, significant_digits};

use super::model::Model;
use super::object::{Document, Kind, ObjectId, PolicySet, SYSTEM_NAMESPACE};
use super::spec::RoleSpec;
use crate::token::Issuer;

/// Longest name of an object, a permission or a namespace.
const MAX_NAME_BYTES: usize = 128;

/// The name of the admin API as a service of its own policy.
pub const ADMIN_SERVICE_NAME: &str = "admin";

/// The admin API as a service of its own policy.
pub fn admin_service() -> ObjectId {
    ObjectId::new(Kind::Service, SYSTEM_NAMESPACE, ADMIN_SERVICE_NAME)
}

/// What is wrong with an object, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// The object.
    pub object: ObjectId,
    /// The key within it, as in `permissions[0].paths[1]`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.key, self.problem)
    }
}

/// Checks a policy; all faults at once, so that a person mends a file in one go.
pub fn check(set: &PolicySet) -> Result<Model, Vec<Fault>> {
    check_within(set, &PolicySet::new())
}

/// Checks a part of a policy. What its objects refer to, and what their names must differ from, may also stand in
/// `around`, which is taken as good. An object that stands in both is the one in `set`.
pub fn check_within(set: &PolicySet, around: &PolicySet) -> Result<Model, Vec<Fault>> {
    let mut checker = Checker { set, around, faults: Vec::new(), model: Model::default() };
    for (id, document) in set {
        checker.check_name(id);
        match document {
            Document::Issuer(spec) => match Issuer::from_spec(spec) {
                Ok(issuer) => {
                    let issuer = Arc::new(issuer);
                    checker.model.issuers.insert(Arc::clone(&issuer.name), issuer);
                }
                Err((key, problem)) => checker.fault(id, key, problem),
            },
            Document::Enforcer(spec) => checker.enforcer(id, spec),
            Document::Service(spec) => checker.service(id, spec),
            Document::Role(spec) => checker.role(id, spec),
            Document::Binding(spec) => checker.binding(id, spec),
            Document::Denial(spec) => checker.denial(id, spec),
            Document::Revocation(spec) => checker.revocation(id, spec),
        }
    }
    checker.unique_names();
    if checker.faults.is_empty() { Ok(checker.model) } else { Err(checker.faults) }
}

/// What is odd but no fault: names of issuers that do not exist (yet).
pub fn warnings(set: &PolicySet) -> Vec<Fault> {
    let missing = |name: &str| !set.contains_key(&ObjectId::new(Kind::Issuer, "", name));
    let mut found = Vec::new();
    for (id, document) in set {
        let (key, names): (&str, Vec<&String>) = match document {
            Document::Service(spec) => ("issuers", spec.issuers.iter().collect()),
            Document::Binding(spec) => ("who.issuer", spec.who.issuer.iter().collect()),
            Document::Denial(spec) => ("who.issuer", spec.who.issuer.iter().collect()),
            Document::Revocation(spec) => ("issuer", spec.issuer.iter().collect()),
            Document::Issuer(_) | Document::Enforcer(_) | Document::Role(_) => continue,
        };
        // Administrators by opaque token belong to an issuer that is no row.
        for name in names.into_iter().filter(|name| missing(name) && *name != crate::facts::ADMIN_ISSUER) {
            let problem = format!("there is no issuer `{name}`, so none of its tokens is accepted");
            found.push(Fault { object: id.clone(), key: key.to_owned(), problem });
        }
    }
    found
}

struct Checker<'a> {
    set: &'a PolicySet,
    around: &'a PolicySet,
    faults: Vec<Fault>,
    model: Model,
}

impl<'a> Checker<'a> {
    fn find(&self, id: &ObjectId) -> Option<&'a Document> {
        self.set.get(id).or_else(|| self.around.get(id))
    }

    fn role_of(&self, namespace: &str, name: &str) -> Option<&'a RoleSpec> {
        match self.find(&ObjectId::new(Kind::Role, namespace, name)) {
            Some(Document::Role(role)) => Some(role),
            _ => None,
        }
    }

    fn fault(&mut self, id: &ObjectId, key: impl Into<String>, problem: impl Into<String>) {
        self.faults.push(Fault { object: id.clone(), key: key.into(), problem: problem.into() });
    }

    /// Takes the value, or notes the fault and goes on without.
    fn take<T>(
        &mut self,
        id: &ObjectId,
        key: impl FnOnce() -> String,
        value: Result<T, String>,
    ) -> Option<T> {
        value.map_err(|problem| self.fault(id, key(), problem)).ok()
    }

    fn check_name(&mut self, id: &ObjectId) {
        if id.kind == Kind::Issuer && id.name == crate::facts::ADMIN_ISSUER {
            // Its tokens would be those of administrators.
            self.fault(id, "name", "this name is kept for holders of administrator tokens");
        }
        if !is_name(&id.name) {
            self.fault(id, "name", NAME_RULE);
        }
        if id.kind.is_namespaced() && !is_name(&id.namespace) {
            self.fault(id, "namespace", NAME_RULE);
        }
    }

    /// A host, an identity or an `iss` must lead to one object, or a request would have two meanings.
    fn unique_names(&mut self) {
        let mut hosts: BTreeMap<String, ObjectId> = BTreeMap::new();
        let (set, around) = (self.set, self.around);
        // Those around come first, so that the fault is that of an object which is checked.
        let around = around.iter().filter(|(id, _)| !set.contains_key(id));
        for (id, document) in around.chain(set) {
            let (key, names): (&str, Vec<String>) = match document {
                Document::Service(spec) => (
                    "hosts",
                    (spec.hosts.iter().map(|host| host.to_ascii_lowercase()))
                        .chain(spec.spiffe_id.clone())
                        .collect(),
                ),
                Document::Issuer(spec) => ("issuer", vec![format!("iss {}", spec.issuer)]),
                // A workload may be a service and an enforcer, but not two enforcers.
                Document::Enforcer(spec) => {
                    ("spiffe_id", spec.spiffe_id.iter().map(|id| format!("enforcer {id}")).collect())
                }
                _ => continue,
            };
            for name in names {
                if let Some(other) = hosts.insert(name.clone(), id.clone()) {
                    self.fault(id, key, format!("`{name}` already belongs to {other}"));
                }
            }
        }
    }
}

const NAME_RULE: &str =
    "names are 1 to 128 letters, digits, `-`, `_` or `.`, and start with a letter or a digit";

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn no_such_role(namespace: &str, name: &str) -> String {
    format!("there is no role `{name}` in namespace `{namespace}`")
}

fn key(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}

fn boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}
