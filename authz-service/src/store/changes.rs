//! Reading the history, and what the policy was at an earlier epoch.
//!
//! A change keeps each object as it was and as it became, so an earlier state is the present one with every later
//! change undone: for each object, what the first of them found.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::Serialize;
use utoipa::ToSchema;

use super::sql::{Row, Tx, Value};
use super::{Change, Operation, Store, StoreError};
use crate::policy::object::{Document, Kind, ObjectId, PolicySet};

/// So many rows of the history are undone to tell an earlier state. Each holds an object twice, so this is also a bound
/// on memory.
pub(super) const MAX_UNDONE: u32 = 50_000;

/// One object in one change.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize, ToSchema)]
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
    #[serde(default, skip_serializing_if = "String::is_empty")]
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

impl ChangeRow {
    /// When, as people read it.
    pub fn moment(&self) -> String {
        jiff::Timestamp::from_second(self.at).map_or_else(|_| self.at.to_string(), |at| at.to_string())
    }

    /// The object, if it is one of the policy.
    pub fn object(&self) -> Option<ObjectId> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == self.kind)?;
        Some(ObjectId::new(kind, &self.namespace, &self.name))
    }
}

/// Which changes somebody asks for. All that is given must hold; an empty text is not asked.
#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    /// As written after `kind:`.
    pub kind: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Who made them.
    pub author: String,
}

impl ChangeFilter {
    /// The changes of one object.
    pub fn of(id: &ObjectId) -> Self {
        Self {
            kind: id.kind.as_str().to_owned(),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            author: String::new(),
        }
    }
}

impl Store {
    /// Rows of the history that come after `cursor` (epoch and position), the newest change first.
    pub async fn changes(
        &self,
        cursor: Option<(u64, u64)>,
        limit: u32,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        self.changes_of(&ChangeFilter::default(), cursor, limit).await
    }

    /// As [`Store::changes`], of those that `filter` lets through.
    pub async fn changes_of(
        &self,
        filter: &ChangeFilter,
        cursor: Option<(u64, u64)>,
        limit: u32,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let (epoch, position) = cursor.unwrap_or((i64::MAX.unsigned_abs(), 0));
        let [epoch, position] = [epoch, position].map(|number| Value::Int(number.cast_signed()));
        let after = [epoch, epoch, position, Value::Int(limit.into())];
        let texts = [&filter.kind, &filter.namespace, &filter.name, &filter.author];
        let texts = texts.map(|text| Value::Text(text));
        // An object's own history has an index of its own; the two statements are one but for its use.
        let rows = if filter.kind.is_empty() || filter.name.is_empty() {
            let sql = "SELECT * FROM changes WHERE (epoch < $1 OR (epoch = $2 AND position > $3)) \
                       AND ($5 = '' OR kind = $5) AND ($6 = '' OR namespace = $6) AND ($7 = '' OR name = $7) \
                       AND ($8 = '' OR author = $8) ORDER BY epoch DESC, position ASC LIMIT $4";
            tx.fetch("read changes", sql, &[&after[..], &texts].concat()).await?
        } else {
            let sql = "SELECT * FROM changes WHERE kind = $5 AND ($6 = '' OR namespace = $6) AND name = $7 \
                       AND ($8 = '' OR author = $8) AND (epoch < $1 OR (epoch = $2 AND position > $3)) \
                       ORDER BY epoch DESC, position ASC LIMIT $4";
            tx.fetch("read the changes of an object", sql, &[&after[..], &texts].concat()).await?
        };
        rows.iter().map(read).collect()
    }

    /// The policy as it was from `epoch` on until the next change, and the epoch in force now.
    pub async fn policy_at(&self, epoch: u64) -> Result<(PolicySet, u64), StoreError> {
        // What cannot be answered costs no reading of everything.
        let newest = self.epoch().await?;
        if epoch > newest {
            return Err(StoreError::NoSuchEpoch { asked: epoch, newest });
        }
        let loaded = self.load().await?;
        let mut set: PolicySet =
            loaded.objects.into_iter().map(|(id, stored)| (id, stored.document)).collect();
        for (id, was) in self.undo_to((epoch, loaded.epoch), None, MAX_UNDONE).await? {
            match was {
                Some(document) => set.insert(id, document),
                None => set.remove(&id),
            };
        }
        Ok((set, loaded.epoch))
    }

    /// What must be done to have the policy of `epoch` again, or one object of it; and the epoch in force now, on
    /// which that is based.
    pub async fn restoring(
        &self,
        epoch: u64,
        only: Option<&ObjectId>,
    ) -> Result<(Vec<Operation>, u64), StoreError> {
        let now = self.epoch().await?;
        let mut operations = Vec::new();
        for (id, was) in self.undo_to((epoch, now), only, MAX_UNDONE).await? {
            match was {
                Some(document) => operations.push(Operation::put(document)),
                None if self.get(&id).await?.is_some() => operations.push(Operation::Delete(id)),
                None => {}
            }
        }
        Ok((operations, now))
    }

