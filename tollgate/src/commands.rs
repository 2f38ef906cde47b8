//! The command line. Exit codes: 0 done, 1 failed, 2 bad input.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tollgate_identity::{Shown, pem};
use tollgate_runtime::cli;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::{Env, duration};
use tollgate_runtime::descriptors::Descriptors;

use crate::demo::apps::{self, App};
use crate::demo::issuer::{self, Grant, Issuer};
use crate::demo::patterns::{self, Pattern};
use crate::{ca, check, explain, policy, proxy, ratelimit, rollout, token, up};

#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = "Zero-trust traffic for services, without the weight of a mesh"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system on this machine, with a demo mesh behind it.
    Up(UpArgs),
    /// Print a token signed by the demo issuer; or, with `verify`, explain a token.
    Token(TokenArgs),
    /// Check configuration, limits and policy files; exit code 2 when one is wrong.
    Check(CheckArgs),
    /// Read and change the policy.
    #[command(subcommand)]
    Policy(policy::Command),
    /// The built-in certificate authority.
    #[command(subcommand)]
    Ca(ca::Command),
    /// How a running proxy does.
    #[command(subcommand)]
    Proxy(proxy::Command),
    /// Canaries that move by themselves: where each stands and why; pause, promote, abort.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Tell why a request was decided as it was, by its id.
    Explain(explain::ExplainArgs),
    /// Administrators.
    #[command(subcommand)]
    Admin(policy::AdminCommand),
    /// Limits and their use.
    #[command(subcommand)]
    Ratelimit(ratelimit::Command),
    /// The operator's page.
    #[command(subcommand)]
    Dashboard(DashboardCommand),
    /// Show the proxy's patterns on a running `tollgate up`; exit code 1 if one is not seen.
    Demo(DemoArgs),
}

/// The folder that holds what one machine keeps.
#[derive(Debug, Args)]
pub struct DataFolder {
    /// The data folder [default: $TOLLGATE_DATA, or ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DataFolder {
    /// This one.
    pub(crate) fn at(data: &Path) -> Self {
        Self { data: Some(data.to_owned()) }
    }

