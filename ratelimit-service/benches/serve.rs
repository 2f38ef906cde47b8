//! The service over the wire, against a tonic service that answers without thinking.
//!
//! ```text
//! core 0: the server under test          core 1: the load, and Redis
//! ```
//!
//! Run with `cargo bench -p tollgate-ratelimit --bench serve -- [--redis] [--other ADDRESS-PRINTING-PROGRAM]`. Each
//! server is a process of its own, rounds are interleaved, and what is compared is the server's CPU time a call: that
//! holds also where the load's core is the busier one.

#![expect(clippy::print_stdout, reason = "the result goes to stdout")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_ratelimit::{App, Config};
use tollgate_runtime::config::Secret;
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_runtime::{App as _, Service};
use tollgate_testkit::redis::RedisServer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 4;
const STREAMS: usize = 32;
const KEYS: usize = 100_000;
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
const LIMITS: &str = "
domain: bench
descriptors:
  - key: plan
    value: free
    descriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 1000000}}]
";

struct Empty;

#[tonic::async_trait]
impl RateLimitService for Empty {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<tonic::Response<RateLimitResponse>, tonic::Status> {
        // The request is decoded by then; nothing else is asked of this one.
        std::hint::black_box(request.get_ref());
        Ok(tonic::Response::new(RateLimitResponse { overall_code: 1, ..RateLimitResponse::default() }))
    }
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", "empty"] => block_on(serve_empty()),
        ["server", "ours"] => block_on(serve_ours(None)),
        ["server", "ours", redis] => block_on(serve_ours(Some(redis))),
        ["keys", count] => block_on(hold_keys(count.parse()?)),
        _ => compare(&args),
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

async fn serve_empty() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = RateLimitServiceServer::new(Empty);
    Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

async fn serve_ours(redis: Option<&str>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("bench.yaml"), LIMITS)?;
    let mut config = Config::with_folder(folder.path());
    config.listen = "127.0.0.1:0".parse()?;
    config.counters.redis.url = redis.map(Secret::new);
    let (process, telemetry) =
        (ProcessConfig { listen: None, ..Default::default() }, TelemetryConfig::default());
    let service = Service::start("ratelimit", &process, &telemetry)?;
    let app = App::build(config, service.clone()).await?;
    println!("{}", app.addresses().grpc);
    app.run().await
}

/// Fills the memory store with this many live keys and says what that takes.
async fn hold_keys(count: usize) -> anyhow::Result<()> {
    use tollgate_ratelimit::counters::{Batch, Bounds, MemoryStore};
    use tollgate_ratelimit::limits::{Limit, Mode};
    use tollgate_ratelimit::window::{Hits, Unit, Window};
    let before = rss_mib(std::process::id())?;
    let store = MemoryStore::new(Bounds::keys(count + count / 8));
    for number in 0..count {
        let mut batch = Batch::with_capacity(1);
        batch.push(Limit::fixed(10, Window::of(Unit::Day)), Mode::Enforce, Hits::Add(1), |key| {
            key.extend_from_slice(format!("tg:{{bench}}:86400:4:user:{number}").as_bytes());
        });
        store.count_now(&batch, 1_700_000_000_000_000, &mut Vec::new());
    }
    println!(
        "{} live keys, {:.0} MiB, {} forgotten",
        store.len(),
        rss_mib(std::process::id())? - before,
        store.evicted()
    );
    Ok(())
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(program: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", program]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is piped")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        Ok(Self { child, address: line.trim().parse().with_context(|| format!("{program} printed {line}"))? })
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    per_second: f64,
    cpu_us: f64,
    p99_us: f64,
}

fn compare(args: &[&str]) -> anyhow::Result<()> {
    let me = std::env::current_exe()?;
    let me = me.to_str().context("the path is text")?;
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", "1", &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "this benchmark needs two cores");
    let redis = args.contains(&"--redis").then(RedisServer::start);
    let mut servers = vec![("empty tonic", Server::start(me, &["server", "empty"])?)];
    match &redis {
        None => servers.push(("ours, memory", Server::start(me, &["server", "ours"])?)),
        Some(redis) => servers.push(("ours, redis", Server::start(me, &["server", "ours", &redis.url()])?)),
    }
    let redis_url = redis.as_ref().map(RedisServer::url).unwrap_or_default();
    if let Some(other) = args.iter().position(|arg| *arg == "--other").and_then(|at| args.get(at + 1)) {
        servers.push(("other", Server::start(other, &[&redis_url])?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut samples = vec![Vec::new(); servers.len()];
    for round in 0..=ROUNDS {
        for (place, (name, server)) in servers.iter().enumerate() {
            let sample = runtime.block_on(load(server))?;
            // The first round warms up.
            if round > 0 {
                println!(
                    "round {round} {name:<14} {:>9.0}/s {:>6.2} us CPU p99 {:>6.0} us",
                    sample.per_second, sample.cpu_us, sample.p99_us
                );
                samples[place].push(sample);
            }
        }
    }
    let first = median(&samples[0]);
    for ((name, _), samples) in servers.iter().zip(&samples) {
        let one = median(samples);
        println!(
            "{name:<14} {:>9.0}/s {:>6.2} us CPU p99 {:>6.0} us; of empty tonic: {:.2} by CPU, {:.2} by calls",
            one.per_second,
            one.cpu_us,
            one.p99_us,
            first.cpu_us / one.cpu_us,
            one.per_second / first.per_second,
        );
    }
    Ok(())
}

fn median(samples: &[Sample]) -> Sample {
    let middle = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Sample {
        per_second: middle(|s| s.per_second),
        cpu_us: middle(|s| s.cpu_us),
        p99_us: middle(|s| s.p99_us),
    }
}

fn request(user: usize) -> RateLimitRequest {
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    let entries = vec![entry("plan", "free".to_owned()), entry("user", format!("user-{user}"))];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    RateLimitRequest { domain: "bench".to_owned(), descriptors, hits_addend: 0 }
}

async fn load(server: &Server) -> anyhow::Result<Sample> {
    let calls = Arc::<AtomicU64>::default();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{}", server.address))?.connect().await?;
        clients.extend((0..STREAMS).map(|_| RateLimitServiceClient::new(channel.clone())));
    }
    let cpu = cpu_seconds(server.child.id())?;
    let started = Instant::now();
    let callers = clients.into_iter().enumerate().map(|(number, mut client)| {
        let calls = Arc::clone(&calls);
        async move {
            let (mut user, mut took) = (number * 797, Vec::new());
            while started.elapsed() < ROUND {
                user = (user + 7_919) % KEYS;
                let asked = Instant::now();
                client.should_rate_limit(request(user)).await?;
                took.push(asked.elapsed());
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(took)
        }
    });
    let took = futures_util::future::try_join_all(callers).await?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds(server.child.id())? - cpu;
    let mut took: Vec<_> = took.into_iter().flatten().collect();
    took.sort_unstable();
    let all = calls.load(Ordering::Relaxed) as f64;
    let p99 = took[took.len() * 99 / 100];
    Ok(Sample { per_second: all / seconds, cpu_us: cpu * 1e6 / all, p99_us: p99.as_secs_f64() * 1e6 })
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks =
        |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).context("/proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next());
    Ok(kib.context("VmRSS")?.parse::<f64>()? / 1024.0)
}
