//! Asking twice for the same write writes once.
//!
//! The key is kept in the transaction that writes, behind the lock that the epoch is. So of two requests with one key,
//! at the same time and at two replicas even, one writes and the other is told what the first one did; and a crash
//! leaves both the write and its key, or neither.

use super::changes::policy_changes;
use super::sql::{Tx, Value};
use super::{Applied, StoreError};

/// How long a key is remembered.
const KEPT_SECONDS: i64 = 24 * 3600;

/// By what a write is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who asks: keys of others are not seen.
    pub caller: String,
    /// What the caller calls it.
    pub key: String,
    /// A hash of all that was asked for; the same key for something else is a mistake.
    pub fingerprint: String,
}

/// What a write under this key did, if there was one.
pub(super) async fn find(tx: &mut Tx, key: &IdempotencyKey, now: i64) -> Result<Option<Applied>, StoreError> {
    let Some((epoch, wrote)) = look(tx, key, now).await? else { return Ok(None) };
    let changes = if wrote { policy_changes(tx, epoch).await? } else { Vec::new() };
    Ok(Some(Applied { epoch, changes, replayed: true }))
}

/// Whether something was done under this key that moves no epoch.
pub(super) async fn is_done(tx: &mut Tx, key: &IdempotencyKey, now: i64) -> Result<bool, StoreError> {
    Ok(look(tx, key, now).await?.is_some())
}

/// The epoch of the write under this key, and whether it wrote policy.
async fn look(tx: &mut Tx, key: &IdempotencyKey, now: i64) -> Result<Option<(u64, bool)>, StoreError> {
    let sql =
        "SELECT fingerprint, epoch, wrote FROM idempotency_keys WHERE caller = $1 AND key = $2 AND at > $3";
    let values = [Value::Text(&key.caller), Value::Text(&key.key), Value::Int(now - KEPT_SECONDS)];
    let rows = tx.fetch("look for an idempotency key", sql, &values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if row.text("fingerprint")? != key.fingerprint {
        return Err(StoreError::KeyReused);
    }
    Ok(Some((row.int("epoch")?.unsigned_abs(), row.int("wrote")? != 0)))
}

/// Remembers what a write under this key did, and forgets keys that are too old.
pub(super) async fn keep(
    tx: &mut Tx,
    key: &IdempotencyKey,
    applied: &Applied,
    now: i64,
) -> Result<(), StoreError> {
    note(tx, key, applied.epoch, !applied.changes.is_empty(), now).await
}

/// Remembers that something was done under this key that moves no epoch.
pub(super) async fn keep_done(tx: &mut Tx, key: &IdempotencyKey, now: i64) -> Result<(), StoreError> {
    note(tx, key, 0, false, now).await
}

async fn note(
    tx: &mut Tx,
    key: &IdempotencyKey,
    epoch: u64,
    wrote: bool,
    now: i64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM idempotency_keys WHERE at <= $1";
    tx.execute("forget old idempotency keys", sql, &[Value::Int(now - KEPT_SECONDS)]).await?;
    // Writes of one kind come one after the other; one of another kind may have taken the key since we looked.
    let sql = "INSERT INTO idempotency_keys (caller, key, fingerprint, epoch, wrote, at) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, key) DO NOTHING";
    let values = [
        Value::Text(&key.caller),
        Value::Text(&key.key),
        Value::Text(&key.fingerprint),
        Value::Int(epoch.cast_signed()),
        Value::Int(i64::from(wrote)),
        Value::Int(now),
    ];
    if tx.execute("keep an idempotency key", sql, &values).await? == 0 {
        return Err(StoreError::KeyReused);
    }
    Ok(())
}
