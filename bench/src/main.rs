//! The chain measured against Envoy 1.40 doing the same job with the same two services.
//!
//! ```text
//! core 0: the proxy under test          core 1: wrk, authz, ratelimit, dashboard, upstream
//! ```
//!
//! Rounds are interleaved (ours, Envoy, ours, ...), so that whatever else the machine does falls on
//! both. What is compared is CPU time per request: both sides share core 1 with the services they ask, so requests
//! a second say less.

mod load;
mod processes;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tollgate_testkit::envoy::{Envoy, EnvoyConfig};

use load::{Sample, measure};
use processes::Stack;

#[derive(Debug, Parser)]
#[command(about = "Ingress with authorization, rate limit and OTLP access log, against Envoy 1.40")]
struct Args {
    /// Rounds a side.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds a round.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Connections kept open by the load generator.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Folder of the binaries under test.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tollgate_runtime::cli::fail(&error),
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let stack = Stack::start(&args.binaries)?;
    let envoy = Envoy::start(&EnvoyConfig {
        authz: stack.authz,
        ratelimit: stack.ratelimit,
        upstream: stack.upstream,
        otlp: Some(stack.otlp),
        concurrency: 1,
        service: "insurance/policies",
        domain: "insurance",
    });
    processes::pin(envoy.pid(), processes::PROXY_CORE)?;

    let round = Duration::from_secs(args.seconds);
    let warm = Duration::from_secs(2);
    for (address, pid) in [(stack.ingress, stack.ingress_pid()), (envoy.address(), envoy.pid())] {
        measure(address, pid, &stack.token, args.connections, warm).context("warm-up")?;
    }
    let (mut ours, mut envoys) = (Vec::new(), Vec::new());
    for number in 1..=args.rounds {
        ours.push(report(
            number,
            "tollgate",
            measure(stack.ingress, stack.ingress_pid(), &stack.token, args.connections, round)?,
        ));
        envoys.push(report(
            number,
            "envoy",
            measure(envoy.address(), envoy.pid(), &stack.token, args.connections, round)?,
        ));
    }
    let (ours, envoys) = (Sample::median(ours), Sample::median(envoys));
    say(&format!(
        "\nmedian of {} interleaved rounds of {} s, {} connections",
        args.rounds, args.seconds, args.connections
    ));
    say("                 req/s   CPU us/request   p99 us   RSS MiB");
    say(&format!("  tollgate   {ours}"));
    say(&format!("  envoy 1.40 {envoys}"));
    say(&format!(
        "  ratio      {:>9.2}   {:>14.2}   {:>6.2}   (tollgate : envoy)",
        ours.per_second / envoys.per_second,
        ours.cpu_us / envoys.cpu_us,
        ours.p99_us / envoys.p99_us,
    ));
    Ok(())
}

fn report(number: u32, side: &str, sample: Sample) -> Sample {
    say(&format!("round {number} {side:<9}{sample}"));
    sample
}

#[expect(clippy::print_stdout, reason = "the result goes to stdout")]
fn say(line: &str) {
    println!("{line}");
}
