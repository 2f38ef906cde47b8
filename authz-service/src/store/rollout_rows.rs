//! The rows of rollouts: taking a record, making room for one, noting who has reported what.

use tollgate_rollout::{Change, Plan, Record};

use super::rollouts::{RolloutError, RolloutReport, StoredRollout};
use super::sql::{Row, Tx, Value};
use super::{Authorship, StoreError};

/// Records in all.
const MAX_ROLLOUTS: i64 = 1000;
/// Plans that one name has had; the longest silent one makes room for the next.
const MAX_PLANS: i64 = 20;
/// Proxies that one plan hears.
const MAX_REPORTERS: i64 = 2000;
/// A plan that nobody has reported for so long may be forgotten for another, and a proxy for another.
const FORGOTTEN_AFTER_MS: i64 = 3_600_000;
/// Nobody asks about a plan that was silent for so long.
const KEPT_MS: i64 = 90 * 86_400_000;
/// Events that are kept of one rollout.
const MAX_EVENTS: i64 = 500;

/// Which record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) plan: &'a str,
}

impl<'a> Key<'a> {
    pub(super) fn values(self) -> [Value<'a>; 3] {
        [Value::Text(self.namespace), Value::Text(self.name), Value::Text(self.plan)]
    }
}

/// Takes the record's lock and reads it, with when it was adopted and last reported.
pub(super) async fn taken(tx: &mut Tx, key: Key<'_>) -> Result<Option<(Record, i64, i64)>, StoreError> {
    let sql = "UPDATE rollouts SET version = version + 1 WHERE namespace = $1 AND name = $2 AND plan = $3 RETURNING *";
    let rows = tx.fetch("take a rollout", sql, &key.values()).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((record_of(row)?, row.int("adopted_at")?, row.int("reported_at")?)))
}

pub(super) async fn make(tx: &mut Tx, key: Key<'_>, plan: &Plan, now: i64) -> Result<(), RolloutError> {
    super::ca::lock(tx).await?;
    let [namespace, name, _] = key.values();
    let sql = "DELETE FROM rollouts WHERE reported_at < $1";
    tx.execute("forget old rollouts", sql, &[Value::Int(now - KEPT_MS)]).await?;
    let sql = "DELETE FROM rollouts WHERE namespace = $1 AND name = $2 AND reported_at < $3 AND plan NOT IN \
               (SELECT plan FROM rollouts WHERE namespace = $1 AND name = $2 ORDER BY reported_at DESC, plan LIMIT $4)";
    let silent = Value::Int(now - FORGOTTEN_AFTER_MS);
    tx.execute("forget plans", sql, &[namespace, name, silent, Value::Int(MAX_PLANS - 1)]).await?;
    let sql = "SELECT COUNT(*) AS records, COUNT(CASE WHEN namespace = $1 AND name = $2 THEN 1 END) AS plans FROM rollouts";
    let rows = tx.fetch("count rollouts", sql, &[namespace, name]).await?;
    let Some(row) = rows.first() else { return Err(StoreError::NoEpoch.into()) };
    if row.int("records")? >= MAX_ROLLOUTS || row.int("plans")? >= MAX_PLANS {
        return Err(RolloutError::TooMany);
    }
    let record = Record::new(plan.clone(), now);
    let text = written(&record);
    let [namespace, name, id] = key.values();
    // Another replica may have made it while we waited for the lock.
    let sql = "INSERT INTO rollouts (namespace, name, plan, record, generation, version, adopted_at, reported_at) \
               VALUES ($1, $2, $3, $4, $5, 0, $6, $6) ON CONFLICT (namespace, name, plan) DO NOTHING";
    let generation = Value::Int(record.generation.cast_signed());
    let values = [namespace, name, id, Value::Text(&text), generation, Value::Int(now)];
    tx.execute("make a rollout", sql, &values).await?;
    Ok(())
}

/// Whether a window is to be counted.
pub(super) enum Hearing {
    New,
    Repeated,
    /// It tells nothing.
    Nothing,
    NoRoom,
}

