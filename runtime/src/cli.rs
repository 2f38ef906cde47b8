//! The command line that every service binary shares.
//!
//! Exit codes: 0 done, 1 failed, 2 bad input (arguments, configuration).

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;

use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Parser};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{ConfigError, Env, ServiceConfig, Source};
use crate::descriptors::Descriptors;
use crate::hand_over::{self, HandOverError, Program, Succession};
use crate::readiness::Blocker;
use crate::sockets::{Inheritance, Sockets};
use crate::telemetry::process_log::{self, Format};
use crate::{App, Service, supervisor};

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

/// A command that one binary has beside those of all.
#[derive(Debug)]
pub struct Extra {
    /// Its arguments.
    pub command: Command,
    /// What it does.
    pub run: fn(&ArgMatches) -> ExitCode,
}

/// Reads arguments and configuration, builds the app, serves until SIGINT or SIGTERM, drains. SIGUSR2 lets a new process
/// take over, where the app can.
pub fn main<C, A, F>(build: impl FnOnce(C, Service) -> F) -> ExitCode
where
    C: ServiceConfig,
    A: App,
    F: Future<Output = anyhow::Result<A>>,
{
    main_with(Vec::new(), build)
}

/// As [`main`], of a binary with commands of its own.
pub fn main_with<C, A, F>(extras: Vec<Extra>, build: impl FnOnce(C, Service) -> F) -> ExitCode
where
    C: ServiceConfig,
    A: App,
    F: Future<Output = anyhow::Result<A>>,
{
    let runs: Vec<_> = extras.iter().map(|one| (one.command.get_name().to_owned(), one.run)).collect();
    let matches = command(C::NAME).subcommands(extras.into_iter().map(|one| one.command)).get_matches();
    if let Some((name, matches)) = matches.subcommand()
        && let Some((_, run)) = runs.iter().find(|(other, _)| other == name)
    {
        return run(matches);
    }
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some(About::Config(about)) = args.about {
        return tell_about::<C>(&about);
    }
    let (file, env) = (args.config.unwrap_or_default(), Env::of_process());
    let source = Source::new(&file, &args.sets, &env);
    if args.check_config {
        return match source.load::<C>() {
            Ok(_) => {
                tell(&format!("{}: ok", file.display()));
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.into()),
        };
    }
    let format = match args.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let inheritance = match Inheritance::take(&env) {
        Ok(inheritance) => inheritance,
        Err(error) => return fail(&error.into()),
    };
    let succession = Succession::of(inheritance.channel);
    let (sockets, before) = (Sockets::new(inheritance.sockets), succession.clone());
    let served = source.load::<C>().map_err(anyhow::Error::from).and_then(|loaded| {
        process_log::init(&loaded.config.telemetry().log, format);
        // Before there are threads.
        Descriptors::take();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let config = &loaded.config;
            let (name, process, telemetry) = (config.instance_name(), config.process(), config.telemetry());
            let started = Service::succeed(name, process, telemetry, sockets, succession)?;
            serve(loaded.config, started, source, build).await
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            before.failed(&error);
            fail(&error)
        }
    }
}

/// The arguments of a service's binary.
fn command(service: &str) -> Command {
    Args::command().name(format!("tollgate-{service}"))
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

/// Prints what a command was asked for.
#[expect(clippy::print_stdout, reason = "the command's answer goes to stdout")]
pub fn answer(text: &str) {
    print!("{text}");
}

async fn serve<C, A, F>(
    config: C,
    (service, starting): (Service, Blocker),
    source: Source,
    build: impl FnOnce(C, Service) -> F,
) -> anyhow::Result<()>
where
    C: ServiceConfig,
    A: App,
    F: Future<Output = anyhow::Result<A>>,
{
    let program = Program::of_process();
    let mut takeovers = signal(SignalKind::user_defined2())?;
    service.configured_by(source);
    service.published().config(&config);
    let app = service.scope(build(config, service.clone())).await?;
    // Whoever sees that it is ready may tell it to stop.
    let mut signals = Signals::listen()?;
    service.sockets().close_unclaimed();
    tell_supervisor_when_ready(&service);
    let hand_overs = hand_overs(&service);
    let mut handing = Handing::Nothing;
    let serving = service.scope(app.run());
    tokio::pin!(serving);
    // What it does first, such as listening for SIGHUP, is done before anybody hears that it is ready.
    let begun = std::future::poll_fn(|context| Poll::Ready(serving.as_mut().poll(context))).await;
    if let Poll::Ready(ended) = begun {
        service.stop().await;
        return ended;
    }
    drop(starting);
    loop {
        tokio::select! {
            // A successor that serves by now is heard before a signal which came meanwhile, and would end it.
            biased;
            ended = &mut serving => {
                service.stop().await;
                return ended;
            }
            outcome = handing.outcome() => {
                handing = Handing::Nothing;
                match outcome {
                    Err(error) => {
                        hand_overs.add(1, &[KeyValue::new("outcome", "failed")]);
                        let error = anyhow::Error::new(error);
                        tracing::error!("no hand-over, this process goes on serving: {error:#}");
                    }
                    Ok(pid) => {
                        hand_overs.add(1, &[KeyValue::new("outcome", "done")]);
                        tracing::info!(pid, "handed over: what is under way is finished here, the rest is served there");
                        supervisor::goes_on_as(pid);
                        // Who is told to stop now is stopping already.
                        signals.end_at(2);
                        let ((), ended) = tokio::join!(service.yield_to_successor(), &mut serving);
                        return ended;
                    }
                }
            }
            told = signals.next() => {
                // Who was to take over does not. It is ended first: were this process to end before, the other would serve.
                drop(handing);
                signals.end_at(1);
                tracing::info!(service = service.name(), "stopping");
                supervisor::stopping();
                let stopping = async {
                    match told {
                        // Somebody waits at the terminal.
                        Told::Interrupt => service.stop().await,
                        Told::Terminate => service.drain().await,
                    }
                };
                // Readiness and tasks first; the app's own future ends as its tasks do.
                let ((), ended) = tokio::join!(stopping, &mut serving);
                return ended;
            }
            _ = takeovers.recv() => match refusal::<A>(&handing) {
                None => handing = Handing::To(Box::pin(hand_over::to_successor(&service, &program))),
                Some(why) => {
                    hand_overs.add(1, &[KeyValue::new("outcome", "refused")]);
                    tracing::warn!("SIGUSR2: no hand-over: {why}");
                }
            },
        }
    }
}

/// Whether another process is about to take over.
enum Handing<'s> {
    Nothing,
    To(Pin<Box<dyn Future<Output = Result<u32, HandOverError>> + Send + 's>>),
}

impl Handing<'_> {
    async fn outcome(&mut self) -> Result<u32, HandOverError> {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::To(handing) => handing.await,
        }
    }
}

