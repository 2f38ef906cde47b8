//! Roles and their permissions: what can never matter, and what matters more than it seems.

use super::{Linter, Severity};
use crate::policy::cover::covers;
use crate::policy::object::{ObjectId, SYSTEM_NAMESPACE};
use crate::policy::spec::{PermissionSpec, RoleSpec};

pub(super) fn role(linter: &mut Linter<'_>, id: &ObjectId, spec: &RoleSpec) {
    if spec.permissions.is_empty() && spec.includes.is_empty() {
        linter.find(
            (Severity::Warning, "role_empty"),
            (id, "permissions"),
            "this role allows nothing",
            "give it permissions, or remove it",
        );
    }
    let held = linter.policy.held.contains(&(&*spec.namespace, &*spec.name));
    if !held {
        linter.find(
            (Severity::Warning, "role_unheld"),
            (id, "name"),
            "nobody holds this role, not by another role either",
            "bind it to somebody, or remove it",
        );
    }
    for (index, permission) in spec.permissions.iter().enumerate() {
        let key = format!("permissions[{index}]");
        if spec.namespace != SYSTEM_NAMESPACE {
            wildcard(linter, id, &key, permission);
        }
        shadowed(linter, id, spec, (index, permission));
        reachable(linter, id, &key, spec, permission);
    }
}

fn wildcard(linter: &mut Linter<'_>, id: &ObjectId, key: &str, permission: &PermissionSpec) {
    let every_method = permission.methods.iter().any(|method| method == "*");
    let every_path = permission.paths.iter().any(|path| path == "/{**}");
    if every_method && every_path {
        linter.find(
            (Severity::Warning, "grant_of_everything"),
            (id, key),
            format!("`{}` allows every method on every path, of today and of tomorrow", permission.name),
            "name the methods and the paths that are needed",
        );
    } else if permission.service == "*" {
        linter.find(
            (Severity::Note, "grant_on_every_service"),
            (id, format!("{key}.service")),
            format!("`{}` holds for services of this namespace that do not exist yet", permission.name),
            "name the services, unless that is what you want",
        );
    }
}

/// A permission that another one of the same holders allows already.
fn shadowed(
    linter: &mut Linter<'_>,
    id: &ObjectId,
    role: &RoleSpec,
    (index, permission): (usize, &PermissionSpec),
) {
    let all = linter.policy.roles.permissions(&role.namespace, &role.name);
    let other = all.iter().find(|(of, other)| {
        let same_role = of.name == role.name;
        let place = role.permissions.iter().position(|one| std::ptr::eq(one, *other));
        let itself = same_role && place == Some(index);
        // Of two that say the same, the later one is the one too many.
        let first = !same_role || place.is_some_and(|place| place < index) || !covers(permission, other);
        !itself && first && covers(other, permission)
    });
    if let Some((of, other)) = other {
        let problem =
            format!("`{}` changes nothing: {}.{} allows all of it", permission.name, of.name, other.name);
        linter.find(
            (Severity::Warning, "permission_shadowed"),
            (id, format!("permissions[{index}]")),
            problem,
            "remove it, or narrow the other one if that is the one too wide",
        );
    }
}

/// Whether any request can ever match.
fn reachable(
    linter: &mut Linter<'_>,
    id: &ObjectId,
    key: &str,
    role: &RoleSpec,
    permission: &PermissionSpec,
) {
    let services: Vec<_> = linter.policy.services(&role.namespace, &permission.service).collect();
    if services.is_empty() {
        return;
    }
    let known_host = |host: &String| {
        services.iter().any(|service| {
            service.hosts.is_empty() || service.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
        })
    };
    if !permission.hosts.is_empty() && !permission.hosts.iter().any(known_host) {
        linter.find(
            (Severity::Error, "host_not_of_service"),
            (id, format!("{key}.hosts")),
            format!(
                "none of these hosts belongs to `{}`, so this matches no request by its host",
                permission.service
            ),
            "name hosts of the service, or leave them out",
        );
    }
    let wants_scopes = !permission.scopes.all.is_empty() || !permission.scopes.any.is_empty();
    if wants_scopes && services.iter().all(|service| service.issuers.is_empty()) {
        linter.find(
            (Severity::Error, "scopes_without_issuer"),
            (id, format!("{key}.scopes")),
            format!("`{}` accepts no issuer, so no token can ever have these scopes", permission.service),
            "name an issuer in the service, or leave the scopes out",
        );
    }
}
