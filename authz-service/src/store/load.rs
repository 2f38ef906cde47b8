//! Snapshots of what the database holds: made of all of it, or of the snapshot before and what has changed since.
//!
//! All is read at the start, and when the history does not tell every step (rows changed by hand, a database put
//! back, a history cut off). Otherwise rows of `changes` name the objects that moved; these are read as they are now,
//! checked with what is around them, and compiled into the next snapshot.
//!
//! What a faulty row does depends on when it is met. While the service runs, the snapshot that is in force stays, whole.
//! At the start there is none: an object that can only grant (an issuer, a role, a binding) is left out, since without it
//! less is allowed, and the log names it. Any other fault ends the start, since without a service, an enforcer, a denial
//! or a revocation more might pass than was meant.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::rows::Stored;
use super::sql::{Row, Tx, Value};
use super::surroundings::Part;
use super::{FetchedKeys, Store, StoreError, administrators, current_epoch, fetched_keys, select};
use crate::policy::check;
use crate::policy::compile::{Compiler, Fetched};
use crate::policy::model::Model;
use crate::policy::object::{Document, Kind, ObjectId, PolicySet};
use crate::policy::snapshot::Snapshot;
use crate::token::keys::KeySet;

/// Bindings are read and checked so many at a time: of a million, a hundredth is in memory twice.
const PAGE: u32 = 10_000;
/// After more changes than this all is read, which is then as quick.
const MAX_STEPS: i64 = 10_000;

/// What becomes of an object that cannot be used.
#[derive(Debug)]
enum OnFault {
    /// Nothing is loaded.
    Refuse,
    /// It is left out where that can only deny, and named here.
    LeaveOut(Vec<StoreError>),
}

/// The first snapshot, and what had to be left out of it.
pub async fn first_snapshot(store: &Store) -> Result<(Snapshot, Vec<StoreError>), StoreError> {
    let mut on_fault = OnFault::LeaveOut(Vec::new());
    let snapshot = whole(store, &Snapshot::default(), &mut on_fault).await?;
    match on_fault {
        OnFault::LeaveOut(left_out) => Ok((snapshot, left_out)),
        OnFault::Refuse => Ok((snapshot, Vec::new())),
    }
}

/// The snapshot after `previous`, by steps if the history tells them all.
pub async fn next_snapshot(store: &Store, previous: &Snapshot) -> Result<Snapshot, StoreError> {
    match by_steps(store, previous).await {
        Ok(Some(next)) => Ok(next),
        // Whether it was the step or what was there before that is faulty, the whole will tell.
        Ok(None) | Err(StoreError::Invalid(_) | StoreError::BadRow { .. }) => {
            tracing::info!(
                epoch = previous.epoch,
                "reading the whole policy: its history does not tell every step"
            );
            whole(store, previous, &mut OnFault::Refuse).await
        }
        Err(error) => Err(error),
    }
}

async fn whole(store: &Store, previous: &Snapshot, on_fault: &mut OnFault) -> Result<Snapshot, StoreError> {
    let mut tx = store.database().begin_read().await?;
    let epoch = current_epoch(&mut tx).await?;
    let mut compiler = Compiler::default();
    compiler.remember_confirmations(previous);
    let holders = administrators::load(&mut tx).await?;
    compiler.administrators(holders.into_iter().map(|holder| (holder.hash, holder.name.into())).collect());
    let mut fetched = Fetched::default();
    for keys in fetched_keys::load(&mut tx).await? {
        match parsed(keys) {
            Ok((place, keys)) => drop(fetched.insert(place, keys)),
            // They can be fetched again; until then the issuer's tokens are refused.
            Err(error) => on_fault.leave_out(Kind::Issuer, error)?,
        }
    }
    compiler.keys(fetched);

    let mut set = PolicySet::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Binding) {
        for stored in select::of_kind(&mut tx, kind).await? {
            on_fault.take(kind, stored, &mut set)?;
        }
    }
    compiler.put(checked(&mut set, &PolicySet::new(), on_fault)?);
    set.retain(|id, _| id.kind == Kind::Role);
    let roles = set;
    let mut last = ObjectId::new(Kind::Binding, "", "");
    loop {
        let rows = select::bindings_after(&mut tx, (&last.namespace, &last.name), PAGE).await?;
        let Some((id, _)) = rows.last() else { break };
        last = id.clone();
        let mut page = PolicySet::new();
        for (_, stored) in rows {
            on_fault.take(Kind::Binding, stored, &mut page)?;
        }
        compiler.put(checked(&mut page, &roles, on_fault)?);
    }
    Ok(compiler.finish(epoch))
}

/// Checks objects; with what cannot be used left out, if that may be.
fn checked(set: &mut PolicySet, around: &PolicySet, on_fault: &mut OnFault) -> Result<Model, StoreError> {
    loop {
        // What refers to an object that was left out is found the next time around.
        let faults = match check::check_within(set, around) {
            Ok(model) => return Ok(model),
            Err(faults) => faults,
        };
        if let OnFault::LeaveOut(_) = on_fault {
            let (can_go, cannot): (Vec<_>, Vec<_>) =
                faults.into_iter().partition(|fault| can_be_left_out(fault.object.kind));
            if !cannot.is_empty() {
                return Err(StoreError::Invalid(cannot));
            }
            for fault in can_go {
                set.remove(&fault.object);
                on_fault.leave_out(fault.object.kind, StoreError::Invalid(vec![fault]))?;
            }
        } else {
            return Err(StoreError::Invalid(faults));
        }
    }
}