/// Why nobody may take over now.
fn refusal<A: App>(handing: &Handing<'_>) -> Option<&'static str> {
    if !A::HANDS_OVER {
        return Some("this service has none; it is stopped and started again");
    }
    if std::process::id() == 1 {
        return Some(
            "this is process 1, and its container would end with it; start another container instead",
        );
    }
    matches!(handing, Handing::To(_)).then_some("another process is about to take over already")
}

fn hand_overs(service: &Service) -> Counter<u64> {
    service
        .telemetry()
        .meter()
        .u64_counter("tollgate.process.hand_overs")
        .with_description("Times that this process was asked to hand over to a new one (SIGUSR2)")
        .with_unit("{hand_over}")
        .build()
}

fn tell_supervisor_when_ready(service: &Service) {
    // Who takes over is made known by the process before it.
    if service.succession().succeeds() {
        return;
    }
    let (readiness, stopping) = (service.readiness().clone(), service.tasks().stopping());
    service.tasks().spawn("supervisor", async move {
        tokio::select! {
            () = readiness.ready() => supervisor::ready(),
            () = stopping.cancelled() => {}
        }
    });
}

/// What a process is told from outside.
#[derive(Debug, Clone, Copy)]
enum Told {
    Terminate,
    Interrupt,
}

/// Returns on the first SIGINT or SIGTERM; a second one ends the process at once.
pub async fn shutdown_signal() {
    match Signals::listen() {
        Ok(mut signals) => {
            signals.next().await;
            signals.end_at(1);
        }
        Err(_) => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM, heard from the beginning of this on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// What has come and nobody was told yet.
    told: Option<Told>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, told: None })
    }

    /// The next one. Whoever stops waiting loses none.
    async fn next(&mut self) -> Told {
        let told = match self.told {
            Some(told) => told,
            None => tokio::select! {
                _ = self.terminate.recv() => Told::Terminate,
                _ = self.interrupt.recv() => Told::Interrupt,
            },
        };
        self.told = Some(told);
        // What came before it may not have been noticed yet.
        tokio::task::yield_now().await;
        self.told = None;
        told
    }

    /// With so many more of them this process ends at once.
    #[expect(clippy::disallowed_methods, reason = "a further signal means: now")]
    fn end_at(mut self, count: u32) {
        tokio::spawn(async move {
            for _ in 1..count {
                self.next().await;
                tracing::info!("told to stop, which this process does already: once more ends it at once");
            }
            self.next().await;
            end_now();
        });
    }
}

#[expect(clippy::exit, reason = "whoever asks twice wants no more waiting")]
fn end_now() {
    std::process::exit(130);
}

/// Prints an error with its causes and gives the exit code that fits it.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    tell(&format!("error: {error:#}"));
    let bad_input =
        error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<crate::net::BindError>());
    ExitCode::from(if bad_input { BAD_INPUT } else { 1 })
}

/// Says something to whoever typed the command.
#[expect(clippy::print_stderr, reason = "the command line talks to its person")]
pub fn tell(line: &str) {
    // At once, so that nothing of another process comes between a line and its end.
    let line = format!("{line}\n");
    eprint!("{line}");
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_outlives_whoever_stops_waiting_for_it() {
        let mut signals = Signals::listen().unwrap();
        kill_process(getpid(), rustix::process::Signal::TERM).unwrap();
        while signals.told.is_none() {
            tokio::task::yield_now().await;
            let mut next = std::pin::pin!(signals.next());
            let told = std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
            assert!(told.is_pending(), "it looks round before it tells");
        }
        assert!(matches!(signals.next().await, Told::Terminate));
    }

    #[test]
    fn a_binary_tells_its_own_version() {
        assert_eq!(
            command("proxy").render_version(),
            concat!("tollgate-proxy ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}
