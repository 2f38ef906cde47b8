//! `tollgate rollout`: canaries, where they stand and why, and what an operator wants of them.
//!
//! Asks the admin API of a running service, or the database of this machine; both give the same answers.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use tollgate_authz::admin::rollout_json;
use tollgate_authz::store::{ActTerms, Authorship, Store};
use tollgate_rollout::Action;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Env;

use crate::commands::say;
use crate::policy::author;
use crate::policy::place::{Place, Policy, encoded};

/// Rollouts that are listed.
const MOST: u32 = 1000;

/// `tollgate rollout …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every rollout, and where it stands.
    List {
        /// Those of plans that were replaced too.
        #[arg(long)]
        all: bool,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Box<Place>,
    },
    /// One rollout: its steps, what was counted, what the analysis says, what it waits for, what happened.
    Show {
        #[command(flatten)]
        one: One,
    },
    /// Stay at this step. Evidence against the canary rolls it back all the same.
    Pause {
        #[command(flatten)]
        one: One,
    },
    /// Go on from step to step.
    Resume {
        #[command(flatten)]
        one: One,
    },
    /// Go to the next step now; from the last one, every request goes to the canary.
    Promote {
        /// Past all steps that are left.
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        one: One,
    },
    /// Roll back: no request goes to the canary.
    Abort {
        #[command(flatten)]
        one: One,
    },
    /// Begin again at the first step, with nothing known.
    Restart {
        #[command(flatten)]
        one: One,
    },
}

/// Which rollout, and why.
#[derive(Debug, Args)]
pub struct One {
    /// `namespace/name`
    #[arg(value_name = "ROLLOUT")]
    name: String,
    /// For its history.
    #[arg(long, default_value = "")]
    reason: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Box<Place>,
}

/// Does what `tollgate rollout …` says.
pub async fn run(command: Command, env: &Env) -> anyhow::Result<()> {
    match command {
        Command::List { all, json, at } => list(&at, env, all, json).await,
        Command::Show { one } => show(&one, env).await,
        Command::Pause { one } => act(&one, env, Action::Pause, "pause").await,
        Command::Resume { one } => act(&one, env, Action::Resume, "resume").await,
        Command::Promote { full: false, one } => act(&one, env, Action::Promote, "promote").await,
        Command::Promote { full: true, one } => {
            act(&one, env, Action::PromoteFully, "promote?fully=true").await
        }
        Command::Abort { one } => act(&one, env, Action::RollBack, "rollback").await,
        Command::Restart { one } => act(&one, env, Action::Restart, "restart").await,
    }
}

async fn list(at: &Place, env: &Env, all: bool, json: bool) -> anyhow::Result<()> {
    let mut rollouts: Vec<Value> = match Policy::open(at, env).await? {
        Policy::Here(store) => {
            let rows = store.rollouts(("", "", ""), MOST).await?;
            rows.into_iter().map(|row| rollout_json(row, now_ms())).collect()
        }
        Policy::There(remote) => {
            let mut page = remote.get(&format!("/v1/rollouts?limit={MOST}")).await?;
            serde_json::from_value(page["items"].take()).context("the service's answer has no rollouts")?
        }
    };
    rollouts.retain(|one| all || one["in_force"] == true);
    if json {
        say(&format!("{:#}", Value::from(rollouts)));
    } else if rollouts.is_empty() {
        say("no rollout: the first proxy with `rollout:` on a route makes one");
    } else {
        rollouts.iter().for_each(|one| say(&line(one)));
    }
    Ok(())
}

async fn show(one: &One, env: &Env) -> anyhow::Result<()> {
    let (namespace, name) = one.parts()?;
    let (rollout, events) = match Policy::open(&one.at, env).await? {
        Policy::Here(store) => (here(&store, one).await?, {
            let events = store.rollout_events(namespace, name, 20).await?;
            serde_json::to_value(events)?
        }),
        Policy::There(remote) => {
            let path = one.path()?;
            let mut events = remote.get(&format!("{path}/events?limit=20")).await?;
            (remote.get(&path).await?, events["items"].take())
        }
    };
    if one.json {
        say(&format!("{rollout:#}"));
    } else {
        lines(&rollout, &events).iter().for_each(|line| say(line));
    }
    Ok(())
}

async fn here(store: &Store, one: &One) -> anyhow::Result<Value> {
    let (namespace, name) = one.parts()?;
    let found = store.rollout(namespace, name).await?;
    let found = found.with_context(|| format!("there is no rollout {}", one.name))?;
    Ok(rollout_json(found, now_ms()))
}

async fn act(one: &One, env: &Env, action: Action, path: &str) -> anyhow::Result<()> {
    let rollout = match Policy::open(&one.at, env).await? {
        Policy::Here(store) => {
            let by = Authorship::new(author(), one.reason.clone());
            let terms = ActTerms::default();
            let rollout = store.act_on_rollout(one.parts()?, action, terms, &by).await?.rollout;
            rollout_json(rollout, now_ms())
        }
        Policy::There(remote) => remote.act(&format!("{}/{path}", one.path()?), &one.reason).await?,
    };
    say(&if one.json { format!("{rollout:#}") } else { line(&rollout) });
    Ok(())
}

impl One {
    fn parts(&self) -> anyhow::Result<(&str, &str)> {
        match self.name.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok((namespace, name))
            }
            _ => bail!(
                "`{}` is no rollout; expected namespace/name, as `tollgate rollout list` has them",
                self.name
            ),
        }
    }

    fn path(&self) -> anyhow::Result<String> {
        let (namespace, name) = self.parts()?;
        Ok(format!("/v1/namespaces/{}/rollouts/{}", encoded(namespace), encoded(name)))
    }
}

