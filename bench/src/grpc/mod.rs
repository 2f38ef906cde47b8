//! Two gRPC servers under the same load, one round after the other.

pub(crate) mod empty;
mod load;
mod wire;

use std::net::SocketAddr;

use std::time::Duration;

use load::Connections;
pub(crate) use load::{Calls, Sample};

use crate::{Options, say};

const WARM_UP: Duration = Duration::from_secs(2);

/// A server that is measured.
pub(crate) struct Server<'a> {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// Whether this is the answer it must give.
    pub(crate) is_right: &'a (dyn Fn(&[u8]) -> bool + Sync),
}

/// The medians of all sides; rounds are said as they end.
pub(crate) async fn compare<const SIDES: usize>(
    options: &Options,
    sides: [&Server<'_>; SIDES],
    calls: &Calls,
) -> anyhow::Result<[Sample; SIDES]> {
    let mut connected = Vec::new();
    for side in sides {
        let mut connections = Connections::to(side, calls).await?;
        connections.run(side, calls, WARM_UP).await?;
        connected.push((side, connections, Vec::new()));
    }
    for round in 1..=options.rounds {
        for (side, connections, samples) in &mut connected {
            let sample = connections.run(side, calls, options.round()).await?;
            say(&format!("round {round} {:<16} {sample}", side.name));
            samples.push(sample);
        }
    }
    let medians = std::array::from_fn(|side| Sample::median(&connected[side].2));
    say(&format!("\nmedian of {} interleaved rounds of {} s", options.rounds, options.seconds));
    for (side, median) in sides.iter().zip(&medians) {
        say(&format!("      {:<18} {median}", side.name));
    }
    Ok(medians)
}

/// One server alone.
pub(crate) async fn measure(server: &Server<'_>, calls: &Calls, time: Duration) -> anyhow::Result<Sample> {
    Connections::to(server, calls).await?.run(server, calls, time).await
}
