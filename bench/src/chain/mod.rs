//! The chain measured against Envoy 1.40 doing the same job with the same two services.
//!
//! Both sides share core 1 with the services they ask, so requests a second say less than CPU time does.

mod stack;
pub(crate) mod upstream;
mod wrk;

use std::time::Duration;

use anyhow::Context as _;
use tollgate_testkit::envoy::{Envoy, EnvoyConfig};

use crate::{Options, process, say};
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
        authz: stack.authz,
        ratelimit: stack.ratelimit,
        upstream: stack.upstream,
        otlp: Some(stack.otlp),
        concurrency: 1,
        service: "insurance/policies",
        domain: "insurance",
    });
    process::pin(envoy.pid(), process::TESTED_CORE)?;

    let round = options.round();
    let warm = Duration::from_secs(2);
    for (address, pid) in [(stack.ingress, stack.ingress_pid()), (envoy.address(), envoy.pid())] {
        measure(address, pid, &stack.token, args.connections, warm).context("warm-up")?;
    }
    let (mut ours, mut envoys) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
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
