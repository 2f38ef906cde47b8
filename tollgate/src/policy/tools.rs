//! Questions about the policy: `lint`, `test`, `who-can`, `can`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use tollgate_authz::policy::cases::{self, Case, CaseResult};
use tollgate_authz::policy::documents::{self, Written};
use tollgate_authz::policy::hypothetical::snapshot_of;
use tollgate_authz::policy::lint::{Finding, Severity};
use tollgate_authz::policy::object::PolicySet;
use tollgate_authz::policy::spec::{ConditionSpec, ScopesSpec, WhoSpec};
use tollgate_authz::policy::who::{self, Grant, Somebody, Target};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

use super::place::{Place, Policy};
use super::{CanArgs, Deny, Draft, Format, read};
use crate::commands::say;

fn now() -> i64 {
    Clock::system().unix_seconds().cast_signed()
}

/// The policy in force with a draft laid over it, or either alone; and the draft.
async fn drafted(at: &Place, env: &Env, draft: &Draft) -> anyhow::Result<(PolicySet, u64, Vec<Written>)> {
    let Some(file) = &draft.file else {
        let (set, epoch) = Policy::open(at, env).await?.set(None).await?;
        return Ok((set, epoch, Vec::new()));
    };
    let written = read(file)?;
    let base = if draft.alone { None } else { Policy::open_if_any(at, env).await? };
    let (mut set, epoch) = match base {
        Some(policy) => policy.set(None).await?,
        None => (PolicySet::new(), 0),
    };
    set.extend(documents::policy_set(&written));
    Ok((set, epoch, written))
}