/// Whether a window is to be counted; if so, it is noted that it is.
pub(super) async fn hear(
    tx: &mut Tx,
    key: Key<'_>,
    report: &RolloutReport,
    now: i64,
) -> Result<Hearing, StoreError> {
    if report.sequence == 0 {
        return Ok(Hearing::Nothing);
    }
    let [namespace, name, plan] = key.values();
    let proxy = Value::Text(&report.proxy);
    let (sequence, now_value) = (Value::Int(report.sequence.cast_signed()), Value::Int(now));
    let sql = "UPDATE rollout_reporters SET sequence = $5, at = $6 WHERE namespace = $1 AND name = $2 AND plan = $3 \
               AND proxy = $4 AND sequence < $5";
    let values = [namespace, name, plan, proxy, sequence, now_value];
    if tx.execute("note a report", sql, &values).await? > 0 {
        return Ok(Hearing::New);
    }
    let sql = "SELECT COUNT(*) AS all_of_them, COUNT(CASE WHEN proxy = $4 THEN 1 END) AS this_one \
               FROM rollout_reporters WHERE namespace = $1 AND name = $2 AND plan = $3";
    let rows = tx.fetch("count reporters", sql, &[namespace, name, plan, proxy]).await?;
    let Some(row) = rows.first() else { return Ok(Hearing::NoRoom) };
    if row.int("this_one")? > 0 {
        return Ok(Hearing::Repeated);
    }
    let old = "DELETE FROM rollout_reporters WHERE namespace = $1 AND name = $2 AND plan = $3 AND at < $4";
    let forgotten = Value::Int(now - FORGOTTEN_AFTER_MS);
    let gone = tx.execute("forget reporters", old, &[namespace, name, plan, forgotten]).await?;
    if row.int("all_of_them")? - gone.cast_signed() >= MAX_REPORTERS {
        return Ok(Hearing::NoRoom);
    }
    let sql = "INSERT INTO rollout_reporters (namespace, name, plan, proxy, sequence, at) VALUES ($1, $2, $3, $4, $5, $6)";
    tx.execute("note a reporter", sql, &values).await?;
    Ok(Hearing::New)
}

pub(super) async fn put(
    tx: &mut Tx,
    key: Key<'_>,
    record: &Record,
    adopted: i64,
    reported: i64,
) -> Result<(), StoreError> {
    let [namespace, name, plan] = key.values();
    let text = written(record);
    let sql = "UPDATE rollouts SET record = $4, generation = $5, adopted_at = $6, reported_at = $7 \
               WHERE namespace = $1 AND name = $2 AND plan = $3";
    let generation = Value::Int(record.generation.cast_signed());
    let values =
        [namespace, name, plan, Value::Text(&text), generation, Value::Int(adopted), Value::Int(reported)];
    tx.execute("keep a rollout", sql, &values).await.map(|_changed| ())
}

/// A line of its history.
pub(super) async fn note(
    tx: &mut Tx,
    key: Key<'_>,
    generation: u64,
    change: &Change,
    by: &Authorship,
    now: i64,
) -> Result<(), StoreError> {
    let [namespace, name, plan] = key.values();
    let generation = generation.cast_signed();
    let sql = "INSERT INTO rollout_events (namespace, name, plan, generation, at, author, action, was, became, weight, \
               reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let values = [
        namespace,
        name,
        plan,
        Value::Int(generation),
        Value::Int(now),
        Value::Text(&by.author),
        Value::Text(change.action),
        Value::Text(change.from.as_str()),
        Value::Text(change.to.as_str()),
        Value::Int(i64::from(change.weight.as_millionths())),
        Value::Text(&change.reason),
    ];
    tx.execute("record a rollout's change", sql, &values).await?;
    let sql =
        "DELETE FROM rollout_events WHERE namespace = $1 AND name = $2 AND plan = $3 AND generation <= $4";
    let old = Value::Int(generation - MAX_EVENTS);
    tx.execute("forget a rollout's old changes", sql, &[namespace, name, plan, old]).await?;
    Ok(())
}

fn written(record: &Record) -> String {
    serde_json::to_string(record).expect("a record is JSON")
}

pub(super) fn record_of(row: &Row) -> Result<Record, StoreError> {
    serde_json::from_str(&row.text("record")?).map_err(|error| StoreError::BadRow {
        what: format!("rollouts {}/{}", row.text_or_empty("namespace"), row.text_or_empty("name")),
        problem: error.to_string(),
    })
}

pub(super) fn stored(row: &Row, in_force: bool) -> Result<StoredRollout, StoreError> {
    Ok(StoredRollout {
        plan: row.text("plan")?,
        record: record_of(row)?,
        adopted_ms: row.int("adopted_at")?,
        reported_ms: row.int("reported_at")?,
        in_force,
    })
}
