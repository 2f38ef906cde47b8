//! Key sets that were fetched from issuers. They are part of the policy's state: a new set moves the
//! epoch, so every replica verifies with the same keys, and they are there after a restart.

use super::sql::{Row, Tx, Value};
use super::write::{announce, next_epoch};
use super::{Store, StoreError};

/// A key set as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedKeys {
    /// The issuer's name.
    pub issuer: String,
    /// Where it came from.
    pub url: String,
    /// The set.
    pub jwks: String,
    /// Unix seconds at which the issuer last answered with exactly this.
    pub confirmed_at: i64,
}

pub(super) async fn load(tx: &mut Tx) -> Result<Vec<FetchedKeys>, StoreError> {
    let rows = tx.fetch("read fetched keys", "SELECT * FROM issuer_keys", &[]).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn of_issuer(tx: &mut Tx, issuer: &str) -> Result<Option<FetchedKeys>, StoreError> {
    let sql = "SELECT * FROM issuer_keys WHERE issuer = $1";
    let rows = tx.fetch("read fetched keys", sql, &[Value::Text(issuer)]).await?;
    rows.first().map(read).transpose()
}

fn read(row: &Row) -> Result<FetchedKeys, StoreError> {
    Ok(FetchedKeys {
        issuer: row.text("issuer")?,
        url: row.text("url")?,
        jwks: row.text("jwks")?,
        confirmed_at: row.int("confirmed_at")?,
    })
}

impl Store {
    /// The keys that are kept for an issuer.
    pub async fn keys_of(&self, issuer: &str) -> Result<Option<FetchedKeys>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        of_issuer(&mut tx, issuer).await
    }

    /// Keeps a new key set and moves the epoch.
    pub async fn put_keys(&self, keys: &FetchedKeys) -> Result<u64, StoreError> {
        let mut tx = self.database().begin().await?;
        let epoch = next_epoch(&mut tx).await?;
        let issuer = Value::Text(&keys.issuer);
        let old =
            tx.fetch("read old keys", "SELECT jwks FROM issuer_keys WHERE issuer = $1", &[issuer]).await?;
        let old = old.first().map(|row| row.text("jwks")).transpose()?;
        tx.execute("remove old keys", "DELETE FROM issuer_keys WHERE issuer = $1", &[issuer]).await?;
        let sql =
            "INSERT INTO issuer_keys (issuer, url, jwks, confirmed_at, epoch) VALUES ($1, $2, $3, $4, $5)";
        let (url, jwks) = (Value::Text(&keys.url), Value::Text(&keys.jwks));
        let number = Value::Int(epoch.cast_signed());
        tx.execute("keep keys", sql, &[issuer, url, jwks, Value::Int(keys.confirmed_at), number]).await?;
        tx.execute(
            "record new keys",
            "INSERT INTO changes (epoch, position, at, author, reason, kind, namespace, name, before_json, \
             after_json) VALUES ($1, 0, $2, 'tollgate-authz', 'the issuer has new keys', 'IssuerKeys', '', $3, $4, $5)",
            &[number, Value::Int(self.now()), issuer, Value::OptionalText(old.as_deref()), jwks],
        )
        .await?;
        announce(&mut tx, epoch).await?;
        self.commit(tx, epoch).await?;
        Ok(epoch)
    }

    /// Notes that the issuer still has these keys. No change of policy, so the epoch stays.
    pub async fn confirm_keys(&self, issuer: &str, at: i64) -> Result<(), StoreError> {
        let mut tx = self.database().begin().await?;
        let sql = "UPDATE issuer_keys SET confirmed_at = $1 WHERE issuer = $2";
        tx.execute("confirm keys", sql, &[Value::Int(at), Value::Text(issuer)]).await?;
        tx.commit().await
    }
}
