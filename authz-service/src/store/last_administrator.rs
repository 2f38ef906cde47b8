//! Who can really administer: what must never become nobody.
//!
//! Careful in one direction: a binding counts only if it surely lets somebody change everything. It does not ask
//! whether an issuer still answers or whether a person still has an account there.

use super::sql::{Tx, Value};
use super::{Administrator, Change, StoreError, administrators, select};
use crate::facts::ADMIN_ISSUER;
use crate::policy::check::{ADMIN_SERVICE_NAME, admin_service};
use crate::policy::object::{Document, Kind, ObjectId, PolicySet, SYSTEM_NAMESPACE};
use crate::policy::spec::{BindingSpec, PermissionSpec, ScopesSpec, ServiceSpec, WhoSpec};

/// The built-in role whose holders administer everything.
pub(super) const ADMIN_ROLE: &str = "admin";

/// Whether a change could take somebody's rights to administer.
pub(super) fn concerns_administrators(change: &Change) -> bool {
    change.object.namespace == SYSTEM_NAMESPACE
        || matches!(change.object.kind, Kind::Issuer | Kind::Revocation)
}

/// Whether anybody can administer, as the database is now.
pub(super) async fn somebody_administers(tx: &mut Tx) -> Result<bool, StoreError> {
    let mut ids = vec![admin_service(), admin_role()];
    let sql = "SELECT name FROM bindings WHERE namespace = $1 AND role = $2";
    let values = [Value::Text(SYSTEM_NAMESPACE), Value::Text(ADMIN_ROLE)];
    for row in tx.fetch("look for administrators", sql, &values).await? {
        ids.push(ObjectId::new(Kind::Binding, SYSTEM_NAMESPACE, row.text("name")?));
    }
    for row in
        tx.fetch("look for denials", "SELECT name FROM denials WHERE namespace = $1", &values[..1]).await?
    {
        ids.push(ObjectId::new(Kind::Denial, SYSTEM_NAMESPACE, row.text("name")?));
    }
    let mut set = PolicySet::new();
    while let Some(id) = ids.pop() {
        let Some(stored) = select::one(tx, &id).await? else { continue };
        if let Document::Service(service) = &stored.document {
            ids.extend(service.issuers.iter().map(|issuer| ObjectId::new(Kind::Issuer, "", issuer)));
        }
        if let Document::Binding(BindingSpec { who, .. }) = &stored.document {
            let sql = "SELECT name FROM revocations WHERE issuer = $1 AND (subject = $2 OR client = $3)";
            let named =
                [&who.issuer, &who.subject, &who.client].map(|name| Value::OptionalText(name.as_deref()));
            for row in tx.fetch("look for revocations", sql, &named).await? {
                ids.push(ObjectId::new(Kind::Revocation, "", row.text("name")?));
            }
        }
        set.insert(id, stored.document);
    }
    Ok(count_administrators(&set, &administrators::load(tx).await?) > 0)
}

fn admin_role() -> ObjectId {
    ObjectId::new(Kind::Role, SYSTEM_NAMESPACE, ADMIN_ROLE)
}

/// How many bindings give somebody, without an end, the role that may do everything. `holders` have an opaque token.
fn count_administrators(set: &PolicySet, holders: &[Administrator]) -> usize {
    let (Some(Document::Service(service)), Some(Document::Role(role))) =
        (set.get(&admin_service()), set.get(&admin_role()))
    else {
        return 0;
    };
    if !role.permissions.iter().any(allows_everything) {
        return 0;
    }
    let administers = |binding: &BindingSpec| {
        binding.namespace == SYSTEM_NAMESPACE
            && binding.role == ADMIN_ROLE
            && binding.not_before.is_none()
            && binding.not_after.is_none()
            && binding.when.is_none()
            && !binding.dry_run
            && somebody_is(&binding.who, set, service, holders)
            && !set.values().any(|document| may_take_away(document, &binding.who))
    };
    set.values()
        .filter(|document| matches!(document, Document::Binding(binding) if administers(binding)))
        .count()
}

/// Whether a denial or a revocation may refuse those whom a binding names, now or later.
fn may_take_away(document: &Document, holder: &WhoSpec) -> bool {
    match document {
        Document::Denial(denial) => {
            let who = &denial.who;
            let differ = |one: &Option<String>, other: &Option<String>| {
                one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one != other)
            };
            let of_another = differ(&who.issuer, &holder.issuer)
                || differ(&who.subject, &holder.subject)
                || differ(&who.client, &holder.client);
            !denial.dry_run
                && [ADMIN_SERVICE_NAME, "*"].contains(&denial.service.as_str())
                // Whoever has a token need not come as a workload.
                && who.workload.is_none()
                && !of_another
        }
        Document::Revocation(revocation) => {
            let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
            same(&revocation.issuer, &holder.issuer)
                && (same(&revocation.subject, &holder.subject) || same(&revocation.client, &holder.client))
        }
        _ => false,
    }
}

fn allows_everything(permission: &PermissionSpec) -> bool {
    [ADMIN_SERVICE_NAME, "*"].contains(&permission.service.as_str())
        && permission.methods.iter().any(|method| method == "*")
        && permission.paths.iter().any(|path| path == "/{**}")
        // The admin API is asked about under no host.
        && permission.hosts.is_empty()
        && permission.scopes == ScopesSpec::default()
        && permission.when.is_none()
        && !permission.dry_run
}

fn somebody_is(who: &WhoSpec, set: &PolicySet, service: &ServiceSpec, holders: &[Administrator]) -> bool {
    // A workload administers as long as its certificate is renewed, of which nobody here can be sure.
    if who.workload.is_some() {
        return false;
    }
    let accepts = |issuer: &String| {
        service.issuers.contains(issuer) && set.contains_key(&ObjectId::new(Kind::Issuer, "", issuer))
    };
    match &who.issuer {
        Some(issuer) if issuer == ADMIN_ISSUER => {
            // An opaque token says a subject and nothing else.
            who.group.is_none()
                && who.client.is_none()
                && holders.iter().any(|holder| who.subject.as_ref().is_none_or(|name| *name == holder.name))
        }
        Some(issuer) => accepts(issuer),
        None => who.anyone || !holders.is_empty() || service.issuers.iter().any(accepts),
    }
}
