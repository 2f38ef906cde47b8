//! Nobody grants what they do not hold. Pure.
//!
//! Whoever may write roles and bindings of a namespace could give themselves, or a friend, everything in it. So a
//! change that grants is allowed only as far as its author holds what it grants, now, without an end before the
//! grant's own, and without a condition. Holding the right to grant (`PUT /v1/grants/NAMESPACE`) is asked before.
//!
//! Taking away a denial gives as well, and so does a narrower one: whoever does it must hold what it denied, and not by
//! leave of the denial itself. What a denial may deny to somebody is nothing that they hold.

use std::collections::HashMap;

use super::check::Fault;
use super::cover::{covers, may_meet};
use super::object::{Document, PolicySet};
use super::roles::{Roles, bindings};
use super::spec::{BindingSpec, DenialSpec, Mode, PermissionSpec, RevocationSpec, RoleSpec, WhoSpec};
use crate::store::Change;
use crate::token::VerifiedToken;

/// So much is named that would be too much; it is refused for the first already.
const MAX_FAULTS: usize = 16;

/// Whether a change can give anybody a right, at `now` in Unix seconds.
pub fn grants(change: &Change, now: i64) -> bool {
    match (&change.before, &change.after) {
        (_, Some(Document::Role(_) | Document::Binding(_))) => true,
        (before, Some(Document::Service(after))) => opens(before.as_ref(), after.mode),
        (Some(Document::Denial(before)), after) => lifts(before, after.as_ref(), now),
        _ => false,
    }
}

/// Whether a change takes away a revocation, or a part of it, that is not over yet. What was revoked may be anybody's
/// and about every service, so this is for those who have all rights.
pub fn lifts_revocation(change: &Change, now: i64) -> bool {
    let Some(Document::Revocation(before)) = &change.before else { return false };
    let stays = matches!(&change.after, Some(Document::Revocation(after)) if revokes_all_of(after, before));
    before.until.as_second() > now && !stays
}

fn revokes_all_of(after: &RevocationSpec, before: &RevocationSpec) -> bool {
    let older = after.issued_before.is_none_or(|end| before.issued_before.is_some_and(|was| was <= end));
    let same = RevocationSpec {
        name: before.name.clone(),
        issued_before: before.issued_before,
        until: before.until,
        reason: before.reason.clone(),
        ..after.clone()
    };
    older && after.until >= before.until && same == *before
}

/// Whether a denial that is in force, or will be, denies less than it did.
fn lifts(before: &DenialSpec, after: Option<&Document>, now: i64) -> bool {
    let stays = matches!(after, Some(Document::Denial(after)) if denies_all_of(after, before, now));
    !before.dry_run && !is_over(before, now) && !stays
}

fn is_over(denial: &DenialSpec, now: i64) -> bool {
    denial.not_after.is_some_and(|end| end.as_second() <= now)
}

fn denies_all_of(after: &DenialSpec, before: &DenialSpec, now: i64) -> bool {
    let begins = after
        .not_before
        .is_none_or(|from| from.as_second() <= now || before.not_before.is_some_and(|was| from <= was));
    let lasts = after.not_after.is_none_or(|end| before.not_after.is_some_and(|was| was <= end));
    let everybody = WhoSpec { anyone: true, ..WhoSpec::default() };
    (after.who == before.who || after.who == everybody)
        && !after.dry_run
        && begins
        && lasts
        && covers(&denied(after), &denied(before))
}

/// What a denial denies, as if it were permitted.
fn denied(denial: &DenialSpec) -> PermissionSpec {
    PermissionSpec {
        name: denial.name.clone(),
        service: denial.service.clone(),
        methods: denial.methods.clone(),
        paths: denial.paths.clone(),
        grpc: denial.grpc.clone(),
        hosts: denial.hosts.clone(),
        when: denial.when.clone(),
        ..PermissionSpec::default()
    }
}

/// Audit mode lets pass whatever has no grant.
fn opens(before: Option<&Document>, mode: Mode) -> bool {
    let was = matches!(before, Some(Document::Service(service)) if service.mode == Mode::Audit);
    mode == Mode::Audit && !was
}