/// Whether a policy without an object of this kind allows the same or less.
const fn can_be_left_out(kind: Kind) -> bool {
    match kind {
        Kind::Issuer | Kind::Role | Kind::Binding => true,
        Kind::Enforcer | Kind::Service | Kind::Denial | Kind::Revocation => false,
    }
}

impl OnFault {
    fn take(
        &mut self,
        kind: Kind,
        stored: Result<Stored, StoreError>,
        set: &mut PolicySet,
    ) -> Result<(), StoreError> {
        match stored {
            Ok(stored) => drop(set.insert(stored.document.id(), stored.document)),
            Err(error) => self.leave_out(kind, error)?,
        }
        Ok(())
    }

    fn leave_out(&mut self, kind: Kind, error: StoreError) -> Result<(), StoreError> {
        match self {
            Self::LeaveOut(left_out)
                if can_be_left_out(kind) && !matches!(error, StoreError::Query { .. }) =>
            {
                left_out.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// What moved since an epoch.
#[derive(Debug, Default)]
struct Steps {
    objects: BTreeSet<ObjectId>,
    /// Issuers whose fetched keys may be others.
    issuers: BTreeSet<String>,
    administrators: bool,
}

/// `None` where the history does not tell every step.
async fn by_steps(store: &Store, previous: &Snapshot) -> Result<Option<Snapshot>, StoreError> {
    let mut tx = store.database().begin_read().await?;
    let epoch = current_epoch(&mut tx).await?;
    let Some(steps) = steps(&mut tx, previous.epoch, epoch).await? else { return Ok(None) };
    let (mut put, mut gone) = (PolicySet::new(), BTreeSet::new());
    for id in steps.objects {
        match select::one(&mut tx, &id).await? {
            Some(stored) => drop(put.insert(id, stored.document)),
            None => drop(gone.insert(id)),
        }
    }
    let mut issuers = steps.issuers;
    issuers.extend(put.values().filter_map(|document| match document {
        Document::Issuer(spec) => Some(spec.name.clone()),
        _ => None,
    }));
    let part = Part::of(&mut tx, put, &gone).await?;
    let model = check::check_within(&part.set, &part.around).map_err(StoreError::Invalid)?;

    let mut compiler = Compiler::on(previous);
    if steps.administrators {
        let holders = administrators::load(&mut tx).await?;
        compiler
            .administrators(holders.into_iter().map(|holder| (holder.hash, holder.name.into())).collect());
    }
    let mut fetched = Fetched::default();
    for issuer in issuers {
        if let Some(keys) = fetched_keys::of_issuer(&mut tx, &issuer).await? {
            let (place, keys) = parsed(keys)?;
            fetched.insert(place, keys);
        }
    }
    compiler.keys(fetched);
    gone.iter().for_each(|id| compiler.remove(id));
    compiler.put(model);
    Ok(Some(compiler.finish(epoch)))
}

async fn steps(tx: &mut Tx, from: u64, to: u64) -> Result<Option<Steps>, StoreError> {
    let sql = "SELECT epoch, kind, namespace, name FROM changes WHERE epoch > $1 ORDER BY epoch LIMIT $2";
    let values = [Value::Int(from.cast_signed()), Value::Int(MAX_STEPS + 1)];
    let rows = tx.fetch("read what changed", sql, &values).await?;
    let mut steps = Steps::default();
    let mut told = from;
    for row in &rows {
        let epoch = row.int("epoch")?.unsigned_abs();
        if epoch > told + 1 || !steps.take(row)? {
            return Ok(None);
        }
        told = epoch;
    }
    let all = told == to && rows.len() <= MAX_STEPS.unsigned_abs() as usize;
    Ok(all.then_some(steps))
}

impl Steps {
    /// Whether we know what the row speaks of.
    fn take(&mut self, row: &Row) -> Result<bool, StoreError> {
        let (kind, name) = (row.text("kind")?, row.text("name")?);
        match kind.as_str() {
            "Administrator" => self.administrators = true,
            "IssuerKeys" => drop(self.issuers.insert(name)),
            kind => match Kind::ALL.into_iter().find(|known| known.as_str() == kind) {
                Some(kind) => drop(self.objects.insert(ObjectId::new(kind, row.text("namespace")?, name))),
                None => return Ok(false),
            },
        }
        Ok(true)
    }
}

type Parsed = ((String, String), (Arc<KeySet>, Arc<AtomicI64>));

fn parsed(keys: FetchedKeys) -> Result<Parsed, StoreError> {
    let FetchedKeys { issuer, url, jwks, confirmed_at } = keys;
    let bad = |problem| StoreError::BadRow { what: format!("issuer_keys {issuer}"), problem };
    let set = KeySet::parse_text(jwks.as_bytes()).map_err(bad)?;
    Ok(((issuer, url), (Arc::new(set), Arc::new(AtomicI64::new(confirmed_at)))))
}
