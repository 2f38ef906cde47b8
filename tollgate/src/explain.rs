//! `tollgate explain`: why a request was decided as it was.
//!
//! The authorization service remembers recent decisions; it is asked first (`--server`). What it has forgotten, the
//! dashboard has recorded (`--dashboard`, or the page that ran on the data folder), and the policy's history says what
//! the rules were then.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use tollgate_authz::policy::explain::{Candidate, Explanation, Holds, Predicate};
use tollgate_authz::policy::hypothetical::{Hypothetical, snapshot_of};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

use crate::commands::say;
use crate::https::Https;
use crate::policy::place::{Place, Policy, Remote, encoded};

/// How long the dashboard may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The id of a request, as in `x-request-id`, or of a decision.
    #[arg(value_name = "REQUEST_ID|DECISION_ID")]
    id: String,
    /// The dashboard's page, for what the authorization service has forgotten [default: the one that ran on the data folder]
    #[arg(long, value_name = "URL")]
    dashboard: Option<String>,
    #[command(flatten)]
    at: Place,
}

/// Does what `tollgate explain` says.
pub async fn run(args: ExplainArgs, env: &Env) -> anyhow::Result<()> {
    let ExplainArgs { id, dashboard, at } = args;
    if let Some(remote) = Remote::of(&at, env)?
        && let Some(found) = remote.find(&format!("/v1/decisions/{}/explain", encoded(&id))).await?
    {
        tell_decision(&found)?;
        return Ok(());
    }
    let data = at.data.path(env);
    let record = Dashboard::open(dashboard.as_deref(), &data, &at.https, env).await?.record(&id).await?;
    tell_record(&record);
    let (asked, epoch) = question(&record);
    match (Policy::open_if_any(&at, env).await?, epoch) {
        (Some(Policy::There(remote)), epoch) => {
            let body = json!({ "who": asked.who, "what": asked.what, "epoch": epoch });
            tell_answer(&remote.post("/v1/explain", &body).await?)?;
        }
        (Some(Policy::Here(store)), Some(epoch)) => {
            let (set, _) = store.policy_at(epoch).await?;
            let snapshot = snapshot_of(&set, epoch).map_err(|faults| {
                anyhow::anyhow!("the policy of epoch {epoch} cannot be used: {}", faults[0])
            })?;
            let now = Clock::system().unix_seconds().cast_signed();
            let explanation = asked.explain(&snapshot, now).map_err(anyhow::Error::msg)?;
            say(&format!("by the policy of epoch {epoch}:"));
            say(&tree(&explanation));
        }
        _ => say("the policy of that time is not at hand; name the data folder with --data"),
    }
    Ok(())
}

fn tell_decision(found: &Value) -> anyhow::Result<()> {
    let decision = &found["decision"];
    let text = |key: &str| decision[key].as_str().unwrap_or("-");
    say(&format!(
        "{} {} on {}: {} ({})",
        text("method"),
        text("path"),
        text("service"),
        text("verdict"),
        text("reason")
    ));
    say(&format!("  decision {} of epoch {}, request {}", text("id"), decision["epoch"], text("request_id")));
    let token = &decision["token"];
    let who = token["subject"].as_str().map_or_else(
        || format!("token {}", token["state"].as_str().unwrap_or("absent")),
        |subject| format!("{subject} of {}", token["issuer"].as_str().unwrap_or("-")),
    );
    say(&format!(
        "  by {who}{}",
        decision["peer"].as_str().map(|peer| format!(", from {peer}")).unwrap_or_default()
    ));
    if let Some(why) = decision["explanation"].as_str() {
        say(&format!("  because {why}"));
    }
    let gone: Vec<&str> =
        found["not_kept"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !gone.is_empty() {
        say(&format!("  read but not kept, so judged as if absent below: {}", gone.join(", ")));
    }
    for (key, words) in [("then", "by the policy of then"), ("now", "by the policy in force now")] {
        if !found[key].is_null() {
            say(&format!("{words} (epoch {}):", found[key]["epoch"]));
            tell_answer(&found[key])?;
        }
    }
    Ok(())
}

fn tell_answer(answer: &Value) -> anyhow::Result<()> {
    let explanation: Explanation = serde_json::from_value(answer["explanation"].clone())
        .context("the service's answer has no explanation")?;
    say(&tree(&explanation));
    Ok(())
}

/// The tree of rules that spoke of the request.
fn tree(explanation: &Explanation) -> String {
    let Explanation { decision, reason, rule, .. } = explanation;
    let mut text = format!("{decision} ({reason}) by {rule}");
    if let Some(tried) = &explanation.dry_run {
        text.push_str(&format!("\n  on trial: {} ({}) by {}", tried.decision, tried.reason, tried.rule));
    }
    if explanation.readings.len() > 1 {
        for reading in &explanation.readings {
            text.push_str(&format!(
                "\n  read as {}: {} ({})",
                reading.path, reading.decision, reading.reason
            ));
        }
    }
    if !explanation.caller_gate.is_empty() {
        text.push_str("\n├─ caller gate");
        explanation.caller_gate.iter().for_each(|one| text.push_str(&line(one)));
    }
    for denial in &explanation.denials {
        text.push_str(&candidate("denial", denial));
    }
    for grant in &explanation.grants {
        text.push_str(&candidate("grant", grant));
    }
    if explanation.grants.is_empty() {
        text.push_str("\n└─ no permission speaks of this path");
    }
    if explanation.cut_off {
        text.push_str("\n   and more that are not listed");
    }
    text
}

fn candidate(kind: &str, of: &Candidate) -> String {
    let names: Vec<&str> = [&of.rule, &of.permission].into_iter().flatten().map(String::as_str).collect();
    let trial = if of.dry_run { ", on trial" } else { "" };
    let mut text =
        format!("\n├─ {kind} {}{}{trial}", names.join(" → "), if of.applies { ": applies" } else { "" });
    of.predicates.iter().for_each(|one| text.push_str(&line(one)));
    text
}

fn line(of: &Predicate) -> String {
    let sign = match of.holds {
        Holds::Yes => "✓",
        Holds::No => "✗",
        Holds::Error => "!",
    };
    let found =
        of.found.as_ref().map(|found| format!(", has {}", if found.is_empty() { "none" } else { found }));
    format!("\n│    {sign} {}: {}{}", of.name, of.wanted, found.unwrap_or_default())
}

fn attribute<'r>(record: &'r Value, key: &str) -> Option<&'r Value> {
    let groups = record["groups"].as_array().into_iter().flatten();
    let mut attributes = groups.flat_map(|group| group["attributes"].as_array().into_iter().flatten());
    attributes.find(|one| one["key"] == key).map(|one| &one["value"])
}

