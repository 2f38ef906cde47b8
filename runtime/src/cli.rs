//! The command line that every service binary shares.
//!
//! Exit codes: 0 done, 1 failed, 2 bad input (arguments, configuration).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::{ConfigError, Env, ServiceConfig, Source};
use crate::telemetry::process_log::{self, Format};
use crate::{App, Service};

/// Bad arguments or a bad configuration.
pub const BAD_INPUT: u8 = 2;

#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Args {
    /// The configuration file (YAML), or a folder of such files that make one configuration together.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Overrides one key: `--set telemetry.log=debug`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Does everything but bind and serve: exit code 0 when the configuration is good.
    #[arg(long)]
    check_config: bool,
    /// How log lines on stderr look.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    about: Option<About>,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// About the configuration file.
    #[command(subcommand)]
    Config(AboutConfig),
}

#[derive(Debug, clap::Subcommand)]
enum AboutConfig {
    /// Print its JSON schema, for editors.
    Schema,
    /// Print an example to begin with.
    Example,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Reads arguments and configuration, builds the app, serves until SIGINT or SIGTERM, drains.
pub fn main<C, A, F>(build: impl FnOnce(C, Service) -> F) -> ExitCode
where
    C: ServiceConfig,
    A: App,
    F: Future<Output = anyhow::Result<A>>,
{
    let args = Args::parse();
    if let Some(About::Config(about)) = args.about {
        return tell_about::<C>(&about);
    }
    let file = args.config.unwrap_or_default();
    let source = Source::new(&file, &args.sets, &Env::of_process());
    let loaded = match source.load::<C>() {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error.into()),
    };
    if args.check_config {
        tell(&format!("{}: ok", file.display()));
        return ExitCode::SUCCESS;
    }
    let format = match args.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    process_log::init(&loaded.config.telemetry().log, format);
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve(loaded.config, source, build)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn tell_about<C: ServiceConfig>(about: &AboutConfig) -> ExitCode {
    let text = match about {
        AboutConfig::Schema => C::schema().map(|schema| format!("{schema:#}\n")),
        AboutConfig::Example => C::EXAMPLE.map(str::to_owned),
    };
    match text {
        Some(text) => {
            answer(&text);
            ExitCode::SUCCESS
        }
        None => fail(&anyhow::anyhow!("{} has none", C::NAME)),
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer goes to stdout")]
fn answer(text: &str) {
    print!("{text}");
}

async fn serve<C, A, F>(config: C, source: Source, build: impl FnOnce(C, Service) -> F) -> anyhow::Result<()>
where
    C: ServiceConfig,
    A: App,
    F: Future<Output = anyhow::Result<A>>,
{
    let service = Service::start(config.instance_name(), config.process(), config.telemetry())?;
    service.configured_by(source);
    service.published().config(&config);
    let starting = service.readiness().blocker("starting");
    let app = service.scope(build(config, service.clone())).await?;
    drop(starting);
    let serving = service.scope(app.run());
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => {
            service.stop().await;
            ended
        }
        () = shutdown_signal() => {
            tracing::info!(service = service.name(), "stopping");
            // Readiness and tasks first; the app's own future ends as its tasks do.
            let ((), ended) = tokio::join!(service.stop(), &mut serving);
            ended
        }
    }
}

/// Returns on the first SIGINT or SIGTERM; a second one ends the process at once.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    #[expect(clippy::disallowed_methods, clippy::exit, reason = "a second signal means: now")]
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
}

/// Prints an error with its causes and gives the exit code that fits it.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    tell(&format!("error: {error:#}"));
    let bad_input =
        error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<crate::net::BindError>());
    ExitCode::from(if bad_input { BAD_INPUT } else { 1 })
}

#[expect(clippy::print_stderr, reason = "the command line talks to its person")]
fn tell(line: &str) {
    eprintln!("{line}");
}
