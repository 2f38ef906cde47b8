//! Rollouts: one record a plan, which every replica changes by the same rules.
//!
//! Each change begins with a statement that takes the lock of the record's row and reads it, so that replicas change it
//! one after the other, each from what the one before left. A rollout is no policy: it does not move the epoch, and its
//! history is its own.

use serde::Serialize;
use tollgate_rollout::{Action, Change, Plan, Record, Refused, Window};

use super::rollout_rows::{Hearing, Key, hear, make, note, put, record_of, stored, taken};
use super::sql::Value;
use super::{Authorship, IdempotencyKey, Store, StoreError, idempotency};

/// Who changes what nobody has asked for.
const OURSELVES: &str = "tollgate-authz";
/// A plan that was silent for so long is adopted anew when it is heard of again.
const SILENT_AFTER_MS: i64 = 120_000;
/// How old the note of the last report may be before it is written again though nothing was counted.
const NOTED_EVERY_MS: i64 = 20_000;

/// What one proxy saw.
#[derive(Debug, Clone)]
pub struct RolloutReport {
    /// Who saw it: a name that no other proxy has.
    pub proxy: String,
    /// Which of its windows this is; 0 for none.
    pub sequence: u64,
    /// What it saw.
    pub window: Window,
}

/// What became of reports.
#[derive(Debug)]
pub struct Heard {
    /// Where the rollout stands now.
    pub record: Record,
    /// What the reports changed, with the generation of each change.
    pub changes: Vec<(u64, Change)>,
    /// Windows that were counted.
    pub counted: usize,
    /// Windows that were counted before.
    pub repeated: usize,
    /// Windows that were not counted, because there was no room for one more proxy.
    pub crowded: usize,
}

/// A rollout as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRollout {
    /// Its plan's id.
    pub plan: String,
    /// Where it stands.
    pub record: Record,
    /// Since when its plan is followed, in Unix milliseconds.
    pub adopted_ms: i64,
    /// When a proxy last reported, in Unix milliseconds.
    pub reported_ms: i64,
    /// Whether it is the one in force of those of its name.
    pub in_force: bool,
}

/// On which terms something is done to a rollout.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActTerms<'t> {
    /// The state that the caller has seen, as in its etag; none: whatever it is.
    pub expected: Option<&'t str>,
    /// By which the same request is known again.
    pub key: Option<&'t IdempotencyKey>,
}

/// What came of it.
#[derive(Debug)]
pub struct Acted {
    /// The rollout as it is now.
    pub rollout: StoredRollout,
    /// What was changed, if anything had to be.
    pub change: Option<Change>,
    /// It was done before, under this key.
    pub replayed: bool,
}

/// Something that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct RolloutEvent {
    /// Its plan's id.
    pub plan: String,
    /// The generation from then on.
    pub generation: u64,
    /// Unix seconds.
    pub at: i64,
    /// Who did it; `tollgate-authz` where nobody had to.
    pub author: String,
    /// What was done.
    pub action: String,
    /// The state before.
    pub was: String,
    /// The state from then on.
    pub became: String,
    /// The canary's share from then on, in percent.
    pub weight: f64,
    /// Why.
    pub reason: String,
}

/// Why something about a rollout was not done.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are too many.
    #[error(
        "there are too many rollouts, or plans of this one; those that no proxy follows are forgotten after an hour"
    )]
    TooMany,
    /// There is none of this name.
    #[error("there is no rollout {0}/{1}; the first proxy that reports makes it")]
    NotFound(String, String),
    /// Somebody else changed it meanwhile.
    #[error("the rollout has changed meanwhile: expected {expected}, found {found}")]
    Moved {
        /// What the caller knew, as in its etag.
        expected: String,
        /// What there is.
        found: String,
    },
    /// It cannot be.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl StoredRollout {
    /// Names this state of it: `plan.generation`.
    pub fn tag(&self) -> String {
        format!("{}.{}", self.plan, self.record.generation)
    }
}

impl Store {
    /// Counts what proxies saw, each window once, and answers where the rollout stands. The first report makes it.
    pub async fn report_rollout(
        &self,
        plan: &Plan,
        reports: &[RolloutReport],
    ) -> Result<Heard, RolloutError> {
        let now = self.now_ms();
        let id = plan.id();
        let key = Key { namespace: plan.namespace(), name: &plan.name, plan: &id };
        if let Some(record) = self.unchanged(key, reports, now).await? {
            return Ok(Heard { record, changes: Vec::new(), counted: 0, repeated: 0, crowded: 0 });
        }
        let mut tx = self.database().begin().await?;
        let (mut record, adopted, reported) = match taken(&mut tx, key).await? {
            Some(taken) => taken,
            None => {
                make(&mut tx, key, plan, now).await?;
                taken(&mut tx, key).await?.ok_or(StoreError::BadRow {
                    what: format!("rollouts {}/{}", key.namespace, key.name),
                    problem: "it is gone at once".to_owned(),
                })?
            }
        };
        let (mut changes, mut counted, mut repeated, mut crowded) = (Vec::new(), 0, 0, 0);
        for report in reports {
            let window = match hear(&mut tx, key, report, now).await? {
                Hearing::New => {
                    counted += 1;
                    &report.window
                }
                Hearing::Nothing => &Window::default(),
                Hearing::Repeated => {
                    repeated += 1;
                    continue;
                }
                Hearing::NoRoom => {
                    crowded += 1;
                    continue;
                }
            };
            if let Some(change) = record.observe(window, now) {
                note(&mut tx, key, record.generation, &change, &Authorship::new(OURSELVES, ""), now).await?;
                changes.push((record.generation, change));
            }
        }
        let adopted = if now - reported > SILENT_AFTER_MS { now } else { adopted };
        put(&mut tx, key, &record, adopted, now).await?;
        tx.commit().await?;
        Ok(Heard { record, changes, counted, repeated, crowded })
    }

