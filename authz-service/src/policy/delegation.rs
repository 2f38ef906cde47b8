//! Nobody grants what they do not hold. Pure.
//!
//! Whoever may write roles and bindings of a namespace could give themselves, or a friend, everything in it. So a
//! change that grants is allowed only as far as its author holds what it grants, now, without an end before the
//! grant's own, and without a condition. Holding the right to grant (`PUT /v1/grants/NAMESPACE`) is asked before.

use super::check::Fault;
use super::cover::covers;
use super::object::{Document, PolicySet};
use super::roles::{Roles, bindings};
use super::spec::{BindingSpec, Mode, PermissionSpec, RoleSpec, WhoSpec};
use crate::store::Change;
use crate::token::VerifiedToken;

/// So much is named that would be too much; it is refused for the first already.
const MAX_FAULTS: usize = 16;

/// Whether a change can give anybody a right.
pub fn grants(change: &Change) -> bool {
    match (&change.before, &change.after) {
        (_, Some(Document::Role(_) | Document::Binding(_))) => true,
        (before, Some(Document::Service(after))) => opens(before.as_ref(), after.mode),
        _ => false,
    }
}

/// Audit mode lets pass whatever has no grant.
fn opens(before: Option<&Document>, mode: Mode) -> bool {
    let was = matches!(before, Some(Document::Service(service)) if service.mode == Mode::Audit);
    mode == Mode::Audit && !was
}

/// What `changes` in `namespaces` would grant beyond what the holder of `token` holds; `before` are the roles and
/// bindings of these namespaces as they are, `now` is in Unix seconds.
pub fn excess(
    before: &PolicySet,
    changes: &[Change],
    token: &VerifiedToken,
    namespaces: &[String],
    now: i64,
) -> Vec<Fault> {
    let (were, become_) = (Roles::of(before), after(before, changes));
    let held = Held::of(before, &were, token, now);
    let mut faults = Vec::new();
    for change in changes.iter().filter(|change| namespaces.contains(&change.object.namespace)) {
        let mut fault = |key: &str, problem: String| {
            faults.push(Fault { object: change.object.clone(), key: key.to_owned(), problem });
        };
        match &change.after {
            Some(Document::Service(service)) if opens(change.before.as_ref(), service.mode) => {
                let problem = "audit mode lets everything pass; turning it on takes the right to grant in the namespace";
                fault("mode", problem.to_owned());
            }
            Some(Document::Role(role)) => {
                let had = were.permissions(&role.namespace, &role.name);
                for (of, permission) in become_.permissions(&role.namespace, &role.name) {
                    let new = !had.iter().any(|(_, old)| *old == permission);
                    if new && !held.covers(&role.namespace, permission, None) {
                        fault("permissions", beyond(of, permission, token));
                    }
                }
            }
            Some(Document::Binding(binding)) => {
                let until = binding.not_after.map(|end| end.as_second());
                for (of, permission) in become_.permissions(&binding.namespace, &binding.role) {
                    if !held.covers(&binding.namespace, permission, until) {
                        fault("role", beyond(of, permission, token));
                    }
                }
            }
            _ => {}
        }
        if faults.len() >= MAX_FAULTS {
            faults.truncate(MAX_FAULTS);
            break;
        }
    }
    faults
}

fn beyond(role: &RoleSpec, permission: &PermissionSpec, token: &VerifiedToken) -> String {
    format!(
        "{}.{} allows {} {} on {}, which {}/{} does not hold for as long",
        role.name,
        permission.name,
        permission.methods.join(","),
        permission.paths.join(","),
        permission.service,
        token.issuer,
        token.subject,
    )
}

/// The roles as they would be.
fn after<'p>(before: &'p PolicySet, changes: &'p [Change]) -> Roles<'p> {
    let mut roles = Roles::of(before);
    for change in changes {
        match (&change.before, &change.after) {
            (_, Some(Document::Role(role))) => roles.put(role),
            (Some(Document::Role(_)), None) => roles.remove(&change.object),
            _ => {}
        }
    }
    roles
}

/// What somebody holds, and until when.
struct Held<'p>(Vec<(&'p str, &'p PermissionSpec, Option<i64>)>);

impl<'p> Held<'p> {
    fn of(set: &'p PolicySet, roles: &Roles<'p>, token: &VerifiedToken, now: i64) -> Self {
        let mut held = Vec::new();
        for binding in bindings(set).filter(|binding| gives(binding, token, now)) {
            let until = binding.not_after.map(|end| end.as_second());
            let permissions = roles.permissions(&binding.namespace, &binding.role);
            held.extend(permissions.into_iter().map(|(_, one)| (binding.namespace.as_str(), one, until)));
        }
        Self(held)
    }