/// What `changes` in `namespaces` would grant beyond what the holder of `token` holds; `before` are the roles,
/// bindings and denials of these namespaces as they are, `now` is in Unix seconds.
pub fn excess(
    before: &PolicySet,
    changes: &[Change],
    token: &VerifiedToken,
    namespaces: &[String],
    now: i64,
) -> Vec<Fault> {
    let (were, become_) = (Roles::of(before), after(before, changes));
    let held = Held::of(before, &were, token, now);
    // Many may be given one role, which is looked at once.
    let mut judged: HashMap<(&str, &str, Option<i64>), Vec<String>> = HashMap::new();
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
                let mut had: HashMap<&str, Vec<&PermissionSpec>> = HashMap::new();
                for (_, old) in were.permissions(&role.namespace, &role.name) {
                    had.entry(&old.name).or_default().push(old);
                }
                let is_new = |permission: &PermissionSpec| {
                    had.get(permission.name.as_str()).is_none_or(|alike| !alike.contains(&permission))
                };
                let permissions = become_.permissions(&role.namespace, &role.name);
                let new = permissions.into_iter().filter(|(_, permission)| is_new(permission));
                for problem in held.lacks(&role.namespace, new, None, token) {
                    fault("permissions", problem);
                }
            }
            after
                if grants(change, now)
                    && let Some(Document::Denial(before)) = &change.before =>
            {
                let (what, until) = (denied(before), before.not_after.map(|end| end.as_second()));
                let without_condition = PermissionSpec { when: None, ..what };
                if !held.covers(&before.namespace, &without_condition, until) {
                    let problem =
                        "this denies less than before; taking a denial away takes holding what it denies";
                    fault(if after.is_some() { "who" } else { "" }, problem.to_owned());
                }
            }
            Some(Document::Binding(binding)) => {
                let until = binding.not_after.map(|end| end.as_second());
                let (namespace, role) = (binding.namespace.as_str(), binding.role.as_str());
                let lacking = judged.entry((namespace, role, until)).or_insert_with(|| {
                    held.lacks(namespace, become_.permissions(namespace, role), until, token)
                });
                for problem in lacking {
                    fault("role", problem.clone());
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

/// What somebody holds, and until when; and what may be denied to them.
struct Held<'p> {
    permissions: Vec<(&'p str, &'p PermissionSpec, Option<i64>)>,
    denied: Vec<(&'p str, PermissionSpec)>,
}

impl<'p> Held<'p> {
    fn of(set: &'p PolicySet, roles: &Roles<'p>, token: &VerifiedToken, now: i64) -> Self {
        let mut held = Vec::new();
        for binding in bindings(set).filter(|binding| gives(binding, token, now)) {
            let until = binding.not_after.map(|end| end.as_second());
            let permissions = roles.permissions(&binding.namespace, &binding.role);
            held.extend(permissions.into_iter().map(|(_, one)| (binding.namespace.as_str(), one, until)));
        }
        let denials = set.values().filter_map(|document| match document {
            Document::Denial(denial) => Some(denial),
            _ => None,
        });
        let denied = denials
            .filter(|denial| !denial.dry_run && !is_over(denial, now) && may_be(&denial.who, token))
            .map(|denial| (denial.namespace.as_str(), denied(denial)))
            .collect();
        Self { permissions: held, denied }
    }

    /// What is not held of `wanted`, in words; no more of it than anybody reads.
    fn lacks<'w>(
        &self,
        namespace: &str,
        wanted: impl IntoIterator<Item = (&'w RoleSpec, &'w PermissionSpec)>,
        until: Option<i64>,
        token: &VerifiedToken,
    ) -> Vec<String> {
        (wanted.into_iter())
            .filter(|(_, permission)| !self.covers(namespace, permission, until))
            .map(|(of, permission)| beyond(of, permission, token))
            .take(MAX_FAULTS)
            .collect()
    }

    fn covers(&self, namespace: &str, wanted: &PermissionSpec, until: Option<i64>) -> bool {
        let may_be_denied =
            self.denied.iter().any(|(of, denied)| *of == namespace && may_meet(denied, wanted));
        !may_be_denied
            && self.permissions.iter().any(|(of, permission, end)| {
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

/// Whether the holder of `token` may be one of those. The workload that somebody calls from is not known here.
fn may_be(who: &WhoSpec, token: &VerifiedToken) -> bool {
    is(&WhoSpec { workload: None, ..who.clone() }, token)
}

/// Whether the holder of `token` is surely one of those.
fn is(who: &WhoSpec, token: &VerifiedToken) -> bool {
    let says = |wanted: &Option<String>, said: &str| wanted.as_deref().is_none_or(|wanted| wanted == said);
    who.workload.is_none()
        && says(&who.issuer, &token.issuer)
        && says(&who.subject, &token.subject)
        && who.client.as_ref().is_none_or(|client| token.client_id.as_deref() == Some(&**client))
        && who.group.as_ref().is_none_or(|group| token.groups.iter().any(|one| one == group))
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
        assert!(
            grants(&change(&set, service("audit")), NOW) && !grants(&change(&set, service("enforce")), NOW)
        );
        assert_eq!(
            excess(&set, &[change(&set, service("audit"))], &me(), &["a".to_owned()], NOW)[0].key,
            "mode"
        );
        let already = policy_set([service("audit")]).unwrap();
        assert!(!grants(&change(&already, service("audit")), NOW));
    }

    fn denial(more: &Value) -> Document {
        let mut value = json!({"kind": "Denial", "namespace": "a", "name": "no", "service": "s",
            "who": {"issuer": "demo", "subject": "eve"}, "methods": ["GET"], "paths": ["/x"]});
        for (key, changed) in more.as_object().unwrap() {
            value[key] = changed.clone();
        }
        document(value)
    }

    #[test]
    fn less_denied_is_more_granted() {
        let was = denial(&json!({"hosts": ["h"], "not_after": "2027-06-01T00:00:00Z"}));
        let lifted = |was: &Document, after: Option<Document>| {
            grants(&Change { object: was.id(), before: Some(was.clone()), after }, NOW)
        };
        assert!(lifted(&was, None));
        let same = json!({"hosts": ["h"], "not_after": "2027-06-01T00:00:00Z"});
        for (key, value, lifts) in [
            ("reason", json!("another"), false),
            ("who", json!({"anyone": true}), false),
            ("who", json!({"issuer": "demo", "subject": "bob"}), true),
            ("service", json!("*"), false),
            ("service", json!("t"), true),
            ("methods", json!(["*"]), false),
            ("methods", json!(["POST"]), true),
            ("paths", json!(["/{**}"]), false),
            ("paths", json!(["/y"]), true),
            ("hosts", json!([]), false),
            ("hosts", json!(["i"]), true),
            ("when", json!({"header": "x", "equals": "1"}), true),
            ("not_before", json!("2020-01-01T00:00:00Z"), false),
            ("not_before", json!("2027-05-01T00:00:00Z"), true),
            ("not_after", json!("2027-07-01T00:00:00Z"), false),
            ("not_after", json!("2027-05-01T00:00:00Z"), true),
            ("dry_run", json!(true), true),
        ] {
            let mut after = same.clone();
            after[key] = value.clone();
            assert_eq!(lifted(&was, Some(denial(&after))), lifts, "{key} {value}");
        }
        // What denied nothing, or nothing any more, is no loss.
        assert!(!lifted(&denial(&json!({"dry_run": true})), None));
        assert!(!lifted(&denial(&json!({"not_after": "2020-01-01T00:00:00Z"})), None));
    }

    #[test]
    fn a_denial_goes_only_with_who_holds_what_it_denies() {
        let faults = |denials: &[Document], gone: &Document| {
            let mut all = vec![role("reader", &[], &["/x"]), binding("reader", None)];
            all.extend_from_slice(denials);
            let set = policy_set(all).unwrap();
            let removal = Change { object: gone.id(), before: Some(gone.clone()), after: None };
            excess(&set, &[removal], &me(), &["a".to_owned()], NOW).len()
        };
        let of_eve = denial(&json!({}));
        let mine = denial(&json!({"name": "mine", "who": {"issuer": "demo", "subject": "me"}}));
        let everybodys = denial(&json!({"name": "all", "who": {"anyone": true}, "service": "*"}));
        let elsewhere = denial(&json!({"name": "y", "who": {"anyone": true}, "paths": ["/y"]}));
        assert_eq!(faults(std::slice::from_ref(&of_eve), &of_eve), 0);
        let wider = denial(&json!({"methods": ["*"]}));
        assert_eq!(faults(std::slice::from_ref(&wider), &wider), 1);
        // Nobody frees themselves, nor hands on what they are denied.
        assert_eq!(faults(std::slice::from_ref(&mine), &mine), 1);
        assert_eq!(faults(&[of_eve.clone(), mine], &of_eve), 1);
        assert_eq!(faults(&[of_eve.clone(), everybodys], &of_eve), 1);
        assert_eq!(faults(&[of_eve.clone(), elsewhere], &of_eve), 0);
    }

    #[test]
    fn less_revoked_is_seen() {
        let was = json!({"kind": "Revocation", "name": "r", "issuer": "demo", "subject": "eve",
            "issued_before": "2027-01-10T00:00:00Z", "until": "2027-06-01T00:00:00Z"});
        let lifts = |before: &Value, after: Option<Value>| {
            let before = document(before.clone());
            lifts_revocation(
                &Change { object: before.id(), before: Some(before), after: after.map(document) },
                NOW,
            )
        };
        assert!(lifts(&was, None));
        for (key, value, lifted) in [
            ("reason", json!("why"), false),
            ("until", json!("2027-07-01T00:00:00Z"), false),
            ("until", json!("2027-05-01T00:00:00Z"), true),
            ("issued_before", json!("2027-02-01T00:00:00Z"), false),
            ("issued_before", json!("2026-02-01T00:00:00Z"), true),
            ("issued_before", Value::Null, false),
            ("subject", json!("bob"), true),
        ] {
            let mut after = was.clone();
            after[key] = value.clone();
            assert_eq!(lifts(&was, Some(after)), lifted, "{key} {value}");
        }
        let mut over = was;
        over["until"] = json!("2020-01-01T00:00:00Z");
        assert!(!lifts(&over, None));
    }
}
