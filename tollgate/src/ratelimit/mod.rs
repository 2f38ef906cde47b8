//! `tollgate ratelimit`: limits and their use from the command line.
//!
//! Everything but `migrate-env` asks the HTTP door of a running rate-limit service (its key `http`).

mod door;
mod show;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tollgate_ratelimit::limits::Folder;
use tollgate_ratelimit::migrate;
use tollgate_runtime::config::Env;

use crate::commands::{DataFolder, say};
use crate::https::Https;
use door::Door;

/// `tollgate ratelimit …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Each limit's use: calls, refusals, who talks most, who is limited now.
    Usage {
        /// Only limits of this domain.
        #[arg(long)]
        domain: Option<String>,
        /// Callers named for each limit.
        #[arg(long, default_value_t = 5)]
        top: usize,
        #[command(flatten)]
        at: At,
    },
    /// Limits that are divided among proxies, and who has which share.
    Quota {
        #[command(flatten)]
        at: At,
    },
    /// Why a request is answered so: rule, file and line, counters before and after. Counts nothing.
    Explain {
        /// The limits domain.
        #[arg(long)]
        domain: String,
        /// A descriptor as `key=value,key=value`; may be repeated.
        #[arg(required = true, value_name = "DESCRIPTOR")]
        descriptors: Vec<String>,
        /// Hits of each descriptor.
        #[arg(long, default_value_t = 1)]
        hits: u32,
        #[command(flatten)]
        at: At,
    },
    /// Try new limits on the calls the service had.
    Simulate {
        /// A limits file, or a folder of them, in place of the limits in force.
        #[arg(long, value_name = "PATH")]
        limits: PathBuf,
        /// Which calls: `last-24h`, `last-30m`.
        #[arg(long, default_value = "last-24h")]
        traffic: String,
        #[command(flatten)]
        at: At,
    },
    /// Give a caller its whole allowance again. It is recorded.
    Reset {
        /// The limits domain.
        #[arg(long)]
        domain: String,
        /// The descriptor as `key=value,key=value`.
        #[arg(value_name = "DESCRIPTOR")]
        descriptor: String,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        at: At,
    },
    /// The resets that were done, latest first.
    Audit {
        #[command(flatten)]
        at: At,
    },
    /// Print the configuration that matches the environment of an envoyproxy/ratelimit.
    MigrateEnv {
        /// A file of NAME=VALUE lines, in place of this process's environment.
        #[arg(long, value_name = "FILE")]
        env_file: Option<PathBuf>,
    },
}

/// Which service.
#[derive(Debug, Args)]
pub struct At {
    /// The service's HTTP door [default: that of `tollgate up` with the data folder, else http://127.0.0.1:7005]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    https: Https,
    /// Print the service's answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Does what `tollgate ratelimit …` says.
pub async fn run(command: Command, env: &Env) -> anyhow::Result<()> {
    match command {
        Command::Usage { domain, top, at } => {
            let domain =
                domain.map(|domain| format!("&domain={}", door::escaped(&domain))).unwrap_or_default();
            let usage = Door::of(&at, env).await?.get(&format!("/v1/usage?top={top}{domain}")).await?;
            shown(&at, &usage, show::usage);
        }
        Command::Quota { at } => {
            let quota = Door::of(&at, env).await?.get("/v1/quota").await?;
            shown(&at, &quota, show::quota);
        }
        Command::Explain { domain, descriptors, hits, at } => {
            let descriptors =
                descriptors.iter().map(|one| descriptor(one)).collect::<anyhow::Result<Vec<_>>>()?;
            let question = json!({ "domain": domain, "descriptors": descriptors, "hitsAddend": hits });
            let explained = Door::of(&at, env).await?.post("/v1/explain", &question).await?;
            shown(&at, &explained, show::explanation);
        }
        Command::Simulate { limits, traffic, at } => {
            let last = traffic.strip_prefix("last-").with_context(|| {
                format!("--traffic {traffic}: expected last- and a duration, such as last-24h")
            })?;
            let files: Vec<Value> = Folder::read(&limits)?
                .texts()
                .map(|(file, text)| json!({ "name": file.display().to_string(), "text": text }))
                .collect();
            let trial = Door::of(&at, env)
                .await?
                .post("/v1/simulate", &json!({ "files": files, "last": last }))
                .await?;
            shown(&at, &trial, show::trial);
        }
        Command::Reset { domain, descriptor: entries, reason, at } => {
            let entries: Vec<_> = pairs(&entries)?;
            let by = format!("local:{}", env.var("USER").unwrap_or("unknown"));
            let request = json!({ "domain": domain, "entries": entries, "by": by, "reason": reason });
            let done = Door::of(&at, env).await?.post("/v1/reset", &request).await?;
            shown(&at, &done, show::reset);
        }
        Command::Audit { at } => {
            let audit = Door::of(&at, env).await?.get("/v1/audit").await?;
            shown(&at, &audit, show::audit);
        }
        Command::MigrateEnv { env_file } => {
            let env = match env_file {
                Some(file) => door::env_of(&file)?,
                None => env.clone(),
            };
            let migrated = migrate::migrate(|name| env.var(name), env.names());
            say(migrated.yaml.trim_end());
        }
    }
    Ok(())
}

fn shown(at: &At, answer: &Value, lines: impl Fn(&Value) -> Vec<String>) {
    if at.json {
        say(&format!("{answer:#}"));
    } else {
        lines(answer).iter().for_each(|line| say(line));
    }
}

fn pairs(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    text.split(',')
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .with_context(|| format!("`{text}` is not a descriptor; expected key=value,key=value"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn descriptor(text: &str) -> anyhow::Result<Value> {
    let entries: Vec<_> =
        pairs(text)?.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    Ok(json!({ "entries": entries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_written_as_pairs() {
        assert_eq!(pairs("a=b, c=d=e").unwrap(), [("a".into(), "b".into()), ("c".into(), "d=e".into())]);
        assert!(pairs("a").unwrap_err().to_string().contains("key=value"));
    }
}
