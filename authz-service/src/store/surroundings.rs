//! What must be looked at to know that a change is good: what the changed objects refer to, what refers to an
//! object that goes, and who holds a name already. How much that is does not follow the size of the policy.

use std::collections::BTreeSet;

use super::sql::{Tx, Value};
use super::{StoreError, select};
use crate::policy::object::{Document, Kind, ObjectId, PolicySet};
use crate::policy::references::references;

/// So many objects that refer to one that goes are looked at: one would do to refuse, more help to mend.
const REFERRERS: i64 = 16;

/// A part of a policy as `policy::check::check_within` takes it.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// What changed, and what refers to what is gone.
    pub(super) set: PolicySet,
    /// What stands around that.
    pub(super) around: PolicySet,
}

impl Part {
    /// Looks around a change. The database may be as before or as after it: what is `put` or `gone` is not read.
    pub(super) async fn of(
        tx: &mut Tx,
        put: PolicySet,
        gone: &BTreeSet<ObjectId>,
    ) -> Result<Self, StoreError> {
        let mut part = Self { set: put, around: PolicySet::new() };
        for id in gone {
            for referrer in referrers(tx, id).await? {
                if let Some(document) = part.other(tx, &referrer, gone).await? {
                    part.set.insert(referrer, document);
                }
            }
        }
        let mut waiting: Vec<ObjectId> = part.set.values().flat_map(references).collect();
        for (id, document) in &part.set {
            waiting.extend(rivals(tx, document).await?.into_iter().filter(|rival| rival != id));
        }
        while let Some(id) = waiting.pop() {
            if let Some(document) = part.other(tx, &id, gone).await? {
                // Circles of roles are found by following them; all else around is taken as good.
                waiting.extend(references(&document).into_iter().filter(|next| next.kind == Kind::Role));
                part.around.insert(id, document);
            }
        }
        Ok(part)
    }

    /// An object that is not part of the change and was not read yet.
    async fn other(
        &self,
        tx: &mut Tx,
        id: &ObjectId,
        gone: &BTreeSet<ObjectId>,
    ) -> Result<Option<Document>, StoreError> {
        if self.set.contains_key(id) || self.around.contains_key(id) || gone.contains(id) {
            return Ok(None);
        }
        Ok(select::one(tx, id).await?.map(|stored| stored.document))
    }
}

/// Some of what refers to an object.
async fn referrers(tx: &mut Tx, id: &ObjectId) -> Result<Vec<ObjectId>, StoreError> {
    let queries: &[(Kind, &'static str)] = match id.kind {
        Kind::Service => &[
            (
                Kind::Role,
                "SELECT DISTINCT namespace, role AS name FROM permissions WHERE namespace = $1 AND of_service = $2 LIMIT $3",
            ),
            (
                Kind::Denial,
                "SELECT namespace, name FROM denials WHERE namespace = $1 AND service = $2 LIMIT $3",
            ),
        ],
        Kind::Role => &[
            (
                Kind::Binding,
                "SELECT namespace, name FROM bindings WHERE namespace = $1 AND role = $2 LIMIT $3",
            ),
            (
                Kind::Role,
                "SELECT namespace, role AS name FROM role_includes WHERE namespace = $1 AND included = $2 LIMIT $3",
            ),
        ],
        Kind::Issuer | Kind::Enforcer | Kind::Binding | Kind::Denial | Kind::Revocation => &[],
    };
    let mut found = Vec::new();
    let values = [Value::Text(&id.namespace), Value::Text(&id.name), Value::Int(REFERRERS)];
    for (kind, sql) in queries {
        for row in tx.fetch("look for references", sql, &values).await? {
            found.push(ObjectId::new(*kind, row.text("namespace")?, row.text("name")?));
        }
    }
    Ok(found)
}

/// Who holds a name that the document claims: a host, an identity, an `iss`.
async fn rivals(tx: &mut Tx, document: &Document) -> Result<Vec<ObjectId>, StoreError> {
    let claimed: Vec<(&'static str, String)> = match document {
        Document::Service(spec) => {
            let hosts = spec.hosts.iter().map(|host| {
                let sql = "SELECT namespace, service AS name FROM service_hosts WHERE host = $1";
                (sql, host.to_ascii_lowercase())
            });
            let identity = spec.spiffe_id.iter().map(|identity| {
                ("SELECT namespace, name FROM services WHERE spiffe_id = $1", identity.clone())
            });
            hosts.chain(identity).collect()
        }
        Document::Issuer(spec) => {
            vec![("SELECT '' AS namespace, name FROM issuers WHERE issuer = $1", spec.issuer.clone())]
        }
        Document::Enforcer(spec) => {
            let identity = spec.spiffe_id.iter().map(|identity| {
                ("SELECT '' AS namespace, name FROM enforcers WHERE spiffe_id = $1", identity.clone())
            });
            identity.collect()
        }
        Document::Role(_) | Document::Binding(_) | Document::Denial(_) | Document::Revocation(_) => {
            Vec::new()
        }
    };
    let mut found = Vec::new();
    for (sql, name) in claimed {
        for row in tx.fetch("look for a name", sql, &[Value::Text(&name)]).await? {
            found.push(ObjectId::new(document.id().kind, row.text("namespace")?, row.text("name")?));
        }
    }
    Ok(found)
}