/// `policy lint`
pub(super) async fn lint(
    at: &Place,
    env: &Env,
    draft: &Draft,
    deny: Option<Deny>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let (set, _, written) = drafted(at, env, draft).await?;
    let mut findings = tollgate_authz::policy::lint::lint(&set, now());
    if !written.is_empty() {
        findings.retain(|finding| written.iter().any(|one| one.document.id() == finding.object));
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    if format == Format::Json {
        let answer = json!({ "findings": findings, "errors": errors, "warnings": warnings });
        say(&serde_json::to_string_pretty(&answer)?);
    } else {
        for finding in &findings {
            say(&placed(finding, &written));
        }
        say(&format!("{} objects: {errors} errors, {warnings} warnings, {notes} notes", set.len()));
    }
    let fails = errors > 0 || deny == Some(Deny::Warnings) && warnings > 0;
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A finding with the file and line where its object was written.
fn placed(finding: &Finding, written: &[Written]) -> String {
    let fault = tollgate_authz::policy::check::Fault {
        object: finding.object.clone(),
        key: finding.key.clone(),
        problem: String::new(),
    };
    let place = written.iter().find(|one| one.document.id() == finding.object).map(|one| {
        let line = documents::located(written, &fault).line.unwrap_or(one.line);
        format!("{}:{line}: ", one.file.display())
    });
    format!("{}{}", place.unwrap_or_default(), shown(finding))
}

/// A finding as a person reads it.
pub(super) fn shown(finding: &Finding) -> String {
    let Finding { code, severity, object, key, problem, remedy } = finding;
    format!("{}[{code}]: {object}: {key}: {problem}\n    {remedy}", severity.as_str())
}

/// `policy test`
pub(super) async fn test(
    at: &Place,
    env: &Env,
    file: &Path,
    draft: &Draft,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let cases: Vec<Case> = cases::load(file)?;
    let (set, epoch, written) = drafted(at, env, draft).await?;
    let snapshot = match snapshot_of(&set, epoch) {
        Ok(snapshot) => snapshot,
        Err(faults) => {
            let errors: Vec<_> = faults.iter().map(|fault| documents::located(&written, fault)).collect();
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(anyhow::Error::new(errors[0].clone()).context(lines.join("\n")));
        }
    };
    let results = cases::run(&snapshot, &cases, now());
    let failed = results.iter().filter(|result| !result.passed).count();
    if format == Format::Json {
        let answer = json!({ "results": results, "passed": results.len() - failed, "failed": failed });
        say(&serde_json::to_string_pretty(&answer)?);
    } else {
        for result in results.iter().filter(|result| !result.passed) {
            say(&failure(result));
        }
        say(&format!("{} cases: {} passed, {failed} failed", results.len(), results.len() - failed));
    }
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn failure(result: &CaseResult) -> String {
    let mut text = format!("FAILED {}\n    expected {}", result.name, result.expected);
    match (&result.judged, &result.problem) {
        (Some(judged), _) => {
            let word = match judged.verdict {
                tollgate_authz::decisions::VerdictName::Allow => "allow",
                tollgate_authz::decisions::VerdictName::Deny => "deny",
            };
            text.push_str(&format!("\n    got      {word} ({}) by {}", judged.reason, judged.rule));
            if let Some(explanation) = &judged.explanation {
                text.push_str(&format!("\n    because  {explanation}"));
            }
        }
        (None, problem) => {
            text.push_str(&format!("\n    but      {}", problem.as_deref().unwrap_or("it cannot be judged")));
        }
    }
    text
}

/// `policy who-can`
pub(super) async fn who_can(at: &Place, env: &Env, target: &Target) -> anyhow::Result<()> {
    let (set, _) = Policy::open(at, env).await?.set(None).await?;
    let found = who::who_can(&set, target, now())?;
    say(&format!("{} {} on {}", target.method, target.path, found.service));
    say(&format!(
        "  callers: {}",
        if found.callers.is_empty() { "none".to_owned() } else { found.callers.join(", ") }
    ));
    if found.grants.is_empty() {
        say("  nobody may");
    }
    for grant in &found.grants {
        say(&format!(
            "  {}  by {} → {}{}",
            whom(&grant.who),
            grant.binding,
            grant.permission,
            conditions(grant)
        ));
    }
    if !found.unheld.is_empty() {
        say(&format!("  held by nobody: {}", found.unheld.join(", ")));
    }
    Ok(())
}

/// `policy can`
pub(super) async fn can(args: CanArgs, env: &Env) -> anyhow::Result<()> {
    let CanArgs { subject, issuer, groups, client, workload, at } = args;
    let (set, _) = Policy::open(&at, env).await?.set(None).await?;
    let grants = who::can(&set, &Somebody { issuer, subject, groups, client, workload }, now());
    if grants.is_empty() {
        bail!("nothing is granted to them; `tollgate policy who-can` tells who may do something");
    }
    for grant in &grants {
        let what = match &grant.grpc {
            None => format!("{} {}", grant.methods.join(","), grant.paths.join(" ")),
            Some(grpc) if grpc.methods.is_empty() => format!("gRPC {}/*", grpc.service),
            Some(grpc) => format!("gRPC {}/{}", grpc.service, grpc.methods.join(",")),
        };
        let who =
            if grant.who.issuer.is_some() { format!("  as {}", whom(&grant.who)) } else { String::new() };
        let by = format!("by {} → {}", grant.binding, grant.permission);
        say(&format!("{what} on {}  {by}{who}{}", grant.service, conditions(grant)));
    }
    Ok(())
}

fn whom(who: &WhoSpec) -> String {
    let mut parts = Vec::new();
    if who.anyone {
        parts.push("anyone".to_owned());
    }
    if who.authenticated {
        parts.push("anyone with a token".to_owned());
    }
    for (name, value) in [
        ("subject", &who.subject),
        ("group", &who.group),
        ("client", &who.client),
        ("issuer", &who.issuer),
        ("workload", &who.workload),
    ] {
        parts.extend(value.as_ref().map(|value| format!("{name} {value}")));
    }
    parts.join(", ")
}

/// A condition on one line, as a file may have it.
fn as_written(condition: &ConditionSpec) -> String {
    serde_json::to_string(condition).unwrap_or_default()
}

fn conditions(grant: &Grant) -> String {
    let ScopesSpec { all, any } = &grant.scopes;
    let mut parts = Vec::new();
    if !all.is_empty() {
        parts.push(format!("scope {}", all.join(" ")));
    }
    if !any.is_empty() {
        parts.push(format!("a scope of {}", any.join(" ")));
    }
    parts.extend(grant.not_before.as_ref().map(|from| format!("from {from}")));
    parts.extend(grant.not_after.as_ref().map(|end| format!("until {end}")));
    let mut text = if parts.is_empty() { String::new() } else { format!("  with {}", parts.join(", ")) };
    for condition in &grant.when {
        text.push_str(&format!("  ONLY WHERE {}", as_written(condition)));
    }
    for denied in &grant.denied_by {
        let how = if denied.wholly { "DENIED" } else { "DENIED IN PART" };
        text.push_str(&format!("  {how} by {} ({})", denied.denial, whom(&denied.who)));
        if let Some(when) = &denied.when {
            text.push_str(&format!(" where {}", as_written(when)));
        }
    }
    if !grant.but.is_empty() {
        text.push_str(&format!("  BUT {}", grant.but.join(", ")));
    }
    text
}
