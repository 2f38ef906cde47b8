//! `tollgate policy` and `tollgate admin`: the policy from the command line.
//!
//! Two ways lead to it: over the admin API of a running service (`--server` and `--token-file`), or,
//! on the machine that holds it, straight to the database. A running service notices the latter by
//! itself.

mod change;
mod history;
mod object_name;
pub(crate) mod place;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use tollgate_authz::policy::documents::{self, Written};
use tollgate_authz::policy::who::Target;
use tollgate_runtime::config::Env;

use crate::commands::{DataFolder, say};
use object_name::ObjectName;
pub use place::{Place, database_url};
use place::{Policy, open_store};

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
        /// Only objects of this namespace.
        #[arg(long)]
        namespace: Option<String>,
        #[command(flatten)]
        at: Place,
    },
    /// Print the policy, in force or of an earlier epoch, as YAML that `apply` reads.
    Export {
        /// Only objects of this namespace.
        #[arg(long)]
        namespace: Option<String>,
        /// The policy as it was at this epoch.
        #[arg(long)]
        epoch: Option<u64>,
        #[command(flatten)]
        at: Place,
    },
    /// Tell what is odd: rules that do nothing, rules that do more than they seem to. Exit code 1 on errors.
    Lint {
        #[command(flatten)]
        draft: Draft,
        /// Also fail on warnings.
        #[arg(long, value_name = "SEVERITY")]
        deny: Option<Deny>,
        /// How to print findings.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        at: Place,
    },
    /// Run test cases: who does what, and what shall come of it. Exit code 1 when one fails.
    Test {
        /// A YAML file of cases; `config/policy-cases.yaml` is an example.
        #[arg(value_name = "FILE")]
        cases: PathBuf,
        #[command(flatten)]
        draft: Draft,
        /// How to print results.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        at: Place,
    },
    /// Show what a draft would change (`-f DIR`), or what changed between two epochs (`12..15`, `12..`).
    Diff {
        /// Two epochs; the newest where the second is left out.
        #[arg(value_name = "A..B", required_unless_present = "file", conflicts_with = "file")]
        epochs: Option<String>,
        /// A YAML file, or a folder of them.
        #[arg(short = 'f', long = "file", value_name = "DIR")]
        file: Option<PathBuf>,
        /// As if objects that are not in the files were removed.
        #[arg(long, requires = "file")]
        prune: bool,
        #[command(flatten)]
        at: Place,
    },
    /// Show who changed what, when and why, the newest change first.
    History {
        /// One object: role/NAMESPACE/NAME, issuer/NAME.
        #[arg(value_name = "OBJECT")]
        object: Option<ObjectName>,
        /// How many changes.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        at: Place,
    },
    /// Put the policy of an earlier epoch in force again, as a new epoch with a diff.
    Rollback {
        /// The epoch; `tollgate policy history` lists them.
        #[arg(value_name = "EPOCH")]
        epoch: u64,
        /// Only this object: role/NAMESPACE/NAME.
        #[arg(long)]
        object: Option<ObjectName>,
        /// Show the diff and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Why; kept in the history.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        at: Place,
    },
    /// Tell who may do something, by which binding and under which conditions.
    WhoCan {
        /// The method: GET, POST, …
        #[arg(required_unless_present = "grpc", requires = "path")]
        method: Option<String>,
        /// The path.
        path: Option<String>,
        /// A gRPC method instead: package.Service/Method.
        #[arg(long, conflicts_with_all = ["method", "path"])]
        grpc: Option<String>,
        /// The host by which the service is called.
        #[arg(long)]
        host: Option<String>,
        /// The service: NAMESPACE/NAME, or a name that is unique.
        #[arg(long, conflicts_with = "host")]
        service: Option<String>,
        #[command(flatten)]
        at: Place,
    },
    /// Tell what somebody may do, by which binding and under which conditions.
    Can(CanArgs),
}

/// Whose rights are asked for.
#[derive(Debug, Args)]
pub struct CanArgs {
    /// The token's subject.
    #[arg(required_unless_present_any = ["groups", "client", "workload"])]
    subject: Option<String>,
    /// The token's issuer, by its name in the policy; any without it.
    #[arg(long)]
    issuer: Option<String>,
    /// A group of the token; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// The token's client.
    #[arg(long)]
    client: Option<String>,
    /// The SPIFFE id of the calling workload.
    #[arg(long)]
    workload: Option<String>,
    #[command(flatten)]
    at: Place,
}

/// A policy that is not in force.
#[derive(Debug, Args)]
pub struct Draft {
    /// A YAML file, or a folder of them, laid over the policy in force where there is one.
    #[arg(short = 'f', long = "file", value_name = "DIR")]
    file: Option<PathBuf>,
    /// Look at the files alone.
    #[arg(long, requires = "file")]
    alone: bool,
}

/// Findings beside errors that make a command fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// Warnings too.
    Warnings,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
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

/// Does what `tollgate policy …` says.
pub async fn run(command: Command, env: &Env) -> anyhow::Result<ExitCode> {
    match command {
        Command::Apply { file, prune, dry_run, reason, at } => {
            change::apply(&at, env, &file, (prune, dry_run), &reason).await?;
        }
        Command::Get { namespace, at } => {
            let documents = Policy::open(&at, env).await?.documents(namespace.as_deref(), None).await?;
            say(documents::export(&documents).trim_end());
        }
        Command::Export { namespace, epoch, at } => {
            let documents = Policy::open(&at, env).await?.documents(namespace.as_deref(), epoch).await?;
            say(documents::export(&documents).trim_end());
        }
        Command::Lint { draft, deny, format, at } => {
            return tools::lint(&at, env, &draft, deny, format).await;
        }
        Command::Test { cases, draft, format, at } => {
            return tools::test(&at, env, &cases, &draft, format).await;
        }
        Command::Diff { epochs, file, prune, at } => match (epochs, file) {
            (_, Some(file)) => change::diff(&at, env, &file, prune).await?,
            (Some(epochs), None) => history::diff(&at, env, &epochs).await?,
            (None, None) => bail!("name two epochs, or a draft with -f DIR"),
        },
        Command::History { object, limit, at } => history::print(&at, env, object, limit).await?,
        Command::Rollback { epoch, object, dry_run, reason, at } => {
            change::rollback(&at, env, epoch, object, dry_run, reason).await?;
        }
        Command::WhoCan { method, path, grpc, host, service, at } => {
            let target = match grpc {
                Some(call) => Target { host, service, ..Target::grpc(&call)? },
                None => Target {
                    method: method.unwrap_or_default(),
                    path: path.unwrap_or_default(),
                    host,
                    service,
                },
            };
            tools::who_can(&at, env, &target).await?;
        }
        Command::Can(args) => tools::can(args, env).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Does what `tollgate admin …` says.
pub async fn run_admin(command: AdminCommand, env: &Env) -> anyhow::Result<()> {
    let AdminCommand::Recover { name, data } = command;
    let store = open_store(&data.path(env), env).await?;
    let issued = store.recover_administrator(&name, &author()).await?;
    say(issued.token.expose());
    Ok(())
}

/// Reads a file, or the files of a folder.
fn read(path: &Path) -> anyhow::Result<Vec<Written>> {
    let written = if path.is_dir() { documents::load_dir(path)? } else { documents::load_file(path)? };
    if written.is_empty() {
        bail!("{} holds no policy documents", path.display());
    }
    Ok(written)
}

/// Whoever is at the keyboard, as far as this machine knows.
pub(crate) fn author() -> String {
    let user = Env::of_process().var("USER").unwrap_or("unknown").to_owned();
    format!("local:{user}")
}
