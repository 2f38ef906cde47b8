//! A proxy with twice the requests that it can carry, once with shedding and once without.
//!
//! Each request passes many routes with expressions before it comes to its own: so the proxy has more to do for it than
//! who asks and who answers, and is what there is too little of.
//!
//! Each connection has its own times at which it asks, whatever became of the question before (an open loop): an answer's time
//! counts from when its request was due, so that a proxy which falls behind shows it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::chain::upstream;
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, collector, say};

/// Enough to keep the proxy busy, and so few that none waits long.
const AT_PEAK: usize = 32;
/// A load that the proxy carries with ease.
const CALM: f64 = 0.6;
const TOO_MUCH: f64 = 2.0;
/// What is measured after the load has changed is how it gets there.
const SETTLES: Duration = Duration::from_secs(2);
const MAX_HEAD: usize = 4096;

/// What can be chosen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections over which requests come.
    #[arg(long, default_value_t = 512)]
    connections: usize,
    /// Routes before the one that is taken: what a request costs.
    #[arg(long, default_value_t = 5_000)]
    routes: usize,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let (upstream, collector, folder) = (upstream::start()?, collector::start()?, TempDir::new()?);
    let file = folder.path().join("proxy.yaml");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for mode in ["shed", "off"] {
        let [listen] = process::free_addresses()?;
        std::fs::write(&file, config(listen, upstream, collector, mode, args.routes).to_string())?;
        let arguments = ["--config".to_owned(), file.display().to_string()];
        let _proxy = Running::start(&options.binaries.join("tollgate-proxy"), TESTED_CORE, &arguments)?;
        process::wait_for(listen)?;
        runtime.block_on(measure(options, args, mode, listen))?;
    }
    Ok(())
}

fn config(
    listen: SocketAddr,
    upstream: SocketAddr,
    collector: SocketAddr,
    mode: &str,
    routes: usize,
) -> Value {
    let passed = (0..routes).map(|number| {
        let expression = format!("^(mozilla|curl)/{number}[.][0-9]+");
        let header = json!({"name": "user-agent", "type": "RegularExpression", "value": expression});
        json!({"name": format!("r{number}"), "matches": [{"headers": [header]}], "authz": "off", "backends": [{"cluster": "app"}]})
    });
    let taken = json!({"name": "taken", "matches": [{}], "authz": "off", "backends": [{"cluster": "app"}]});
    json!({
        "process": {"listen": null},
        "telemetry": {"endpoint": format!("http://{collector}"), "log": "warn"},
        "overload": {"mode": mode},
        "listeners": [{"name": "in", "bind": listen, "role": "ingress", "limit_by_address": {"per_second": 0}}],
        "routes": passed.chain([taken]).collect::<Vec<_>>(),
        "clusters": [{"name": "app", "endpoints": {"static": [upstream]}}],
    })
}

async fn measure(options: &Options, args: &Args, mode: &str, address: SocketAddr) -> anyhow::Result<()> {
    let request = b"GET /policies/POL-1042 HTTP/1.1\r\nhost: policies.insurance\r\nuser-agent: curl/8.5.0\r\naccept: */*\r\n\r\n";
    let load = Load { address, request: request.to_vec() };
    let at_peak =
        || async { anyhow::Ok(load.run(AT_PEAK, None, options.round()).await?.served_per_second()) };
    load.run(AT_PEAK, None, SETTLES).await.context("warm-up")?;
    say(&format!("overload.mode {mode}, {} routes before the one that is taken", args.routes));
    let mut goodput = Vec::new();
    for number in 1..=options.rounds {
        let peak = at_peak().await?;
        say(&format!(
            "round {number} peak   served {peak:>6.0}/s over {AT_PEAK} connections that never rest"
        ));
        for load_of in [CALM, TOO_MUCH] {
            let rate = Some(peak * load_of);
            load.run(args.connections, rate, SETTLES).await?;
            let seen = load.run(args.connections, rate, options.round()).await?;
            say(&format!("round {number} x {load_of:.1}  {seen}"));
            if load_of == TOO_MUCH {
                // A machine that others use too carries now more and now less.
                goodput.push(seen.served_per_second() / peak.midpoint(at_peak().await?));
            }
        }
    }
    goodput.sort_by(f64::total_cmp);
    let median = goodput[goodput.len() / 2];
    say(&format!("median goodput at {TOO_MUCH:.1}: {median:.2} of the peak before and after\n"));
    Ok(())
}

