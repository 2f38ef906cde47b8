//! Finding objects in the database: one by name, a page, all.

use std::collections::BTreeMap;

use super::rows::{self, Stored, StoredSet};
use super::sql::{Row, Tx, Value};
use super::{Store, StoreError};
use crate::policy::object::{Kind, ObjectId, PolicySet};
use crate::policy::spec::PermissionSpec;

/// A statement about the table of a kind.
macro_rules! of_table {
    ($kind:expr, $before:literal, $after:literal) => {
        match $kind {
            Kind::Issuer => concat!($before, "issuers", $after),
            Kind::Enforcer => concat!($before, "enforcers", $after),
            Kind::Service => concat!($before, "services", $after),
            Kind::Role => concat!($before, "roles", $after),
            Kind::Binding => concat!($before, "bindings", $after),
            Kind::Denial => concat!($before, "denials", $after),
            Kind::Revocation => concat!($before, "revocations", $after),
        }
    };
}
pub(super) use of_table;

/// Reads the whole policy.
pub(super) async fn all(tx: &mut Tx) -> Result<StoredSet, StoreError> {
    let mut set = StoredSet::new();
    for kind in Kind::ALL {
        for stored in of_kind(tx, kind).await? {
            let stored = stored?;
            set.insert(stored.document.id(), stored);
        }
    }
    Ok(set)
}

/// Reads all objects of a kind. A row that cannot be read is an error of its own.
pub(super) async fn of_kind(tx: &mut Tx, kind: Kind) -> Result<Vec<Result<Stored, StoreError>>, StoreError> {
    let mut permissions = if kind == Kind::Role { all_permissions(tx).await? } else { Permissions::new() };
    let rows = tx.fetch("read the policy", of_table!(kind, "SELECT * FROM ", ""), &[]).await?;
    let with_permissions = |row: Row| {
        let permissions = permissions.remove(&(row.text_or_empty("namespace"), row.text_or_empty("name")));
        rows::read(kind, &row, permissions.unwrap_or(Ok(Vec::new())))
    };
    Ok(rows.into_iter().map(with_permissions).collect())
}

/// Reads one object.
pub(super) async fn one(tx: &mut Tx, id: &ObjectId) -> Result<Option<Stored>, StoreError> {
    let (namespace, name) = (Value::Text(&id.namespace), Value::Text(&id.name));
    let rows = if id.kind.is_namespaced() {
        let sql = of_table!(id.kind, "SELECT * FROM ", " WHERE namespace = $1 AND name = $2");
        tx.fetch("read an object", sql, &[namespace, name]).await?
    } else {
        tx.fetch("read an object", of_table!(id.kind, "SELECT * FROM ", " WHERE name = $1"), &[name]).await?
    };
    match rows.first() {
        Some(row) => with_own_permissions(tx, id.kind, row).await.map(Some),
        None => Ok(None),
    }
}

/// Reads objects of one kind and namespace whose names come after `after`, in the order of their names.
async fn list(
    tx: &mut Tx,
    (kind, namespace): (Kind, &str),
    after: &str,
    limit: u32,
) -> Result<Vec<Stored>, StoreError> {
    let (after, limit) = (Value::Text(after), Value::Int(limit.into()));
    let rows = if kind.is_namespaced() {
        let sql = of_table!(
            kind,
            "SELECT * FROM ",
            " WHERE namespace = $1 AND name > $2 ORDER BY namespace, name LIMIT $3"
        );
        tx.fetch("list objects", sql, &[Value::Text(namespace), after, limit]).await?
    } else {
        let sql = of_table!(kind, "SELECT * FROM ", " WHERE name > $1 ORDER BY name LIMIT $2");
        tx.fetch("list objects", sql, &[after, limit]).await?
    };
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push(with_own_permissions(tx, kind, row).await?);
    }
    Ok(found)
}

/// Reads bindings of all namespaces after the one with this namespace and name: there may be too many to hold at once.
pub(super) async fn bindings_after(
    tx: &mut Tx,
    (namespace, name): (&str, &str),
    limit: u32,
) -> Result<Vec<(ObjectId, Result<Stored, StoreError>)>, StoreError> {
    let sql = "SELECT * FROM bindings WHERE (namespace, name) > ($1, $2) ORDER BY namespace, name LIMIT $3";
    let values = [Value::Text(namespace), Value::Text(name), Value::Int(limit.into())];
    let rows = tx.fetch("read bindings", sql, &values).await?;
    let read = |row: Row| {
        let id = ObjectId::new(Kind::Binding, row.text("namespace")?, row.text("name")?);
        Ok((id, rows::read(Kind::Binding, &row, Ok(Vec::new()))))
    };
    rows.into_iter().map(read).collect()
}

/// The roles, bindings and denials of some namespaces, which is all that says who may do what in them.
pub(super) async fn who_may_what(tx: &mut Tx, namespaces: &[String]) -> Result<PolicySet, StoreError> {
    let mut set = PolicySet::new();
    for namespace in namespaces {
        for kind in [Kind::Role, Kind::Binding, Kind::Denial] {
            let all = list(tx, (kind, namespace), "", u32::MAX).await?;
            set.extend(all.into_iter().map(|stored| (stored.document.id(), stored.document)));
        }
    }
    Ok(set)
}

async fn with_own_permissions(tx: &mut Tx, kind: Kind, row: &Row) -> Result<Stored, StoreError> {
    let mut permissions = Ok(Vec::new());
    if kind == Kind::Role {
        let sql = "SELECT * FROM permissions WHERE namespace = $1 AND role = $2 ORDER BY position";
        let (namespace, name) = (row.text("namespace")?, row.text("name")?);
        let rows = tx.fetch("read permissions", sql, &[Value::Text(&namespace), Value::Text(&name)]).await?;
        permissions = rows.iter().map(rows::permission).collect();
    }
    rows::read(kind, row, permissions)
}

type Permissions = BTreeMap<(String, String), Result<Vec<PermissionSpec>, StoreError>>;

async fn all_permissions(tx: &mut Tx) -> Result<Permissions, StoreError> {
    let sql = "SELECT * FROM permissions ORDER BY namespace, role, position";
    let mut found = Permissions::new();
    for row in tx.fetch("read permissions", sql, &[]).await? {
        let of_role = found.entry((row.text("namespace")?, row.text("role")?)).or_insert(Ok(Vec::new()));
        match (of_role.as_mut(), rows::permission(&row)) {
            (Ok(permissions), Ok(permission)) => permissions.push(permission),
            (Ok(_), Err(error)) => *of_role = Err(error),
            (Err(_), _) => {}
        }
    }
    Ok(found)
}

impl Store {
    /// One object, if there is one of this name.
    pub async fn get(&self, id: &ObjectId) -> Result<Option<Stored>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        one(&mut tx, id).await
    }

    /// Objects of one kind and namespace (empty for cluster-scoped kinds) after the name `after`, in the order of
    /// their names.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        list(&mut tx, (kind, namespace), after, limit).await
    }
}
