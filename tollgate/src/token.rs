//! `tollgate token verify`: a token explained to a person.
//!
//! On the machine that holds the policy it is judged here, by the rules and keys in the database; elsewhere a running
//! service is asked. Both say the same: every check, ticked or crossed, then what the token claims and what policy
//! would read. No part of the signature is printed.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tollgate_authz::config::KeysConfig;
use tollgate_authz::store::{Store, load};
use tollgate_authz::token::keys::SharedSecrets;
use tollgate_authz::token::{Judge, Occasion};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

use crate::commands::say;
use crate::policy;
use crate::policy::place::{Place, Remote};

/// More is no token.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

/// `tollgate token …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Explain a token: every check, what it claims, what policy would read. Exit code 1 when it is no good.
    Verify(VerifyArgs),
}

/// What to explain, and by which policy.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The token; `-` reads it from standard input, where other users of this machine cannot see it.
    #[arg(default_value = "-")]
    token: String,
    /// A service, as namespace/name, to which it would be presented.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    at: Place,
}

/// Does what `tollgate token …` says.
pub async fn run(command: Command, env: &Env) -> anyhow::Result<ExitCode> {
    let Command::Verify(args) = command;
    let token = read(&args.token)?;
    let explanation = match Remote::of(&args.at, env)? {
        Some(remote) => ask(&remote, &token, args.service.as_deref()).await?,
        None => judge(&args, &token, env).await?,
    };
    for line in lines(&explanation) {
        say(&line);
    }
    Ok(if explanation["verdict"] == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.trim().to_owned());
    }
    let mut text = String::new();
    std::io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text).context("cannot read standard input")?;
    let token = text.trim().trim_start_matches("Bearer ").trim().to_owned();
    if token.is_empty() {
        bail!("standard input holds no token");
    }
    Ok(token)
}

/// Judges by the database of this machine.
async fn judge(args: &VerifyArgs, token: &str, env: &Env) -> anyhow::Result<Value> {
    let data = args.at.data.path(env);
    if env.var("TOLLGATE_DATABASE_URL").is_none() && !data.join("authz.db").exists() {
        bail!("no policy in {}; name the folder with --data, or a service with --server", data.display());
    }
    let store = Store::open(&policy::database_url(&data, env), Clock::system()).await?;
    let (snapshot, left_out) = load::first_snapshot(&store).await?;
    for fault in left_out {
        say(&format!("  ! left out of the policy: {fault}"));
    }
    let service = match &args.service {
        None => None,
        Some(key) => Some(snapshot.service(key).with_context(|| format!("there is no service `{key}`"))?),
    };
    let service = service.map(|rules| &*rules.service);
    let max_stale = i64::try_from(KeysConfig::default().max_stale.as_secs()).unwrap_or(i64::MAX);
    // Secrets are in the configuration of the service; here such a token is said to have unknown keys.
    let secrets = SharedSecrets::default();
    let judge = Judge { snapshot: &snapshot, secrets: &secrets, max_stale };
    let audiences = service.map_or(&[][..], |service| &service.audiences);
    let now = Clock::system().unix_seconds().cast_signed();
    let explanation = judge.explain(token, service, &Occasion { audiences, holder: None, now });
    store.close().await;
    Ok(serde_json::to_value(explanation)?)
}

/// Asks a running service.
async fn ask(remote: &Remote, token: &str, service: Option<&str>) -> anyhow::Result<Value> {
    let mut question = json!({ "token": token });
    if let Some(service) = service {
        question["service"] = json!(service);
    }
    remote.post("/v1/token/verify", &question).await
}

/// The explanation as lines to read.
fn lines(explanation: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let object = |value: &Value| {
        let members = value.as_object().into_iter().flatten();
        members.map(|(name, value)| format!("  {name}: {value}")).collect::<Vec<_>>()
    };
    for (title, key) in [("header", "header"), ("claims, as the token has them", "claims")] {
        if explanation[key].is_object() {
            lines.push(format!("{title}:"));
            lines.extend(object(&explanation[key]));
        }
    }
    lines.push("checks, said of the token:".to_owned());
    for step in explanation["checks"].as_array().into_iter().flatten() {
        let text = |name: &str| step[name].as_str().unwrap_or_default();
        if step["passed"] == true {
            lines.push(format!("  ✓ {}", text("says")));
        } else {
            let (code, reason) = (text("check"), text("reason"));
            lines.push(format!("  ✗ {}: {} [{reason}, {code}]", text("says"), text("detail")));
        }
    }
    if explanation["reads"].is_object() {
        lines.push("what policy reads:".to_owned());
        lines.extend(object(&explanation["reads"]));
    }
    let verdict = explanation["verdict"].as_str().unwrap_or("unknown");
    lines.push(format!("verdict: {verdict}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_readable() {
        let explanation = json!({
            "verdict": "token_expired",
            "header": {"alg": "ES256"},
            "claims": {"sub": "reader"},
            "checks": [
                {"check": "signature", "says": "has a signature that verifies", "passed": true},
                {"check": "expiry", "says": "has not expired (exp)", "passed": false,
                    "reason": "token_expired", "detail": "exp has passed"},
            ],
            "reads": {"subject": "reader"},
        });
        assert_eq!(
            lines(&explanation),
            [
                "header:",
                "  alg: \"ES256\"",
                "claims, as the token has them:",
                "  sub: \"reader\"",
                "checks, said of the token:",
                "  ✓ has a signature that verifies",
                "  ✗ has not expired (exp): exp has passed [token_expired, expiry]",
                "what policy reads:",
                "  subject: \"reader\"",
                "verdict: token_expired",
            ]
        );
    }
}
