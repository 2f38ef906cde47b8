//! Objects of the policy as rows, and rows as objects.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::select::of_table;
use super::sql::{Row, Tx, Value};
use super::{StoreError, refusing};
use crate::policy::object::{Document, Kind, ObjectId};
use crate::policy::spec::{BindingSpec, EnforcerSpec, IssuerSpec, PermissionSpec, RoleSpec, ServiceSpec};

/// An object and the change that last wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The object.
    pub document: Document,
    /// The epoch of the change.
    pub epoch: u64,
}

/// All objects by name.
pub type StoredSet = BTreeMap<ObjectId, Stored>;

/// Makes an object of a row, and of the permissions where it is a role's. Errors say which row it was.
pub(super) fn read(
    kind: Kind,
    row: &Row,
    permissions: Result<Vec<PermissionSpec>, StoreError>,
) -> Result<Stored, StoreError> {
    let read = permissions.and_then(|permissions| {
        Ok(Stored { document: document(kind, row, permissions)?, epoch: row.int("epoch")?.unsigned_abs() })
    });
    read.map_err(|error| in_row(error, kind, row))
}

/// Says which row it was: somebody has to find it.
fn in_row(error: StoreError, kind: Kind, row: &Row) -> StoreError {
    match error {
        StoreError::BadRow { what, problem } => {
            let (namespace, name) = (row.text_or_empty("namespace"), row.text_or_empty("name"));
            StoreError::BadRow { what: format!("{}: {what}", ObjectId::new(kind, namespace, name)), problem }
        }
        other => other,
    }
}

/// Makes a permission of its row.
pub(super) fn permission(row: &Row) -> Result<PermissionSpec, StoreError> {
    Ok(PermissionSpec {
        name: row.text("name")?,
        service: row.text("service")?,
        methods: row.json("methods")?,
        paths: row.json("paths")?,
        hosts: row.json("hosts")?,
        scopes: row.json("scopes")?,
        grpc: optional_json(row, "grpc")?,
        when: optional_json(row, "condition")?,
        dry_run: flag(row, "dry_run")?,
    })
}

fn document(kind: Kind, row: &Row, permissions: Vec<PermissionSpec>) -> Result<Document, StoreError> {
    Ok(match kind {
        Kind::Issuer => Document::Issuer(IssuerSpec {
            name: row.text("name")?,
            issuer: row.text("issuer")?,
            jwks_url: row.optional_text("jwks_url")?,
            discovery: row.int("discovery")? != 0,
            jwks: row.optional_text("jwks")?.map(|_| row.json("jwks")).transpose()?,
            pem: row.optional_text("pem")?,
            shared_secret: row.optional_text("shared_secret")?,
            algorithms: row.json("algorithms")?,
            audiences: row.json("audiences")?,
            typ: row.json("typ")?,
            token_places: row.json("token_places")?,
            strip: row.int("strip")? != 0,
            claim_headers: row.json("claim_headers")?,
            claim_parameters: row.json("claim_parameters")?,
            metadata_claims: row.json("metadata_claims")?,
            leeway_seconds: seconds(row.int("leeway_seconds")?)?,
            max_lifetime_seconds: row.optional_int("max_lifetime_seconds")?.map(seconds).transpose()?,
            claims: row.json("claims")?,
        }),
        Kind::Enforcer => Document::Enforcer(EnforcerSpec {
            name: row.text("name")?,
            spiffe_id: row.optional_text("spiffe_id")?,
            point: row.json("point")?,
            services: row.json("services")?,
            sources: row.json("sources")?,
        }),
        Kind::Service => Document::Service(ServiceSpec {
            namespace: row.text("namespace")?,
            name: row.text("name")?,
            hosts: row.json("hosts")?,
            spiffe_id: row.optional_text("spiffe_id")?,
            callers: row.json("callers")?,
            issuers: row.json("issuers")?,
            audiences: row.json("audiences")?,
            mode: row.json("mode")?,
            upstream: row.json("upstream")?,
            login: row.optional_text("login")?.map(|_| row.json("login")).transpose()?,
        }),
        Kind::Role => Document::Role(RoleSpec {
            namespace: row.text("namespace")?,
            name: row.text("name")?,
            includes: row.json("includes")?,
            permissions,
        }),
        Kind::Binding => Document::Binding(BindingSpec {
            namespace: row.text("namespace")?,
            name: row.text("name")?,
            role: row.text("role")?,
            who: row.json("who")?,
            not_before: moment(row, "not_before")?,
            not_after: moment(row, "not_after")?,
            when: optional_json(row, "condition")?,
            dry_run: flag(row, "dry_run")?,
        }),
        Kind::Denial => Document::Denial(refusing::denial(row)?),
        Kind::Revocation => Document::Revocation(refusing::revocation(row)?),
    })
}

