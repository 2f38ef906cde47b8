//! What changes the policy, or shows what would: `apply`, `rollback`, `diff -f`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use tollgate_authz::policy::diff;
use tollgate_authz::policy::documents::{self, Written};
use tollgate_authz::policy::lint::{Finding, lint};
use tollgate_authz::policy::object::Document;
use tollgate_authz::store::{Applied, Authorship, Store, StoreError, Write};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

use super::object_name::ObjectName;
use super::place::{Place, Policy};
use super::{author, read, tools};
use crate::commands::say;

/// What a change did, or would do.
struct Told {
    diff: String,
    epoch: u64,
    warnings: Vec<Finding>,
}

/// `policy apply`
pub(super) async fn apply(
    at: &Place,
    env: &Env,
    file: &Path,
    (prune, dry_run): (bool, bool),
    reason: &str,
) -> anyhow::Result<()> {
    let written = read(file)?;
    let told = applied(&Policy::open(at, env).await?, &written, (prune, dry_run), reason).await?;
    print(&told, dry_run);
    Ok(())
}

/// `policy diff -f`
pub(super) async fn diff(at: &Place, env: &Env, file: &Path, prune: bool) -> anyhow::Result<()> {
    let written = read(file)?;
    let told = applied(&Policy::open(at, env).await?, &written, (prune, true), "diff").await?;
    say(if told.diff.is_empty() { "no difference" } else { told.diff.trim_end() });
    Ok(())
}

async fn applied(
    policy: &Policy,
    written: &[Written],
    (prune, dry_run): (bool, bool),
    reason: &str,
) -> anyhow::Result<Told> {
    let documents: Vec<Document> = written.iter().map(|w| w.document.clone()).collect();
    match policy {
        Policy::Here(store) => {
            let by = Authorship::new(author(), reason);
            let applied = store.apply(documents, by, prune, dry_run).await;
            told_here(store, applied.map_err(|error| explain(error, written))?).await
        }
        Policy::There(remote) => {
            let body =
                json!({ "documents": documents, "prune": prune, "dry_run": dry_run, "reason": reason });
            told_there(&remote.post("/v1/apply", &body).await?)
        }
    }
}

/// `policy rollback`
pub(super) async fn rollback(
    at: &Place,
    env: &Env,
    epoch: u64,
    object: Option<ObjectName>,
    dry_run: bool,
    reason: Option<String>,
) -> anyhow::Result<()> {
    let reason = reason.unwrap_or_else(|| format!("rollback to epoch {epoch}"));
    let object = object.map(|name| name.0);
    let told = match Policy::open(at, env).await? {
        Policy::Here(store) => {
            let (operations, base) = store.restoring(epoch, object.as_ref()).await?;
            let by = Authorship::new(author(), reason);
            let write =
                Write { operations, prune: false, dry_run, expected: None, base: Some(base), by, key: None };
            let applied = store.write(write).await?;
            told_here(&store, applied).await?
        }
        Policy::There(remote) => {
            let body = json!({ "epoch": epoch, "object": object, "dry_run": dry_run, "reason": reason });
            told_there(&remote.post("/v1/rollback", &body).await?)?
        }
    };
    print(&told, dry_run);
    Ok(())
}

fn print(told: &Told, dry_run: bool) {
    if !told.diff.is_empty() {
        say(told.diff.trim_end());
    }
    for finding in &told.warnings {
        say(&tools::shown(finding));
    }
    let epoch = told.epoch;
    match (told.diff.is_empty(), dry_run) {
        (true, _) => say(&format!("nothing to change at epoch {epoch}")),
        (false, true) => say(&format!("dry run: nothing was changed, epoch {epoch}")),
        (false, false) => say(&format!("applied as epoch {epoch}")),
    }
}

/// With what the linter says of the objects that changed.
async fn told_here(store: &Store, applied: Applied) -> anyhow::Result<Told> {
    let mut set = store.load().await?.objects.into_iter().map(|(id, stored)| (id, stored.document)).collect();
    overlay(&mut set, &applied);
    let mut warnings = lint(&set, Clock::system().unix_seconds().cast_signed());
    warnings.retain(|finding| applied.changes.iter().any(|change| change.object == finding.object));
    Ok(Told { diff: diff::print(&applied.changes), epoch: applied.epoch, warnings })
}

/// Of a dry run the database knows nothing.
fn overlay(set: &mut tollgate_authz::policy::object::PolicySet, applied: &Applied) {
    for change in &applied.changes {
        match &change.after {
            Some(document) => set.insert(change.object.clone(), document.clone()),
            None => set.remove(&change.object),
        };
    }
}

fn told_there(answer: &Value) -> anyhow::Result<Told> {
    Ok(Told {
        diff: answer["diff"].as_str().context("the service's answer has no diff")?.to_owned(),
        epoch: answer["epoch"].as_u64().unwrap_or_default(),
        warnings: serde_json::from_value(answer["warnings"].clone()).unwrap_or_default(),
    })
}

/// Puts the file and line to a fault that the store found.
fn explain(error: StoreError, written: &[Written]) -> anyhow::Error {
    match documents::check(written) {
        Err(errors) if !errors.is_empty() => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::Error::new(errors[0].clone()).context(lines.join("\n"))
        }
        _ => error.into(),
    }
}