fn now_ms() -> i64 {
    Clock::system().unix_millis().cast_signed()
}

/// A rollout in a line.
fn line(rollout: &Value) -> String {
    let text = |key: &str| rollout[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!(
        "{}/{}: {}, {} gets {} % (step {} of {})",
        text("namespace"),
        text("name"),
        text("state"),
        text("canary"),
        rollout["weight"],
        rollout["step"],
        rollout["steps"].as_array().map_or(0, Vec::len),
    );
    if rollout["in_force"] != true {
        line.push_str(&format!("; replaced plan {}", text("plan")));
    }
    match rollout["waits_for"].as_str() {
        Some(waits) => line.push_str(&format!("; waits for {waits}")),
        None => line.push_str(&format!("; {}", text("reason"))),
    }
    line
}

/// All that there is to say.
fn lines(rollout: &Value, events: &Value) -> Vec<String> {
    let steps = rollout["steps"].as_array().into_iter().flatten().map(|step| {
        let hold =
            step["hold_seconds"].as_f64().map_or("until promoted".to_owned(), |hold| format!("for {hold} s"));
        format!("{} % {hold}", step["weight"])
    });
    let (answers, analysis) = (&rollout["answers"], &rollout["analysis"]);
    let odds = |key: &str| analysis[key].as_f64().unwrap_or_default();
    let mut lines = vec![
        line(rollout),
        format!("  because: {}", rollout["reason"].as_str().unwrap_or("-")),
        format!("  steps: {}; then all", steps.collect::<Vec<_>>().join(", ")),
        format!(
            "  answers: {} of {} failed, {} of {} of the baseline {}; {} of {} in this step",
            answers["canary_failed"],
            answers["canary"],
            answers["baseline_failed"],
            answers["baseline"],
            rollout["baseline"].as_str().unwrap_or("-"),
            answers["in_step"],
            answers["wanted_in_step"],
        ),
        format!(
            "  evidence: that it fails more {:.2} : 1, that it is slower {:.2} : 1; rolled back from {:.0} : 1 on",
            odds("fails_more"),
            odds("is_slower"),
            odds("rolled_back_from"),
        ),
    ];
    for event in events.as_array().into_iter().flatten() {
        let at = event["at"].as_i64().and_then(|at| jiff::Timestamp::from_second(at).ok());
        lines.push(format!(
            "  {} {} -> {} at {} %, by {}: {}",
            at.map_or("-".to_owned(), |at| at.to_string()),
            event["action"].as_str().unwrap_or("-"),
            event["became"].as_str().unwrap_or("-"),
            event["weight"],
            event["author"].as_str().unwrap_or("-"),
            event["reason"].as_str().unwrap_or("-"),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_reads_well() {
        let rollout = json!({
            "namespace": "insurance", "name": "v1-1", "state": "progressing", "canary": "v1-1 (1.1)",
            "baseline": "v1-0 (1.0)", "weight": 10.0, "step": 1, "in_force": true, "plan": "ab",
            "steps": [{"weight": 10.0, "hold_seconds": 60.0}, {"weight": 50.0}],
            "reason": "the first proxy has reported", "waits_for": "the end of the step, in 12 s",
            "answers": {"canary": 90, "canary_failed": 1, "baseline": 800, "baseline_failed": 2, "in_step": 90, "wanted_in_step": 100},
            "analysis": {"fails_more": 0.514, "is_slower": 1.0, "rolled_back_from": 2000.0}
        });
        let events = json!([{"at": 0, "action": "step", "became": "progressing", "weight": 50.0, "author": "tollgate-authz",
            "reason": "100 answers in 60.0 s"}]);
        assert_eq!(
            lines(&rollout, &events),
            [
                "insurance/v1-1: progressing, v1-1 (1.1) gets 10.0 % (step 1 of 2); waits for the end of the step, in 12 s",
                "  because: the first proxy has reported",
                "  steps: 10.0 % for 60 s, 50.0 % until promoted; then all",
                "  answers: 1 of 90 failed, 2 of 800 of the baseline v1-0 (1.0); 90 of 100 in this step",
                "  evidence: that it fails more 0.51 : 1, that it is slower 1.00 : 1; rolled back from 2000 : 1 on",
                "  1970-01-01T00:00:00Z step -> progressing at 50.0 %, by tollgate-authz: 100 answers in 60.0 s",
            ]
        );
    }

    #[tokio::test]
    async fn a_data_folder_without_a_rollout_says_so() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("authz.db").display());
        Store::open(&tollgate_runtime::config::Secret::new(url), Clock::system())
            .await
            .unwrap()
            .close()
            .await;
        let data = folder.path().to_str().unwrap();
        let parsed = |words: &[&str]| {
            #[derive(clap::Parser)]
            struct Cli {
                #[command(subcommand)]
                command: Command,
            }
            let words = [&["rollout"], words, &["--data", data]].concat();
            <Cli as clap::Parser>::try_parse_from(words).unwrap().command
        };
        let env = Env::empty();
        run(parsed(&["list", "--all"]), &env).await.unwrap();
        let error = run(parsed(&["promote", "insurance/v1-1", "--full"]), &env).await.unwrap_err();
        assert!(error.to_string().contains("there is no rollout insurance/v1-1"), "{error}");
        let error = run(parsed(&["show", "v1-1"]), &env).await.unwrap_err();
        assert!(error.to_string().contains("expected namespace/name"), "{error}");
    }
}