fn seconds(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number)
        .map_err(|_| StoreError::BadRow { what: "seconds".to_owned(), problem: format!("{number}") })
}

pub(super) fn moment(row: &Row, column: &'static str) -> Result<Option<jiff::Timestamp>, StoreError> {
    let Some(text) = row.optional_text(column)? else { return Ok(None) };
    let bad = |error: jiff::Error| StoreError::BadRow { what: column.to_owned(), problem: error.to_string() };
    text.parse().map(Some).map_err(bad)
}

pub(super) fn optional_json<T: DeserializeOwned>(
    row: &Row,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    row.optional_text(column)?.map(|_| row.json(column)).transpose()
}

pub(super) fn flag(row: &Row, column: &'static str) -> Result<bool, StoreError> {
    Ok(row.int(column)? != 0)
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of texts are always JSON")
}

/// Writes an object. Where one of this name was there, it was removed before, unless it is a role.
pub(super) async fn put(tx: &mut Tx, document: &Document, epoch: u64) -> Result<(), StoreError> {
    let epoch = Value::Int(epoch.cast_signed());
    let insert = "write an object";
    match document {
        Document::Issuer(spec) => {
            let jwks = spec.jwks.as_ref().map(json);
            tx.execute(
                insert,
                "INSERT INTO issuers (name, issuer, jwks_url, jwks, algorithms, audiences, typ, token_places, \
                 leeway_seconds, max_lifetime_seconds, claims, discovery, pem, shared_secret, strip, \
                 claim_headers, metadata_claims, claim_parameters, epoch) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
                &[
                    Value::Text(&spec.name),
                    Value::Text(&spec.issuer),
                    Value::OptionalText(spec.jwks_url.as_deref()),
                    Value::OptionalText(jwks.as_deref()),
                    Value::Text(&json(&spec.algorithms)),
                    Value::Text(&json(&spec.audiences)),
                    Value::Text(&json(&spec.typ)),
                    Value::Text(&json(&spec.token_places)),
                    Value::Int(spec.leeway_seconds.into()),
                    Value::OptionalInt(spec.max_lifetime_seconds.map(i64::from)),
                    Value::Text(&json(&spec.claims)),
                    Value::Int(spec.discovery.into()),
                    Value::OptionalText(spec.pem.as_deref()),
                    Value::OptionalText(spec.shared_secret.as_deref()),
                    Value::Int(spec.strip.into()),
                    Value::Text(&json(&spec.claim_headers)),
                    Value::Text(&json(&spec.metadata_claims)),
                    Value::Text(&json(&spec.claim_parameters)),
                    epoch,
                ],
            )
            .await?;
        }
        Document::Enforcer(spec) => {
            tx.execute(
                insert,
                "INSERT INTO enforcers (name, spiffe_id, point, services, sources, epoch) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    Value::Text(&spec.name),
                    Value::OptionalText(spec.spiffe_id.as_deref()),
                    Value::Text(&json(&spec.point)),
                    Value::Text(&json(&spec.services)),
                    Value::Text(&json(&spec.sources)),
                    epoch,
                ],
            )
            .await?;
        }
        Document::Service(spec) => {
            tx.execute(
                insert,
                "INSERT INTO services (namespace, name, hosts, spiffe_id, callers, issuers, audiences, mode, \
                 upstream, login, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                &[
                    Value::Text(&spec.namespace),
                    Value::Text(&spec.name),
                    Value::Text(&json(&spec.hosts)),
                    Value::OptionalText(spec.spiffe_id.as_deref()),
                    Value::Text(&json(&spec.callers)),
                    Value::Text(&json(&spec.issuers)),
                    Value::Text(&json(&spec.audiences)),
                    Value::Text(&json(&spec.mode)),
                    Value::Text(&json(&spec.upstream)),
                    Value::OptionalText(spec.login.as_ref().map(json).as_deref()),
                    epoch,
                ],
            )
            .await?;
        }
        Document::Role(spec) => put_role(tx, spec, epoch).await?,
        Document::Binding(spec) => {
            let when = spec.when.as_ref().map(json);
            let (not_before, not_after) =
                (spec.not_before.map(|t| t.to_string()), spec.not_after.map(|t| t.to_string()));
            tx.execute(
                insert,
                "INSERT INTO bindings (namespace, name, role, who, not_before, not_after, condition, dry_run, epoch) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                &[
                    Value::Text(&spec.namespace),
                    Value::Text(&spec.name),
                    Value::Text(&spec.role),
                    Value::Text(&json(&spec.who)),
                    Value::OptionalText(not_before.as_deref()),
                    Value::OptionalText(not_after.as_deref()),
                    Value::OptionalText(when.as_deref()),
                    Value::Int(spec.dry_run.into()),
                    epoch,
                ],
            )
            .await?;
        }
        Document::Denial(spec) => refusing::put_denial(tx, spec, epoch).await?,
        Document::Revocation(spec) => refusing::put_revocation(tx, spec, epoch).await?,
    }
    Ok(())
}

