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
    /// Rows of the history that come after `cursor` (epoch and position), the newest change first.
    pub async fn changes(
        &self,
        cursor: Option<(u64, u64)>,
        limit: u32,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let (epoch, position) = cursor.unwrap_or((i64::MAX.unsigned_abs(), 0));
        let sql = "SELECT * FROM changes WHERE epoch < $1 OR (epoch = $2 AND position > $3) \
                   ORDER BY epoch DESC, position ASC LIMIT $4";
        let [epoch, position] = [epoch, position].map(|number| Value::Int(number.cast_signed()));
        let values = [epoch, epoch, position, Value::Int(limit.into())];
        let rows = tx.fetch("read changes", sql, &values).await?;
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
