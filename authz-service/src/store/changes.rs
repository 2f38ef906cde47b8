//! Reading the history.

use serde::Serialize;
use utoipa::ToSchema;

use super::sql::Value;
use super::{Store, StoreError};

/// One object in one change.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChangeRow {
    /// The change.
    pub epoch: u64,
    /// The object's place within the change.
    pub position: u64,
    /// Unix seconds.
    pub at: i64,
    /// Who.
    pub author: String,
    /// Why.
    pub reason: String,
    /// What kind of object; beside the policy's kinds there are `Administrator` and `IssuerKeys`.
    pub kind: String,
    /// Its namespace, empty where it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// As it was.
    #[schema(value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    /// As it became.
    #[schema(value_type = Option<Object>)]
    pub after: Option<serde_json::Value>,
}

impl Store {
    /// Changes older than `before`, the newest first.
    pub async fn changes(&self, before: Option<u64>, limit: u32) -> Result<Vec<ChangeRow>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let before = before.map_or(i64::MAX, u64::cast_signed);
        let sql = "SELECT * FROM changes WHERE epoch < $1 ORDER BY epoch DESC, position ASC LIMIT $2";
        let rows = tx.fetch("read changes", sql, &[Value::Int(before), Value::Int(limit.into())]).await?;
        let document = |text: Option<String>| {
            text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| StoreError::BadRow {
                what: "changes".to_owned(),
                problem: error.to_string(),
            })
        };
        rows.iter()
            .map(|row| {
                Ok(ChangeRow {
                    epoch: row.int("epoch")?.unsigned_abs(),
                    position: row.int("position")?.unsigned_abs(),
                    at: row.int("at")?,
                    author: row.text("author")?,
                    reason: row.text("reason")?,
                    kind: row.text("kind")?,
                    namespace: row.text("namespace")?,
                    name: row.text("name")?,
                    before: document(row.optional_text("before_json")?)?,
                    after: document(row.optional_text("after_json")?)?,
                })
            })
            .collect()
    }
}