async fn put_role(tx: &mut Tx, spec: &RoleSpec, epoch: Value<'_>) -> Result<(), StoreError> {
    let (namespace, name) = (Value::Text(&spec.namespace), Value::Text(&spec.name));
    let includes = json(&spec.includes);
    // The row stays if it is there: a million bindings may refer to it, and each would be looked at.
    let sql = "INSERT INTO roles (namespace, name, includes, epoch) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (namespace, name) DO UPDATE SET includes = excluded.includes, epoch = excluded.epoch";
    tx.execute("write a role", sql, &[namespace, name, Value::Text(&includes), epoch]).await?;
    let sql = "DELETE FROM permissions WHERE namespace = $1 AND role = $2";
    tx.execute("remove old permissions", sql, &[namespace, name]).await?;
    for (position, permission) in (0_i64..).zip(&spec.permissions) {
        let (grpc, when) = (permission.grpc.as_ref().map(json), permission.when.as_ref().map(json));
        tx.execute(
            "write a permission",
            "INSERT INTO permissions (namespace, role, position, name, service, methods, paths, hosts, scopes, grpc, \
             condition, dry_run) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            &[
                namespace,
                name,
                Value::Int(position),
                Value::Text(&permission.name),
                Value::Text(&permission.service),
                Value::Text(&json(&permission.methods)),
                Value::Text(&json(&permission.paths)),
                Value::Text(&json(&permission.hosts)),
                Value::Text(&json(&permission.scopes)),
                Value::OptionalText(grpc.as_deref()),
                Value::OptionalText(when.as_deref()),
                Value::Int(permission.dry_run.into()),
            ],
        )
        .await?;
    }
    Ok(())
}

/// Removes an object; its permissions go with a role.
pub(super) async fn delete(tx: &mut Tx, id: &ObjectId) -> Result<(), StoreError> {
    let name = Value::Text(&id.name);
    if id.kind.is_namespaced() {
        let sql = of_table!(id.kind, "DELETE FROM ", " WHERE namespace = $1 AND name = $2");
        tx.execute("remove an object", sql, &[Value::Text(&id.namespace), name]).await?;
    } else {
        let sql = of_table!(id.kind, "DELETE FROM ", " WHERE name = $1");
        tx.execute("remove an object", sql, &[name]).await?;
    }
    Ok(())
}
