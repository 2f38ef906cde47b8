//! Changing the policy: one transaction, one epoch, a row of history for each object.

use std::collections::BTreeSet;

use tollgate_runtime::clock::Clock;

use super::last_administrator::{concerns_administrators, somebody_administers};
use super::sql::{Tx, Value};
use super::surroundings::Part;
use super::{IdempotencyKey, Store, StoreError, StoredSet, idempotency, rows, select};
use crate::policy::check;
use crate::policy::object::{Document, Kind, ObjectId, PolicySet, SYSTEM_NAMESPACE};

/// The channel that PostgreSQL announces new epochs on.
pub(super) const CHANNEL: &str = "tollgate_authz_epoch";

/// Who changes something, and why: this is kept for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorship {
    /// `issuer/subject`, or where the change came from.
    pub author: String,
    /// What the author says about it.
    pub reason: String,
}

impl Authorship {
    /// Names the author and the reason.
    pub fn new(author: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { author: author.into(), reason: reason.into() }
    }
}

/// One wish.
#[derive(Debug, Clone)]
pub enum Operation {
    /// The object shall be so.
    Put(Box<Document>),
    /// The object shall not be.
    Delete(ObjectId),
}

impl Operation {
    /// The object shall be so.
    pub fn put(document: Document) -> Self {
        Self::Put(Box::new(document))
    }

    /// What it is about.
    pub fn object(&self) -> ObjectId {
        match self {
            Self::Put(document) => document.id(),
            Self::Delete(id) => id.clone(),
        }
    }
}

/// Wishes that are granted together or not at all.
#[derive(Debug, Clone)]
pub struct Write {
    /// What shall change.
    pub operations: Vec<Operation>,
    /// Remove every object that no operation puts. Objects in `tollgate-system`, and cluster-scoped ones, are never
    /// removed for being absent: a folder of application policy must not lock the administrators out.
    pub prune: bool,
    /// Do everything but commit.
    pub dry_run: bool,
    /// The revision that the caller has seen of the (single) object; 0 for "there is none".
    pub expected: Option<u64>,
    /// The epoch on which the wishes were based, where nothing at all may have changed since.
    pub base: Option<u64>,
    /// For the history.
    pub by: Authorship,
    /// Under which it is done once, however often it is asked for.
    pub key: Option<IdempotencyKey>,
}

/// One object that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which one.
    pub object: ObjectId,
    /// As it was.
    pub before: Option<Document>,
    /// As it is.
    pub after: Option<Document>,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The epoch from which on it holds: a new one, or the one in force where nothing changed.
    pub epoch: u64,
    /// What changed; empty where all was so already.
    pub changes: Vec<Change>,
    /// Whether this was done before, under the same key, and not now.
    pub replayed: bool,
}

/// Asked within the transaction, before anything is written: whoever may change an object is known only once it is
/// known what would change, and must still hold when it does.
pub trait Guard: Sync {
    /// Why not.
    type Refusal: Send;

    /// The epoch of the policy that it judges by, where it does: a write is not judged by rights that were changed
    /// since.
    fn judges_by(&self) -> Option<u64>;

    /// The namespaces whose roles, bindings and denials it has to see.
    fn wants(&self, changes: &[Change]) -> Vec<String>;

    /// Whether the changes may be; `seen` is that as it is.
    fn judge(&self, changes: &[Change], seen: &PolicySet) -> Result<(), Self::Refusal>;
}

/// For whoever can write the database anyway.
struct Unguarded;

impl Guard for Unguarded {
    type Refusal = std::convert::Infallible;

    fn judges_by(&self) -> Option<u64> {
        None
    }

    fn wants(&self, _: &[Change]) -> Vec<String> {
        Vec::new()
    }

    fn judge(&self, _: &[Change], _: &PolicySet) -> Result<(), Self::Refusal> {
        Ok(())
    }
}

impl Store {
    /// Changes the policy.
    pub async fn write(&self, write: Write) -> Result<Applied, StoreError> {
        self.write_if(write, &Unguarded).await.map(|Ok(applied)| applied)
    }

