//! The chain measured against Envoy 1.40 doing the same job with the same two services.
//!
//! Both sides share core 1 with the services they ask, so requests a second say less than CPU time does.

mod plain;
mod stack;
pub(crate) mod upstream;
mod wrk;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tollgate_testkit::envoy::{Envoy, EnvoyConfig};

use crate::{Options, process, say};
pub(crate) use plain::run as run_plain;
use stack::Stack;
use wrk::{Sample, measure};

/// What can be chosen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections kept open by the load generator.
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<()> {
    let stack = Stack::start(&options.binaries)?;
    let envoy = Envoy::start(&EnvoyConfig {
        identity: None,
        authz: Some(stack.authz),
        ratelimit: Some(stack.ratelimit),
        upstream: stack.upstream,
        otlp: Some(stack.otlp),
        concurrency: 1,
        service: "insurance/policies",
        domain: "insurance",
    });
    process::pin(envoy.pid(), process::TESTED_CORE)?;

    let sides = [(stack.ingress, stack.ingress_pid()), (envoy.address(), envoy.pid())];
    compare(options, args, sides, Some(&stack.token))
}

/// Loads both proxies in turn, and says what they cost.
pub(crate) fn compare(
    options: &Options,
    args: &Args,
    [ours, envoys]: [(SocketAddr, u32); 2],
    token: Option<&str>,
) -> anyhow::Result<()> {
    let load = |(address, pid), round| measure(address, pid, token, args.connections, round);
    let warm = Duration::from_secs(2);
    load(ours, warm).and_then(|_| load(envoys, warm)).context("warm-up")?;
    let (mut of_ours, mut of_envoy) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        of_ours.push(report(number, "tollgate", load(ours, options.round())?));
        of_envoy.push(report(number, "envoy", load(envoys, options.round())?));
    }
    let (ours, envoys) = (Sample::median(of_ours), Sample::median(of_envoy));
    say(&format!(
        "\nmedian of {} interleaved rounds of {} s, {} connections",
        options.rounds, options.seconds, args.connections
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