    fn covers(&self, namespace: &str, wanted: &PermissionSpec, until: Option<i64>) -> bool {
        self.0.iter().any(|(of, permission, end)| {
            let lasts = end.is_none_or(|end| until.is_some_and(|until| until <= end));
            *of == namespace && lasts && covers(permission, wanted)
        })
    }
}

fn gives(binding: &BindingSpec, token: &VerifiedToken, now: i64) -> bool {
    is(&binding.who, token)
        && binding.when.is_none()
        && !binding.dry_run
        && binding.not_before.is_none_or(|from| from.as_second() <= now)
        && binding.not_after.is_none_or(|end| now < end.as_second())
}

/// Whether the holder of `token` is surely one of those.
fn is(who: &WhoSpec, token: &VerifiedToken) -> bool {
    let says = |wanted: &Option<String>, said: &str| wanted.as_deref().is_none_or(|wanted| wanted == said);
    who.workload.is_none()
        && says(&who.issuer, &token.issuer)
        && says(&who.subject, &token.subject)
        && who.client.as_ref().is_none_or(|client| token.client_id.as_ref() == Some(client))
        && who.group.as_ref().is_none_or(|group| token.groups.contains(group))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::object::policy_set;

    const NOW: i64 = 1_800_000_000;

    fn document(value: Value) -> Document {
        serde_json::from_value(value).unwrap()
    }

    fn role(name: &str, includes: &[&str], paths: &[&str]) -> Document {
        let permissions: Vec<Value> = (paths.iter())
            .map(|path| json!({"name": path.trim_matches('/'), "service": "s", "methods": ["GET"], "paths": [path]}))
            .collect();
        document(json!({"kind": "Role", "namespace": "a", "name": name, "includes": includes,
            "permissions": permissions}))
    }

    fn binding(role: &str, end: Option<&str>) -> Document {
        let mut value = json!({"kind": "Binding", "namespace": "a", "name": format!("me-{role}"), "role": role,
            "who": {"issuer": "demo", "subject": "me"}});
        if let Some(end) = end {
            value["not_after"] = json!(end);
        }
        document(value)
    }

    fn me() -> VerifiedToken {
        VerifiedToken::of_subject("demo", "me")
    }

    fn change(set: &PolicySet, after: Document) -> Change {
        let object = after.id();
        Change { before: set.get(&object).cloned(), object, after: Some(after) }
    }

    #[test]
    fn only_what_is_held_can_be_granted() {
        let soon = "2027-06-01T00:00:00Z";
        let set = policy_set([
            role("reader", &[], &["/x"]),
            role("writer", &["reader"], &["/y"]),
            role("guest", &[], &["/z"]),
            binding("reader", None),
            binding("guest", Some(soon)),
        ])
        .unwrap();
        for (changes, expected) in [
            (vec![binding("reader", None)], vec![]),
            (vec![binding("reader", Some(soon))], vec![]),
            (vec![binding("writer", None)], vec!["role"]),
            // What is held until June can be lent until June.
            (vec![binding("guest", None)], vec!["role"]),
            (vec![binding("guest", Some(soon))], vec![]),
            (vec![binding("guest", Some("2027-06-02T00:00:00Z"))], vec!["role"]),
            (vec![binding("nothing", None)], vec![]),
            (vec![role("reader", &[], &["/x", "/y"])], vec!["permissions"]),
            (vec![role("reader", &["writer"], &["/x"])], vec!["permissions"]),
            (vec![role("writer", &[], &["/y"])], vec![]),
            (vec![role("new", &["reader"], &["/x"])], vec![]),
            // A role and its binding in one go.
            (vec![role("new", &[], &["/y"]), binding("new", None)], vec!["permissions", "role"]),
            (vec![role("new", &[], &["/x"]), binding("new", None)], vec![]),
        ] {
            let changes: Vec<Change> = changes.into_iter().map(|after| change(&set, after)).collect();
            let keys: Vec<String> = excess(&set, &changes, &me(), &["a".to_owned()], NOW)
                .into_iter()
                .map(|fault| fault.key)
                .collect();
            assert_eq!(keys, expected, "{changes:?}");
        }
    }

    #[test]
    fn audit_mode_grants_everything() {
        let set = PolicySet::new();
        let service =
            |mode: &str| document(json!({"kind": "Service", "namespace": "a", "name": "s", "mode": mode}));
        assert!(grants(&change(&set, service("audit"))) && !grants(&change(&set, service("enforce"))));
        assert_eq!(
            excess(&set, &[change(&set, service("audit"))], &me(), &["a".to_owned()], NOW)[0].key,
            "mode"
        );
        let already = policy_set([service("audit")]).unwrap();
        assert!(!grants(&change(&already, service("audit"))));
    }
}
