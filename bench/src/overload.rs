//! A proxy with twice the requests that it can carry, with shedding and without, one after the other in each round.
//!
//! Each request carries a long cookie past routes with expressions on it before it comes to its own: so the proxy has more to
//! do for it than who asks and who answers, and is what there is too little of.
//!
//! The peak is what comes through over the same connections when nothing is shed and none of them ever rests. Then each
//! connection has its own times at which it asks, whatever became of the question before (an open loop): an answer's time
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

/// Enough to keep the proxy busy, and so few that all that it touches stays at hand: a peak without many clients.
const FEW: usize = 32;
/// A load that the proxy carries with ease.
const CALM: f64 = 0.6;
const TOO_MUCH: f64 = 2.0;
/// What is measured after the load has changed is how it gets there.
const SETTLES: Duration = Duration::from_secs(2);
const MAX_HEAD: usize = 4096;
const COOKIE_BYTES: usize = 4_000;

/// What can be chosen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections over which requests come.
    #[arg(long, default_value_t = 512)]
    connections: usize,
    /// Routes before the one that is taken, each of which reads the whole cookie: what a request costs.
    #[arg(long, default_value_t = 100)]
    routes: usize,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let (upstream, collector, folder) = (upstream::start()?, collector::start()?, TempDir::new()?);
    let start = |mode: &str| {
        let [listen] = process::free_addresses()?;
        let file = folder.path().join(format!("{mode}.yaml"));
        std::fs::write(&file, config(listen, upstream, collector, mode, args.routes).to_string())?;
        let arguments = ["--config".to_owned(), file.display().to_string()];
        let proxy = Running::start(&options.binaries.join("tollgate-proxy"), TESTED_CORE, &arguments)?;
        process::wait_for(listen)?;
        anyhow::Ok(Asked { listen, proxy })
    };
    // One of them always rests.
    let (shedding, patient) = (start("shed")?, start("off")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options, args, &shedding, &patient))
}

fn config(
    listen: SocketAddr,
    upstream: SocketAddr,
    collector: SocketAddr,
    mode: &str,
    routes: usize,
) -> Value {
    let passed = (0..routes).map(|number| {
        let expression = format!("^.*; basket=[a-f]+{number};");
        let header = json!({"name": "cookie", "type": "RegularExpression", "value": expression});
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

async fn measure(options: &Options, args: &Args, shedding: &Asked, patient: &Asked) -> anyhow::Result<()> {
    let (many, round) = (args.connections, options.round());
    for proxy in [shedding, patient] {
        proxy.run(FEW, None, SETTLES).await.context("warm-up")?;
    }
    say(&format!(
        "{many} connections, {} routes with an expression on {COOKIE_BYTES} bytes before the one that is taken",
        args.routes
    ));
    let (mut shed, mut off) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        let show = |what: &str, seen: &Seen| say(&format!("round {number} {what:<12} {seen}"));
        show("few, no rest", &patient.run(FEW, None, round).await?);
        let before = patient.run(many, None, round).await?;
        show("no rest", &before);
        let peak = before.served_per_second();
        let calm = shedding.settled(many, peak * CALM, round).await?;
        show("shed x 0.6", &calm);
        let shed_at = shedding.settled(many, peak * TOO_MUCH, round).await?;
        show("shed x 2.0", &shed_at);
        // A machine that others use too carries now more and now less.
        let after = patient.run(many, None, round).await?;
        show("no rest", &after);
        let off_at = patient.settled(many, peak * TOO_MUCH, round).await?;
        show("off  x 2.0", &off_at);
        let peak = peak.midpoint(after.served_per_second());
        shed.push(shed_at.served_per_second() / peak);
        off.push(off_at.served_per_second() / peak);
    }
    let (shed, off) = (median(&mut shed), median(&mut off));
    say(&format!(
        "goodput at {TOO_MUCH:.1}, of the peak before and after: {shed:.2} with shedding, {off:.2} without"
    ));
    Ok(())
}

fn median(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// A proxy that is asked.
struct Asked {
    listen: SocketAddr,
    proxy: Running,
}

/// How long answers took, in microseconds.
#[derive(Default)]
struct Seen {
    took: Duration,
    /// What the proxy used of its processor.
    cpu: Duration,
    served: Vec<u64>,
    refused: Vec<u64>,
}

impl Asked {
    /// Asks so many times a second; what it is like once it has got used to it.
    async fn settled(&self, connections: usize, rate: f64, lasts: Duration) -> anyhow::Result<Seen> {
        self.run(connections, Some(rate), SETTLES).await?;
        self.run(connections, Some(rate), lasts).await
    }

    /// Asks for a while: so many times a second, or without rest.
    async fn run(&self, connections: usize, rate: Option<f64>, lasts: Duration) -> anyhow::Result<Seen> {
        let cookie: String = "session=0123456789abcdef; ".chars().cycle().take(COOKIE_BYTES).collect();
        let request = format!(
            "GET /policies/POL-1042 HTTP/1.1\r\nhost: policies.insurance\r\ncookie: {cookie}\r\n\r\n"
        );
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            let stream = TcpStream::connect(self.listen).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let (began, used) = (Instant::now(), process::cpu(self.proxy.id())?);
        let every = rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate));
        let asked = streams.into_iter().enumerate().map(|(number, stream)| {
            // Not all at the same moment.
            let first = began + every.unwrap_or_default().mul_f64(number as f64 / connections as f64);
            ask(stream, request.as_bytes(), first, every, began + lasts)
        });
        let mut seen = Seen::default();
        for of_one in try_join_all(asked).await? {
            seen.served.extend(of_one.served);
            seen.refused.extend(of_one.refused);
        }
        seen.took = began.elapsed();
        seen.cpu = process::cpu(self.proxy.id())? - used;
        seen.served.sort_unstable();
        seen.refused.sort_unstable();
        Ok(seen)
    }
}

async fn ask(
    mut stream: TcpStream,
    request: &[u8],
    first: Instant,
    every: Option<Duration>,
    until: Instant,
) -> anyhow::Result<Seen> {
    let (mut seen, mut heard, mut due) = (Seen::default(), Vec::with_capacity(MAX_HEAD), first);
    loop {
        let now = Instant::now();
        if every.is_none() {
            due = now;
        }
        if due.max(now) >= until {
            return Ok(seen);
        }
        if due > now {
            tokio::time::sleep_until(due.into()).await;
        }
        stream.write_all(request).await?;
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
            "served {:>6.0}/s p50 {:>6.1} p99 {:>6.1} ms   refused {:>6.0}/s p50 {:>5.1} p99 {:>5.1} ms   cpu {:>3.0} %",
            self.served_per_second(),
            at(&self.served, 0.5),
            at(&self.served, 0.99),
            self.refused.len() as f64 / self.took.as_secs_f64(),
            at(&self.refused, 0.5),
            at(&self.refused, 0.99),
            self.cpu.as_secs_f64() / self.took.as_secs_f64() * 100.0,
        )
    }
}
