//! Denials and revocations as rows, and rows as denials and revocations.

use super::StoreError;
use super::rows::{flag, json, moment, optional_json};
use super::sql::{Row, Tx, Value};
use crate::policy::spec::{DenialSpec, RevocationSpec};

pub(super) fn denial(row: &Row) -> Result<DenialSpec, StoreError> {
    Ok(DenialSpec {
        namespace: row.text("namespace")?,
        name: row.text("name")?,
        who: row.json("who")?,
        service: row.text("service")?,
        methods: row.json("methods")?,
        paths: row.json("paths")?,
        grpc: optional_json(row, "grpc")?,
        hosts: row.json("hosts")?,
        when: optional_json(row, "condition")?,
        not_before: moment(row, "not_before")?,
        not_after: moment(row, "not_after")?,
        dry_run: flag(row, "dry_run")?,
        reason: row.text("reason")?,
    })
}

pub(super) fn revocation(row: &Row) -> Result<RevocationSpec, StoreError> {
    let until = moment(row, "until")?;
    Ok(RevocationSpec {
        name: row.text("name")?,
        issuer: row.optional_text("issuer")?,
        jti: row.optional_text("jti")?,
        subject: row.optional_text("subject")?,
        client: row.optional_text("client")?,
        key_id: row.optional_text("key_id")?,
        workload: row.optional_text("workload")?,
        certificate_serial: row.optional_text("certificate_serial")?,
        issued_before: moment(row, "issued_before")?,
        until: until.ok_or_else(|| StoreError::BadRow { what: "until".into(), problem: "is null".into() })?,
        reason: row.text("reason")?,
    })
}

pub(super) async fn put_denial(tx: &mut Tx, spec: &DenialSpec, epoch: Value<'_>) -> Result<(), StoreError> {
    let (grpc, when) = (spec.grpc.as_ref().map(json), spec.when.as_ref().map(json));
    let (not_before, not_after) =
        (spec.not_before.map(|t| t.to_string()), spec.not_after.map(|t| t.to_string()));
    tx.execute(
        "write a denial",
        "INSERT INTO denials (namespace, name, who, service, methods, paths, grpc, hosts, condition, not_before, \
         not_after, dry_run, reason, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        &[
            Value::Text(&spec.namespace),
            Value::Text(&spec.name),
            Value::Text(&json(&spec.who)),
            Value::Text(&spec.service),
            Value::Text(&json(&spec.methods)),
            Value::Text(&json(&spec.paths)),
            Value::OptionalText(grpc.as_deref()),
            Value::Text(&json(&spec.hosts)),
            Value::OptionalText(when.as_deref()),
            Value::OptionalText(not_before.as_deref()),
            Value::OptionalText(not_after.as_deref()),
            Value::Int(spec.dry_run.into()),
            Value::Text(&spec.reason),
            epoch,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn put_revocation(
    tx: &mut Tx,
    spec: &RevocationSpec,
    epoch: Value<'_>,
) -> Result<(), StoreError> {
    let issued_before = spec.issued_before.map(|t| t.to_string());
    tx.execute(
        "write a revocation",
        "INSERT INTO revocations (name, issuer, jti, subject, client, key_id, workload, certificate_serial, \
         issued_before, until, reason, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            Value::Text(&spec.name),
            Value::OptionalText(spec.issuer.as_deref()),
            Value::OptionalText(spec.jti.as_deref()),
            Value::OptionalText(spec.subject.as_deref()),
            Value::OptionalText(spec.client.as_deref()),
            Value::OptionalText(spec.key_id.as_deref()),
            Value::OptionalText(spec.workload.as_deref()),
            Value::OptionalText(spec.certificate_serial.as_deref()),
            Value::OptionalText(issued_before.as_deref()),
            Value::Text(&spec.until.to_string()),
            Value::Text(&spec.reason),
            epoch,
        ],
    )
    .await?;
    Ok(())
}