    /// The flag, else the environment, else `./data`.
    pub fn path(&self, env: &Env) -> PathBuf {
        self.data
            .clone()
            .or_else(|| env.var("TOLLGATE_DATA").map(PathBuf::from))
            .unwrap_or_else(|| "data".into())
    }
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    data: DataFolder,
    /// Demo requests a second; 0 switches them off.
    #[arg(long, value_name = "RPS", default_value_t = 20)]
    traffic: u32,
    /// Overrides one key of one part: `--set ingress.authz.timeout=1s`. May be repeated.
    #[arg(long = "set", value_name = "PART.KEY=VALUE")]
    sets: Vec<String>,
    /// Which log lines go to stderr.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct TokenArgs {
    #[command(subcommand)]
    command: Option<token::Command>,
    #[command(flatten)]
    data: DataFolder,
    /// The subject: reader, editor, adjuster and outsider are known to the demo's policy.
    #[arg(long, required = true)]
    user: Option<String>,
    /// A scope; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it is valid: 30s, 10m, 1h.
    #[arg(long, default_value = "1h", value_parser = duration::parse)]
    ttl: Duration,
    /// Make one that expired an hour ago.
    #[arg(long)]
    expired: bool,
    /// Make one that is good with this client certificate only (RFC 8705), such as `tls.crt` of `tollgate ca issue`.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Files, or folders whose YAML files are all checked. What a file is, its keys tell.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum DashboardCommand {
    /// Print a new one-use link that signs in to the page.
    Login {
        #[command(flatten)]
        data: DataFolder,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct DemoArgs {
    #[command(subcommand)]
    command: Option<DemoCommand>,
    /// Which pattern [default: all]
    #[arg(value_enum)]
    pattern: Option<Pattern>,
    #[command(flatten)]
    data: DataFolder,
}

#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Put the demo's issuer and policy into the policy database.
    Seed {
        #[command(flatten)]
        data: DataFolder,
    },
    /// Serve one instance of a demo application.
    App {
        /// Which.
        #[arg(long, value_enum, default_value = "policies")]
        name: AppName,
        /// The sidecar by way of which `quotes` asks the others.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8112")]
        outbound: SocketAddr,
        /// Where; loopback only.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
        listen: SocketAddr,
        /// The version that it answers with.
        #[arg(long, default_value = "1.0")]
        version: String,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum AppName {
    Policies,
    Quotes,
    Payments,
}

/// Reads the arguments and does what they say.
pub fn main() -> ExitCode {
    let env = Env::of_process();
    match run(Cli::parse().command, &env) {
        Ok(code) => code,
        Err(error) => cli::fail(&error),
    }
}

fn run(command: Command, env: &Env) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => {
            let options = up::Options {
                data: args.data.path(env),
                ports: up::Ports::Fixed,
                traffic: args.traffic,
                sets: args.sets,
                env: env.clone(),
            };
            // Before there are threads.
            Descriptors::take();
            block_on(up::command(options, &args.log))?;
        }
        Command::Token(TokenArgs { command: Some(command), .. }) => {
            return block_on(token::run(command, env));
        }
        Command::Token(args) => {
            let grant = Grant {
                subject: args.user.unwrap_or_default(),
                client: issuer::CLIENT.to_owned(),
                scopes: args.scopes,
                ttl: args.ttl,
                expired: args.expired,
                bound_to: args.certificate.as_deref().map(certificate_hash).transpose()?,
            };
            say(&Issuer::open(&args.data.path(env))?.token(&grant, &Clock::system())?);
        }
        Command::Check(args) => return Ok(check::command(&args.files, env)),
        Command::Ca(command) => block_on(ca::run(command, env))?,
        Command::Proxy(command) => block_on(proxy::run(command))?,
        Command::Rollout(command) => block_on(rollout::run(command, env))?,
        Command::Policy(command) => return block_on(policy::run(command, env)),
        Command::Explain(args) => block_on(explain::run(args, env))?,
        Command::Admin(command) => block_on(policy::run_admin(command, env))?,
        Command::Ratelimit(command) => block_on(ratelimit::run(command, env))?,
        Command::Demo(DemoArgs { command: Some(command), .. }) => demo(command, env)?,
        Command::Demo(DemoArgs { pattern, data, .. }) => {
            let all_seen = block_on(patterns::run(&data.path(env), pattern, env))?;
            return Ok(if all_seen { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Dashboard(DashboardCommand::Login { data }) => {
            say(&block_on(up::login_link(&data.path(env)))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn demo(command: DemoCommand, env: &Env) -> anyhow::Result<()> {
    match command {
        DemoCommand::Seed { data } => {
            let data = data.path(env);
            let issuer = Issuer::open_or_create(&data)?;
            block_on(up::seed_demo(&policy::database_url(&data, env), &issuer))?;
            say(&format!("the demo's issuer and policy are in {}", data.display()));
            Ok(())
        }
        DemoCommand::App { name, outbound, listen, version } => {
            let app = match name {
                AppName::Policies => App::Policies,
                AppName::Quotes => App::Quotes(outbound),
                AppName::Payments => App::Payments,
            };
            block_on(apps::run(listen, app, version))
        }
    }
}

/// The SHA-256 of the first certificate of a PEM file.
fn certificate_hash(file: &Path) -> anyhow::Result<[u8; 32]> {
    let chain = pem::certificates(file)?;
    let leaf = chain.first().with_context(|| format!("{} holds no certificate", file.display()))?;
    Ok(Shown::read(leaf).with_context(|| file.display().to_string())?.sha256)
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

/// Prints a line of the command's answer.
#[expect(clippy::print_stdout, reason = "the command's answer goes to stdout")]
pub fn say(line: &str) {
    println!("{line}");
}
