//! `tollgate policy` and `tollgate admin`: the policy from the command line.
//!
//! Two ways lead to it: over the admin API of a running service (`--server` and `--token-file`), or,
//! on the machine that holds it, straight to the database. A running service notices the latter by
//! itself.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tollgate_authz::policy::diff;
use tollgate_authz::policy::documents::{self, Written};
use tollgate_authz::policy::object::Document;
use tollgate_authz::store::{Authorship, Store};
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, Secret};

use crate::commands::{DataFolder, say};

/// `tollgate policy …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put the objects of a file or folder into the policy: one transaction, one epoch, with a diff.
    Apply {
        /// A YAML file, or a folder of them.
        #[arg(short = 'f', long = "file", value_name = "DIR")]
        file: PathBuf,
        /// Also remove the objects that are not in the files.
        #[arg(long)]
        prune: bool,
        /// Show the diff and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Why; kept in the history.
        #[arg(long, default_value = "tollgate policy apply")]
        reason: String,
        #[command(flatten)]
        at: Place,
    },
    /// Print the policy in force as YAML that `apply` reads.
    Get {
        /// Only objects of this namespace. Over `--server`, the cluster-scoped ones are read without it.
        #[arg(long)]
        namespace: Option<String>,
        #[command(flatten)]
        at: Place,
    },
}

/// `tollgate admin …`
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make an administrator for whoever can write the database; prints the token once.
    Recover {
        /// The administrator's name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        data: DataFolder,
    },
}

/// Where the policy is.
#[derive(Debug, Args)]
pub struct Place {
    /// Admin API of a running service, such as http://127.0.0.1:7003
    #[arg(long, requires = "token_file", conflicts_with = "data")]
    server: Option<String>,
    /// File with an administrator's token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    data: DataFolder,
}

/// The policy, wherever it is.
enum Policy {
    Here(Store),
    There { client: reqwest::Client, server: String, token: Secret },
}

/// Does what `tollgate policy …` says.
pub async fn run(command: Command, env: &Env) -> anyhow::Result<()> {
    match command {
        Command::Apply { file, prune, dry_run, reason, at } => {
            let written = read(&file)?;
            let (text, epoch) =
                Policy::open(&at, env).await?.apply(&written, prune, dry_run, &reason).await?;
            say(text.trim_end());
            match (text.is_empty(), dry_run) {
                (true, _) => say(&format!("nothing to change at epoch {epoch}")),
                (false, true) => say(&format!("dry run: nothing was changed, epoch {epoch}")),
                (false, false) => say(&format!("applied as epoch {epoch}")),
            }
        }
        Command::Get { namespace, at } => {
            let documents = Policy::open(&at, env).await?.documents(namespace.as_deref()).await?;
            say(documents::export(&documents).trim_end());
        }
    }
    Ok(())
}

/// Does what `tollgate admin …` says.
pub async fn run_admin(command: AdminCommand, env: &Env) -> anyhow::Result<()> {
    let AdminCommand::Recover { name, data } = command;
    let store = open_store(&data.path(env), env).await?;
    let issued = store.recover_administrator(&name, &author()).await?;
    say(issued.token.expose());
    Ok(())
}

/// The database of a data folder, or the one that `TOLLGATE_DATABASE_URL` names.
pub fn database_url(data: &Path, env: &Env) -> Secret {
    match env.var("TOLLGATE_DATABASE_URL") {
        Some(url) => Secret::new(url),
        None => Secret::new(format!("sqlite://{}", data.join("authz.db").display())),
    }
}

async fn open_store(data: &Path, env: &Env) -> anyhow::Result<Store> {
    let here = env.var("TOLLGATE_DATABASE_URL").is_some() || data.join("authz.db").exists();
    if !here {
        bail!(
            "no policy in {}; name the folder with --data, or a service with --server and --token-file",
            data.display()
        );
    }
    Ok(Store::open(&database_url(data, env), Clock::system()).await?)
}

