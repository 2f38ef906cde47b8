//! What Tollgate costs, against peers that do the same job in the same run.
//!
//! ```text
//! core 0: the server under test          core 1: load, and everything that it needs
//! ```
//!
//! Rounds are interleaved (ours, the peer, ours, ...), so that whatever else the machine does falls on both. What is
//! compared is CPU time per request: on a core that has nothing else to do, that is what decides how many it answers.

mod chain;
mod check;
mod collector;
mod floods;
mod footprint;
mod grpc;
mod keys;
mod limits;
mod mtls;
mod overload;
mod process;
mod routes;
mod start_order;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "What Tollgate costs, against peers doing the same job")]
struct Args {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Ingress with authorization, rate limit and OTLP access log, against Envoy 1.40.
    Chain(chain::Args),
    /// A request that is forwarded and logged by OTLP, against Envoy 1.40.
    Plain(chain::Args),
    /// A Check over gRPC, against an empty tonic service that decodes the same message.
    Check,
    /// ShouldRateLimit: in memory against that empty service, on Redis against the library Limitador.
    Limits(limits::Args),
    /// The memory that counters take: ten million live ones, and a storm of new ones on a store that is full.
    Keys,
    /// A request over mTLS on a kept connection, against the same in plaintext through the same proxy.
    Mtls,
    /// Twice the requests that the ingress can carry: what is served, what is refused, and how fast; with shedding and without.
    Overload(overload::Args),
    /// What floods do to other clients, and to the memory of the proxy.
    Floods(floods::Args),
    /// Floods a proxy until it is ended.
    #[command(hide = true)]
    Flood { flood: floods::Flood, address: std::net::SocketAddr },
    /// What a proxy takes that does nothing: its start, its memory, and that of ten thousand idle mTLS connections.
    Footprint,
    /// Instructions a request takes with ten routes and with ten thousand.
    Routes,
    /// Prints the linker script that puts side by side what a proxy executes when it starts (proxy/start.ld).
    StartOrder,
    /// That empty service: prints its address, and serves until it is ended.
    #[command(hide = true)]
    ServeEmpty {
        runtime: grpc::empty::Runtime,
        /// Verifies the token of each Check with this JWK.
        jwk: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Rounds a side.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: u32,
    /// Seconds a round.
    #[arg(long, default_value_t = 4, global = true)]
    seconds: u64,
    /// Folder of the binaries under test.
    #[arg(long, default_value = "target/dist", global = true)]
    binaries: PathBuf,
}

impl Options {
    fn round(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.scenario {
        Scenario::Chain(chain) => chain::run(&args.options, &chain),
        Scenario::Plain(plain) => chain::run_plain(&args.options, &plain),
        Scenario::Check => check::run(&args.options),
        Scenario::Limits(limits) => limits::run(&args.options, &limits),
        Scenario::Keys => keys::run(),
        Scenario::Mtls => mtls::run(&args.options),
        Scenario::Overload(overload) => overload::run(&args.options, &overload),
        Scenario::Floods(floods) => floods::run(&args.options, &floods),
        Scenario::Flood { flood, address } => floods::flood(flood, address),
        Scenario::Footprint => footprint::run(&args.options),
        Scenario::Routes => routes::run(&args.options),
        Scenario::StartOrder => start_order::run(&args.options),
        Scenario::ServeEmpty { runtime, jwk } => grpc::empty::serve(runtime, jwk.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tollgate_runtime::cli::fail(&error),
    }
}

#[expect(clippy::print_stdout, reason = "the result goes to stdout")]
fn say(line: &str) {
    println!("{line}");
}