    /// Changes the policy if `guard` lets it, or answers why it does not.
    pub async fn write_if<G: Guard>(
        &self,
        write: Write,
        guard: &G,
    ) -> Result<Result<Applied, G::Refusal>, StoreError> {
        let mut tx = self.database().begin().await?;
        let epoch = next_epoch(&mut tx).await?;
        if let Some(judged) = guard.judges_by()
            && governing(&mut tx, judged, epoch).await?
        {
            return Err(StoreError::Overtaken { judged, found: epoch - 1 });
        }
        if let Some(key) = &write.key
            && let Some(done) = idempotency::find(&mut tx, key, self.now()).await?
        {
            // What was done once is told only to who might do it now.
            let seen = select::who_may_what(&mut tx, &guard.wants(&done.changes)).await?;
            tx.rollback().await?;
            return Ok(guard.judge(&done.changes, &seen).map(|()| done));
        }
        if let Some(expected) = write.base.filter(|base| *base != epoch - 1) {
            return Err(StoreError::PolicyMoved { expected, found: epoch - 1 });
        }
        let before = before(&mut tx, &write).await?;
        check_expected(&before, &write)?;
        let changes = plan(&before, &write)?;
        let seen = select::who_may_what(&mut tx, &guard.wants(&changes)).await?;
        if let Err(refusal) = guard.judge(&changes, &seen) {
            tx.rollback().await?;
            return Ok(Err(refusal));
        }
        if changes.is_empty() || write.dry_run {
            let applied = Applied { epoch: epoch - 1, changes, replayed: false };
            match write.key.as_ref().filter(|_| !write.dry_run) {
                // Nothing was changed, and that is what the next request with this key must hear too.
                Some(key) => {
                    put_back_epoch(&mut tx).await?;
                    idempotency::keep(&mut tx, key, &applied, self.now()).await?;
                    tx.commit().await?;
                }
                None => {
                    // A trial does all that the write would, so that it fails where the write would.
                    self.perform(&mut tx, epoch, &applied.changes, &write.by).await?;
                    tx.rollback().await?;
                }
            }
            return Ok(Ok(applied));
        }
        self.perform(&mut tx, epoch, &changes, &write.by).await?;
        let applied = Applied { epoch, changes, replayed: false };
        if let Some(key) = &write.key {
            idempotency::keep(&mut tx, key, &applied, self.now()).await?;
        }
        self.commit(tx, epoch).await?;
        Ok(Ok(applied))
    }

    /// Makes `documents` the policy's objects of these names: the library's way, and `POST /v1/apply`'s.
    pub async fn apply(
        &self,
        documents: Vec<Document>,
        by: Authorship,
        prune: bool,
        dry_run: bool,
    ) -> Result<Applied, StoreError> {
        let operations = documents.into_iter().map(Operation::put).collect();
        self.write(Write { operations, prune, dry_run, expected: None, base: None, by, key: None }).await
    }

    /// Checks, writes rows and history, and tells other processes; the commit is the caller's.
    pub(super) async fn perform(
        &self,
        tx: &mut Tx,
        epoch: u64,
        changes: &[Change],
        by: &Authorship,
    ) -> Result<(), StoreError> {
        check_changes(tx, changes).await?;
        let administered = changes.iter().any(concerns_administrators) && somebody_administers(tx).await?;
        // All that makes room goes first, so that a name it held (a host, an `iss`) is free for what comes.
        for change in changes {
            let stays = change.object.kind == Kind::Role && change.after.is_some();
            if change.before.is_some() && !stays {
                rows::delete(tx, &change.object).await?;
            }
        }
        for document in changes.iter().filter_map(|change| change.after.as_ref()) {
            rows::put(tx, document, epoch).await?;
        }
        if administered && !somebody_administers(tx).await? {
            return Err(StoreError::LastAdministrator);
        }
        record(tx, epoch, &self.inner.clock, changes, by).await?;
        announce(tx, epoch).await
    }

    pub(super) async fn commit(&self, tx: Tx, epoch: u64) -> Result<(), StoreError> {
        tx.commit().await?;
        self.inner.written.send_replace(epoch);
        Ok(())
    }
}

/// Moves the epoch and takes the write lock with it.
pub(super) async fn next_epoch(tx: &mut Tx) -> Result<u64, StoreError> {
    let rows = tx.fetch("move the epoch", "UPDATE epoch SET n = n + 1 RETURNING n", &[]).await?;
    Ok(rows.first().ok_or(StoreError::NoEpoch)?.int("n")?.unsigned_abs())
}

/// Whether anything after `judged` and before `epoch` may have changed who administers what: rules of Tollgate
/// itself, what is cluster-scoped (issuers, their keys, revocations, administrators), or what the history does not tell.
async fn governing(tx: &mut Tx, judged: u64, epoch: u64) -> Result<bool, StoreError> {
    let between = epoch.saturating_sub(1).saturating_sub(judged);
    if between == 0 {
        return Ok(false);
    }
    let sql = "SELECT COUNT(DISTINCT epoch) AS told, COUNT(CASE WHEN namespace IN ('', $1) THEN 1 END) AS governing \
               FROM changes WHERE epoch > $2 AND epoch < $3";
    let bounds = [judged, epoch].map(|number| Value::Int(number.cast_signed()));
    let values = [Value::Text(SYSTEM_NAMESPACE), bounds[0], bounds[1]];
    let rows = tx.fetch("look for changes of rights", sql, &values).await?;
    let Some(row) = rows.first() else { return Ok(true) };
    Ok(row.int("governing")? > 0 || row.int("told")?.unsigned_abs() < between)
}