fn read(path: &Path) -> anyhow::Result<Vec<Written>> {
    let written = if path.is_dir() { documents::load_dir(path)? } else { documents::load_file(path)? };
    if written.is_empty() {
        bail!("{} holds no policy documents", path.display());
    }
    Ok(written)
}

/// Whoever is at the keyboard, as far as this machine knows.
fn author() -> String {
    let user = Env::of_process().var("USER").unwrap_or("unknown").to_owned();
    format!("local:{user}")
}

impl Policy {
    async fn open(at: &Place, env: &Env) -> anyhow::Result<Self> {
        let (Some(server), Some(token_file)) = (&at.server, &at.token_file) else {
            return Ok(Self::Here(open_store(&at.data.path(env), env).await?));
        };
        let token = std::fs::read_to_string(token_file)
            .with_context(|| format!("cannot read {}", token_file.display()))?;
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(30)).build()?;
        Ok(Self::There {
            client,
            server: server.trim_end_matches('/').to_owned(),
            token: Secret::new(token.trim()),
        })
    }

    /// The diff as text, and the epoch after it.
    async fn apply(
        &self,
        written: &[Written],
        prune: bool,
        dry_run: bool,
        reason: &str,
    ) -> anyhow::Result<(String, u64)> {
        let documents: Vec<Document> = written.iter().map(|w| w.document.clone()).collect();
        match self {
            Self::Here(store) => {
                let applied = store.apply(documents, Authorship::new(author(), reason), prune, dry_run).await;
                let applied = applied.map_err(|error| explain(error, written))?;
                Ok((diff::print(&applied.changes), applied.epoch))
            }
            Self::There { .. } => {
                let body =
                    json!({ "documents": documents, "prune": prune, "dry_run": dry_run, "reason": reason });
                let answer = self.call(reqwest::Method::POST, "/v1/apply", Some(&body)).await?;
                let text = answer["diff"].as_str().context("the service's answer has no diff")?.to_owned();
                Ok((text, answer["epoch"].as_u64().unwrap_or_default()))
            }
        }
    }

    async fn documents(&self, namespace: Option<&str>) -> anyhow::Result<Vec<Document>> {
        if let Self::Here(store) = self {
            let objects = store.load().await?.objects.into_iter();
            let wanted = objects.filter(|(id, _)| namespace.is_none_or(|name| id.namespace == name));
            return Ok(wanted.map(|(_, stored)| stored.document).collect());
        }
        let lists: Vec<String> = match namespace {
            Some(name) => {
                ["services", "roles", "bindings"].map(|kind| format!("/v1/namespaces/{name}/{kind}")).to_vec()
            }
            None => ["issuers", "enforcers"].map(|kind| format!("/v1/{kind}")).to_vec(),
        };
        let mut documents = Vec::new();
        for list in lists {
            let mut cursor = String::new();
            loop {
                let mut page =
                    self.call(reqwest::Method::GET, &format!("{list}?limit=1000{cursor}"), None).await?;
                documents.extend(serde_json::from_value::<Vec<Document>>(page["items"].take())?);
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
        }
        Ok(documents)
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let Self::There { client, server, token } = self else { bail!("not a server") };
        let mut request = client.request(method, format!("{server}{path}")).bearer_auth(token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("{server} does not answer"))?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        if !status.is_success() {
            let detail = body["detail"].as_str().or(body["title"].as_str()).unwrap_or("no explanation");
            bail!("{server}{path}: {status}: {detail}");
        }
        Ok(body)
    }
}

/// Puts the file and line to a fault that the store found.
fn explain(error: tollgate_authz::store::StoreError, written: &[Written]) -> anyhow::Error {
    match documents::check(written) {
        Err(errors) if !errors.is_empty() => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::Error::new(errors[0].clone()).context(lines.join("\n"))
        }
        _ => error.into(),
    }
}