    /// The record, if these reports tell nothing that has to be kept: proxies without requests ask often.
    async fn unchanged(
        &self,
        key: Key<'_>,
        reports: &[RolloutReport],
        now: i64,
    ) -> Result<Option<Record>, StoreError> {
        if reports.iter().any(|report| report.sequence > 0) {
            return Ok(None);
        }
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT * FROM rollouts WHERE namespace = $1 AND name = $2 AND plan = $3";
        let rows = tx.fetch("read a rollout", sql, &key.values()).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let record = record_of(row)?;
        let is_noted = now - row.int("reported_at")? < NOTED_EVERY_MS;
        let stays = record.clone().observe(&Window::default(), now).is_none();
        Ok(Some(record).filter(|_| is_noted && stays))
    }

    /// Does what somebody wants of the plan in force, if it is as the caller has seen it, and under one key once.
    pub async fn act_on_rollout(
        &self,
        (namespace, name): (&str, &str),
        action: Action,
        terms: ActTerms<'_>,
        by: &Authorship,
    ) -> Result<Acted, RolloutError> {
        let now = self.now_ms();
        let found = self.rollout(namespace, name).await?;
        let found = found.ok_or_else(|| RolloutError::NotFound(namespace.to_owned(), name.to_owned()))?;
        let plan = found.plan.clone();
        let key = Key { namespace, name, plan: &plan };
        let mut tx = self.database().begin().await?;
        let Some((record, adopted, reported)) = taken(&mut tx, key).await? else {
            return Err(RolloutError::NotFound(namespace.to_owned(), name.to_owned()));
        };
        let mut rollout = StoredRollout { record, adopted_ms: adopted, reported_ms: reported, ..found };
        // The record's lock is taken: of two with one key the second sees what the first did.
        if let Some(key) = terms.key
            && idempotency::is_done(&mut tx, key, now / 1000).await?
        {
            tx.rollback().await?;
            return Ok(Acted { rollout, change: None, replayed: true });
        }
        if let Some(expected) = terms.expected.filter(|expected| **expected != rollout.tag()) {
            return Err(RolloutError::Moved { expected: expected.to_owned(), found: rollout.tag() });
        }
        let reason = if by.reason.is_empty() { format!("by {}", by.author) } else { by.reason.clone() };
        let change = rollout.record.act(action, reason, now)?;
        if let Some(change) = &change {
            note(&mut tx, key, rollout.record.generation, change, by, now).await?;
            put(&mut tx, key, &rollout.record, adopted, reported).await?;
        }
        // That nothing had to be changed is something to hear again, too.
        if let Some(key) = terms.key {
            idempotency::keep_done(&mut tx, key, now / 1000).await?;
        }
        tx.commit().await?;
        Ok(Acted { rollout, change, replayed: false })
    }

    /// The plan in force of a name.
    pub async fn rollout(&self, namespace: &str, name: &str) -> Result<Option<StoredRollout>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT * FROM rollouts WHERE namespace = $1 AND name = $2 ORDER BY adopted_at DESC, plan LIMIT 1";
        let rows = tx.fetch("read a rollout", sql, &[Value::Text(namespace), Value::Text(name)]).await?;
        rows.first().map(|row| stored(row, true)).transpose()
    }

    /// Rollouts after `after` (namespace, name, plan), in that order; at most `most`.
    pub async fn rollouts(
        &self,
        after: (&str, &str, &str),
        most: u32,
    ) -> Result<Vec<StoredRollout>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT r.*, (SELECT o.plan FROM rollouts o WHERE o.namespace = r.namespace AND o.name = r.name \
                   ORDER BY o.adopted_at DESC, o.plan LIMIT 1) AS current FROM rollouts r \
                   WHERE (r.namespace, r.name, r.plan) > ($1, $2, $3) ORDER BY r.namespace, r.name, r.plan LIMIT $4";
        let (namespace, name, plan) = after;
        let most = Value::Int(i64::from(most));
        let values = [Value::Text(namespace), Value::Text(name), Value::Text(plan), most];
        let rows = tx.fetch("read rollouts", sql, &values).await?;
        rows.iter().map(|row| stored(row, row.text("current")? == row.text("plan")?)).collect()
    }

    /// What happened to the plans of a name, the newest first; at most `most`.
    pub async fn rollout_events(
        &self,
        namespace: &str,
        name: &str,
        most: u32,
    ) -> Result<Vec<RolloutEvent>, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let sql = "SELECT * FROM rollout_events WHERE namespace = $1 AND name = $2 \
                   ORDER BY at DESC, plan, generation DESC LIMIT $3";
        let values = [Value::Text(namespace), Value::Text(name), Value::Int(i64::from(most))];
        let rows = tx.fetch("read a rollout's history", sql, &values).await?;
        rows.iter()
            .map(|row| {
                Ok(RolloutEvent {
                    plan: row.text("plan")?,
                    generation: row.int("generation")?.unsigned_abs(),
                    at: row.int("at")? / 1000,
                    author: row.text("author")?,
                    action: row.text("action")?,
                    was: row.text("was")?,
                    became: row.text("became")?,
                    weight: row.int("weight")? as f64 / 10_000.0,
                    reason: row.text("reason")?,
                })
            })
            .collect()
    }

    fn now_ms(&self) -> i64 {
        self.inner.clock.unix_millis().cast_signed()
    }
}