    /// The objects that changed after `epoch` up to `now`, or the one that is asked about, each as it was at `epoch`.
    /// Of the history `most` rows are read, and no older state can be had.
    async fn undo_to(
        &self,
        (epoch, now): (u64, u64),
        only: Option<&ObjectId>,
        most: u32,
    ) -> Result<BTreeMap<ObjectId, Option<Document>>, StoreError> {
        if epoch > now {
            return Err(StoreError::NoSuchEpoch { asked: epoch, newest: now });
        }
        let mut tx = self.database().begin_read().await?;
        let [from, to] = [epoch, now].map(|number| Value::Int(number.cast_signed()));
        let limit = Value::Int(i64::from(most) + 1);
        let rows = match only {
            None => {
                let sql = "SELECT * FROM changes WHERE epoch > $1 AND epoch <= $2 \
                           ORDER BY epoch ASC, position ASC LIMIT $3";
                tx.fetch("read later changes", sql, &[from, to, limit]).await?
            }
            Some(ObjectId { kind, namespace, name }) => {
                let sql = "SELECT * FROM changes WHERE kind = $4 AND namespace = $5 AND name = $6 \
                           AND epoch > $1 AND epoch <= $2 ORDER BY epoch ASC, position ASC LIMIT $3";
                let id = [Value::Text(kind.as_str()), Value::Text(namespace), Value::Text(name)];
                tx.fetch("read later changes of an object", sql, &[&[from, to, limit][..], &id].concat())
                    .await?
            }
        };
        if rows.len() > most as usize {
            return Err(StoreError::TooFarBack { asked: epoch, newest: now, most });
        }
        let mut found: BTreeMap<ObjectId, Option<Document>> = BTreeMap::new();
        for row in rows {
            let row = read(&row)?;
            let Some(object) = row.object() else { continue };
            if let Entry::Vacant(first) = found.entry(object) {
                first.insert(document(row.before, row.epoch)?);
            }
        }
        Ok(found)
    }
}

/// What one epoch changed in the policy.
pub(super) async fn policy_changes(tx: &mut Tx, epoch: u64) -> Result<Vec<Change>, StoreError> {
    let sql = "SELECT * FROM changes WHERE epoch = $1 ORDER BY position ASC";
    let rows = tx.fetch("read a change", sql, &[Value::Int(epoch.cast_signed())]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = read(row)?;
        if let Some(object) = row.object() {
            let (before, after) = (document(row.before, epoch)?, document(row.after, epoch)?);
            found.push(Change { object, before, after });
        }
    }
    Ok(found)
}

fn document(value: Option<serde_json::Value>, epoch: u64) -> Result<Option<Document>, StoreError> {
    value.map(serde_json::from_value).transpose().map_err(|error| StoreError::BadRow {
        what: format!("changes of epoch {epoch}"),
        problem: format!("this version cannot read the object as it was then: {error}"),
    })
}

fn read(row: &Row) -> Result<ChangeRow, StoreError> {
    let document = |text: Option<String>| {
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| StoreError::BadRow { what: "changes".to_owned(), problem: error.to_string() })
    };
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
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;
    use tollgate_runtime::clock::Clock;
    use tollgate_runtime::config::Secret;

    use super::*;
    use crate::store::Authorship;

    #[tokio::test]
    async fn what_lies_too_far_back_is_not_told() {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("a.db").display());
        let store = Store::open(&Secret::new(url), Clock::system()).await.unwrap();
        for n in 0..4 {
            let put = |name: &str| {
                let value =
                    json!({"kind": "Service", "namespace": "a", "name": name, "audiences": [n.to_string()]});
                serde_json::from_value(value).unwrap()
            };
            let documents = vec![put("s"), put(&format!("t{n}"))];
            store.apply(documents, Authorship::new("test", ""), false, false).await.unwrap();
        }
        let of_s = ObjectId::new(Kind::Service, "a", "s");
        for (epoch, only, most, told) in [
            (0, None, 8, Some(5)),
            (0, None, 7, None),
            (1, None, 7, Some(4)),
            (0, Some(&of_s), 4, Some(1)),
            (0, Some(&of_s), 3, None),
            (4, None, 0, Some(0)),
        ] {
            match (store.undo_to((epoch, 4), only, most).await, told) {
                (Ok(found), Some(told)) => assert_eq!(found.len(), told, "{epoch} {most}"),
                (Err(StoreError::TooFarBack { asked, newest: 4, most: bound }), None) => {
                    assert_eq!((asked, bound), (epoch, most));
                }
                (outcome, _) => panic!("{epoch} {most}: {outcome:?}"),
            }
        }
    }
}