fn tell_record(record: &Value) {
    say(record["headline"].as_str().unwrap_or("a request"));
    say(&format!(
        "  as the dashboard recorded it at {}",
        record["time"].as_str().unwrap_or("an unknown time")
    ));
    for (key, words) in [
        ("tollgate.authz.explanation", "because"),
        ("security_rule.name", "rule"),
        ("tollgate.authz.decision_id", "decision"),
        ("tollgate.authz.epoch", "epoch"),
    ] {
        if let Some(value) = attribute(record, key) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            say(&format!("  {words} {value}"));
        }
    }
}

/// What the record keeps of the request, as a question to the policy; and the epoch that answered.
fn question(record: &Value) -> (Hypothetical, Option<u64>) {
    let text = |key: &str| attribute(record, key).and_then(Value::as_str).map(str::to_owned);
    let list = |key: &str| -> Vec<String> {
        let items = attribute(record, key).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let mut asked = Hypothetical::default();
    let destination = text("tollgate.destination.workload");
    asked.what.service = text("tollgate.destination.namespace")
        .zip(destination)
        .map(|(namespace, name)| format!("{namespace}/{name}"));
    asked.what.host = text("server.address");
    asked.what.method = text("http.request.method").unwrap_or_default();
    asked.what.path = text("url.path").unwrap_or_default();
    asked.what.at = record["time"].as_str().and_then(|time| time.parse().ok());
    asked.who.issuer = text("tollgate.token.issuer");
    asked.who.subject = text("enduser.id");
    asked.who.client = text("tollgate.token.client_id");
    asked.who.scopes = list("tollgate.token.scopes");
    asked.who.groups = list("tollgate.token.groups");
    asked.who.workload = text("tollgate.source.principal");
    (asked, attribute(record, "tollgate.authz.epoch").and_then(Value::as_u64))
}

/// The operator's page, signed in.
struct Dashboard {
    client: reqwest::Client,
    page: String,
    cookie: String,
}

impl Dashboard {
    /// Signs in with a one-use link of the data folder, which only its owner can make.
    async fn open(url: Option<&str>, data: &Path, https: &Https, env: &Env) -> anyhow::Result<Self> {
        let link = crate::up::login_link(data).await.context(
            "the decision is not remembered (any more), and no dashboard keeps its data in this folder; name the folder with --data",
        )?;
        let (page, token) = link.split_once("/login#token=").context("the dashboard's link has no token")?;
        let page = url.unwrap_or(page).trim_end_matches('/').to_owned();
        let client = https.client(&page, env, TIMEOUT)?;
        let request = client.post(format!("{page}/api/v1/auth/login")).json(&json!({ "token": token }));
        let answer =
            request.send().await.with_context(|| format!("the dashboard at {page} does not answer"))?;
        if !answer.status().is_success() {
            bail!(
                "the dashboard at {page} does not take the link of {}: {}",
                data.display(),
                answer.status()
            );
        }
        let cookie = answer.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok());
        let cookie =
            cookie.and_then(|cookie| cookie.split(';').next()).context("the dashboard gives no session")?;
        Ok(Self { cookie: cookie.to_owned(), client, page })
    }

    /// The record of a request where authorization spoke, by its id or by that of its decision.
    async fn record(&self, id: &str) -> anyhow::Result<Value> {
        let request = self.client.get(format!("{}/api/v1/requests/{}", self.page, encoded(id)));
        let answer =
            request.header("cookie", &self.cookie).send().await.context("the dashboard does not answer")?;
        if !answer.status().is_success() {
            bail!("neither the authorization service nor the dashboard knows a request {id}");
        }
        let mut detail: Value = answer.json().await?;
        let Some(Value::Array(mut records)) = detail.get_mut("records").map(Value::take) else {
            bail!("the dashboard has no record of {id}");
        };
        let decided =
            records.iter().position(|one| attribute(one, "tollgate.authz.decision").is_some()).unwrap_or(0);
        if records.is_empty() {
            bail!("the dashboard has no record of {id}");
        }
        Ok(records.swap_remove(decided))
    }
}
