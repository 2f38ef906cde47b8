//! Roles and bindings of a policy as people wrote them, for the tools that reason about them. Pure.
//!
//! Evaluation does not use this: it has the compiled snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Document, Kind, ObjectId, PolicySet};
use super::spec::{BindingSpec, PermissionSpec, RoleSpec};

/// Roles by namespace and name.
#[derive(Debug, Default)]
pub struct Roles<'p>(BTreeMap<(&'p str, &'p str), &'p RoleSpec>);

impl<'p> Roles<'p> {
    /// The roles of a policy.
    pub fn of(set: &'p PolicySet) -> Self {
        let mut roles = Self::default();
        for document in set.values() {
            if let Document::Role(role) = document {
                roles.put(role);
            }
        }
        roles
    }

    /// Adds a role, or puts it in the place of the one with its name.
    pub fn put(&mut self, role: &'p RoleSpec) {
        self.0.insert((&role.namespace, &role.name), role);
    }

    /// Forgets a role.
    pub fn remove(&mut self, id: &ObjectId) {
        // The key's lifetime is the map's, so the entry is looked up by its own key.
        self.0
            .retain(|(namespace, name), _| (*namespace, *name) != (id.namespace.as_str(), id.name.as_str()));
    }

    /// All roles.
    pub fn iter(&self) -> impl Iterator<Item = &'p RoleSpec> {
        self.0.values().copied()
    }

    /// A role and all that it includes, however deep. A name that is no role is left out.
    pub fn closure(&self, namespace: &str, name: &str) -> Vec<&'p RoleSpec> {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![name.to_owned()];
        let mut found = Vec::new();
        while let Some(name) = waiting.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(role) = self.0.get(&(namespace, name.as_str())) {
                waiting.extend(role.includes.iter().cloned());
                found.push(*role);
            }
        }
        found
    }

    /// Every permission that a role gives, with the role that has it.
    pub fn permissions(&self, namespace: &str, name: &str) -> Vec<(&'p RoleSpec, &'p PermissionSpec)> {
        let closure = self.closure(namespace, name);
        closure.into_iter().flat_map(|role| role.permissions.iter().map(move |one| (role, one))).collect()
    }
}

/// The bindings of a policy.
pub fn bindings(set: &PolicySet) -> impl Iterator<Item = &BindingSpec> {
    let of_kind = set.range(ObjectId::new(Kind::Binding, "", "")..);
    of_kind.filter_map(|(_, document)| match document {
        Document::Binding(binding) => Some(binding),
        _ => None,
    })
}