/// What is asked, and where.
struct Load {
    address: SocketAddr,
    request: Vec<u8>,
}

/// How long answers took, in microseconds.
#[derive(Default)]
struct Seen {
    took: Duration,
    served: Vec<u64>,
    refused: Vec<u64>,
}

impl Load {
    /// Asks for a while: so many times a second, or without rest.
    async fn run(&self, connections: usize, rate: Option<f64>, lasts: Duration) -> anyhow::Result<Seen> {
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let began = Instant::now();
        let every = rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate));
        let asked = streams.into_iter().enumerate().map(|(number, stream)| {
            // Not all at the same moment.
            let first = began + every.unwrap_or_default().mul_f64(number as f64 / connections as f64);
            self.ask(stream, first, every, began + lasts)
        });
        let mut seen = Seen::default();
        for of_one in try_join_all(asked).await? {
            seen.served.extend(of_one.served);
            seen.refused.extend(of_one.refused);
        }
        seen.took = began.elapsed();
        seen.served.sort_unstable();
        seen.refused.sort_unstable();
        Ok(seen)
    }

    async fn ask(
        &self,
        mut stream: TcpStream,
        first: Instant,
        every: Option<Duration>,
        until: Instant,
    ) -> anyhow::Result<Seen> {
        let (mut seen, mut heard, mut due) = (Seen::default(), Vec::with_capacity(MAX_HEAD), first);
        loop {
            match every {
                None => due = Instant::now(),
                Some(_) if due > Instant::now() => tokio::time::sleep_until(due.into()).await,
                Some(_) => {}
            }
            if due.max(Instant::now()) >= until {
                return Ok(seen);
            }
            stream.write_all(&self.request).await?;
            let status = answer(&mut stream, &mut heard).await?;
            let took = u64::try_from(due.elapsed().as_micros())?;
            match status {
                200 => seen.served.push(took),
                503 => seen.refused.push(took),
                _ => anyhow::bail!("the proxy answered {}", String::from_utf8_lossy(&heard)),
            }
            due += every.unwrap_or_default();
        }
    }
}

/// Reads one answer of a known length, and says its status.
async fn answer(stream: &mut TcpStream, heard: &mut Vec<u8>) -> anyhow::Result<u16> {
    heard.clear();
    loop {
        ensure!(stream.read_buf(heard).await? > 0, "the proxy closed a connection");
        let Some(end) = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            ensure!(heard.len() < MAX_HEAD, "an answer without an end to its head");
            continue;
        };
        let head = std::str::from_utf8(&heard[..end])?;
        let status = head.get(9..12).context("an answer without a status")?.parse()?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("an answer without a length")?.trim().parse()?;
        while heard.len() < end + 4 + length {
            ensure!(stream.read_buf(heard).await? > 0, "an answer broke off");
        }
        return Ok(status);
    }
}

impl Seen {
    fn served_per_second(&self) -> f64 {
        self.served.len() as f64 / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |sorted: &[u64], share: f64| {
            let place = (sorted.len() as f64 * share) as usize;
            sorted.get(place).map_or(0.0, |micros| *micros as f64 / 1e3)
        };
        write!(
            f,
            "served {:>6.0}/s p50 {:>6.1} p99 {:>6.1} ms   refused {:>6.0}/s p50 {:>5.1} p99 {:>5.1} ms",
            self.served_per_second(),
            at(&self.served, 0.5),
            at(&self.served, 0.99),
            self.refused.len() as f64 / self.took.as_secs_f64(),
            at(&self.refused, 0.5),
            at(&self.refused, 0.99),
        )
    }
}