/// For a transaction that keeps something, but changes nothing of the policy.
async fn put_back_epoch(tx: &mut Tx) -> Result<(), StoreError> {
    tx.execute("put the epoch back", "UPDATE epoch SET n = n - 1", &[]).await?;
    Ok(())
}

pub(super) async fn announce(tx: &mut Tx, epoch: u64) -> Result<(), StoreError> {
    if tx.can_notify() {
        let epoch = epoch.to_string();
        // The server delivers this at the commit, not before.
        let values = [Value::Text(CHANNEL), Value::Text(&epoch)];
        tx.fetch("announce a change", "SELECT pg_notify($1, $2)::text AS told", &values).await?;
    }
    Ok(())
}

fn check_expected(before: &StoredSet, write: &Write) -> Result<(), StoreError> {
    let (Some(expected), Some(operation)) = (write.expected, write.operations.first()) else { return Ok(()) };
    let object = operation.object();
    let found = before.get(&object).map_or(0, |stored| stored.epoch);
    if found == expected { Ok(()) } else { Err(StoreError::Moved { object, expected, found }) }
}

/// What would change. Putting what is there already changes nothing.
fn plan(before: &StoredSet, write: &Write) -> Result<Vec<Change>, StoreError> {
    let mut wanted: PolicySet = PolicySet::new();
    let mut changes = Vec::new();
    for operation in &write.operations {
        match operation {
            Operation::Put(document) => {
                wanted.insert(document.id(), Document::clone(document));
            }
            Operation::Delete(id) => {
                let stored = before.get(id).ok_or_else(|| StoreError::NotFound(id.clone()))?;
                let before = Some(stored.document.clone());
                changes.push(Change { object: id.clone(), before, after: None });
            }
        }
    }
    if write.prune {
        let prunable = |id: &ObjectId| id.kind.is_namespaced() && id.namespace != SYSTEM_NAMESPACE;
        for (id, stored) in before.iter().filter(|(id, _)| prunable(id) && !wanted.contains_key(id)) {
            changes.push(Change { object: id.clone(), before: Some(stored.document.clone()), after: None });
        }
    }
    for (id, document) in wanted {
        let stored = before.get(&id).map(|stored| stored.document.clone());
        if stored.as_ref() != Some(&document) {
            changes.push(Change { object: id, before: stored, after: Some(document) });
        }
    }
    Ok(changes)
}

/// What the write speaks of, as it is. Whoever prunes speaks of everything.
async fn before(tx: &mut Tx, write: &Write) -> Result<StoredSet, StoreError> {
    if write.prune {
        return select::all(tx).await;
    }
    let mut found = StoredSet::new();
    for operation in &write.operations {
        let id = operation.object();
        if let Some(stored) = select::one(tx, &id).await? {
            found.insert(id, stored);
        }
    }
    Ok(found)
}

/// The policy must hold together afterwards. It did before, so only what is around the changes is looked at.
async fn check_changes(tx: &mut Tx, changes: &[Change]) -> Result<(), StoreError> {
    let mut put = PolicySet::new();
    let mut gone = BTreeSet::new();
    for change in changes {
        match &change.after {
            Some(document) => drop(put.insert(change.object.clone(), document.clone())),
            None => drop(gone.insert(change.object.clone())),
        }
    }
    let part = Part::of(tx, put, &gone).await?;
    check::check_within(&part.set, &part.around).map_err(StoreError::Invalid)?;
    Ok(())
}

/// Writes the history.
pub(super) async fn record(
    tx: &mut Tx,
    epoch: u64,
    clock: &Clock,
    changes: &[Change],
    by: &Authorship,
) -> Result<(), StoreError> {
    let json = |document: &Option<Document>| {
        document.as_ref().map(|document| serde_json::to_string(document).expect("a document is JSON"))
    };
    for (position, change) in (0_i64..).zip(changes) {
        let (before, after) = (json(&change.before), json(&change.after));
        tx.execute(
            "record a change",
            "INSERT INTO changes (epoch, position, at, author, reason, kind, namespace, name, before_json, \
             after_json) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                Value::Int(epoch.cast_signed()),
                Value::Int(position),
                Value::Int(clock.unix_seconds().cast_signed()),
                Value::Text(&by.author),
                Value::Text(&by.reason),
                Value::Text(change.object.kind.as_str()),
                Value::Text(&change.object.namespace),
                Value::Text(&change.object.name),
                Value::OptionalText(before.as_deref()),
                Value::OptionalText(after.as_deref()),
            ],
        )
        .await?;
    }
    Ok(())
}
