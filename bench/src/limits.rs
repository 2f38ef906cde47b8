//! ShouldRateLimit against the least that any answer can cost, and on Redis against another limiter that is exact.
//!
//! One descriptor of two entries, 100,000 of them in turn. Redis is on the core of the load.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use prost::Message as _;
use serde_json::json;
use tempfile::TempDir;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use tollgate_proto::envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_testkit::redis::RedisServer;

use crate::grpc::empty::Runtime;
use crate::grpc::{self, Calls, Server};
use crate::process::{self, HELPER_CORE, Running, TESTED_CORE};
use crate::{Options, say};

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const KEYS: usize = 100_000;
/// Calls in flight on each connection: as many as the figures in the project's baselines.
const STREAMS: usize = 32;
const LIMITS: &str = "
domain: bench
descriptors:
  - key: plan
    value: free
    descriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 1000000}}]
";

/// What can be chosen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server around Limitador: cargo build --release --manifest-path bench/limitador/Cargo.toml
    #[arg(long, default_value = "bench/limitador/target/release/limitador-bench")]
    limitador: PathBuf,
    /// Which stores.
    #[arg(long, value_enum, default_value = "both")]
    store: Stores,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stores {
    Memory,
    Redis,
    Both,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<()> {
    process::pin(std::process::id(), HELPER_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if args.store != Stores::Redis {
            in_memory(options).await?;
        }
        if args.store != Stores::Memory {
            on_redis(options, &args.limitador).await?;
        }
        Ok(())
    })
}

async fn in_memory(options: &Options) -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let (ours, address) = start_ours(options, folder.path(), None)?;
    let (multi, multi_address) = grpc::empty::start(Runtime::MultiThread, None)?;
    let (current, current_address) = grpc::empty::start(Runtime::CurrentThread, None)?;
    let ours = Server { name: "memory", address, pid: ours.id(), is_right: &is_counted };
    let is_right = &<[u8]>::is_empty;
    let multi = Server { name: "empty", address: multi_address, pid: multi.id(), is_right };
    let current = Server { name: "empty, 1 thread", address: current_address, pid: current.id(), is_right };
    let calls = calls();
    let [of_multi, of_current, of_ours] = grpc::compare(options, [&multi, &current, &ours], &calls).await?;
    say(&format!(
        "      ratio {:.2} (empty : memory, {KEYS} keys), {:.2} to the empty one on one thread\n",
        of_multi.cpu_us / of_ours.cpu_us,
        of_current.cpu_us / of_ours.cpu_us,
    ));
    Ok(())
}

async fn on_redis(options: &Options, limitador: &Path) -> anyhow::Result<()> {
    ensure!(
        limitador.exists(),
        "{} is missing: cargo build --release --locked --manifest-path bench/limitador/Cargo.toml",
        limitador.display()
    );
    // Inherits this process's core.
    let redis = RedisServer::start();
    let folder = TempDir::new()?;
    let (ours, address) = start_ours(options, folder.path(), Some(&redis.url()))?;
    let (theirs, their_address) = Running::start_and_hear_address(limitador, TESTED_CORE, &[redis.url()])?;
    let passes = |answer: &[u8]| {
        RateLimitResponse::decode(answer).is_ok_and(|answer| answer.overall_code() == Code::Ok)
    };
    let ours = Server { name: "redis", address, pid: ours.id(), is_right: &is_counted };
    let theirs = Server { name: "limitador", address: their_address, pid: theirs.id(), is_right: &passes };
    let calls = calls();
    let [of_theirs, of_ours] = grpc::compare(options, [&theirs, &ours], &calls).await?;
    // Its keys begin so. A limit that never matched would cost it nothing.
    ensure!(keys_like(&redis, "namespace:*")? > 0, "Limitador counted nothing");
    say(&format!(
        "      ratio {:.1} by calls, {:.1} by CPU (redis : limitador on the same Redis); p99 {:.1} ms",
        of_ours.per_second / of_theirs.per_second,
        of_theirs.cpu_us / of_ours.cpu_us,
        of_ours.p99_us / 1e3,
    ));
    Ok(())
}

fn keys_like(redis: &RedisServer, pattern: &str) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(redis.address())?;
    let script = "return #redis.call('keys', ARGV[1])";
    write!(stream, "EVAL \"{script}\" 0 {pattern}\r\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    answer.trim().trim_start_matches(':').parse().with_context(|| format!("redis said {answer:?}"))
}

/// Passed because it was counted, not because nobody could.
fn is_counted(answer: &[u8]) -> bool {
    RateLimitResponse::decode(answer).is_ok_and(|answer| {
        answer.overall_code() == Code::Ok
            && answer.statuses.first().is_some_and(|status| status.current_limit.is_some())
    })
}

/// The service as it is shipped, on the core under test.
fn start_ours(
    options: &Options,
    folder: &Path,
    redis: Option<&str>,
) -> anyhow::Result<(Running, SocketAddr)> {
    let limits = folder.join("limits");
    std::fs::create_dir(&limits)?;
    std::fs::write(limits.join("bench.yaml"), LIMITS)?;
    let [grpc] = process::free_addresses()?;
    let mut config = json!({
        "listen": grpc,
        "limits": {"folder": limits},
        "process": {"listen": null},
        "telemetry": {"log": "warn"},
    });
    if let Some(url) = redis {
        // Long, so that a call which another process held up is seen in the latencies and not answered by other means.
        config["counters"] = json!({"redis": {"url": url, "timeout": "1s"}});
    }
    let file = folder.join("ratelimit.yaml");
    std::fs::write(&file, config.to_string())?;
    let arguments = ["--config".to_owned(), file.display().to_string()];
    let running = Running::start(&options.binaries.join("tollgate-ratelimit"), TESTED_CORE, &arguments)?;
    process::wait_for(grpc)?;
    Ok((running, grpc))
}

fn calls() -> Calls {
    let requests = (0..KEYS).map(|user| {
        let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
        let entries = vec![entry("plan", "free".to_owned()), entry("user", format!("user-{user}"))];
        let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
        RateLimitRequest { domain: "bench".to_owned(), descriptors, hits_addend: 0 }
    });
    Calls::new(METHOD, requests).with_streams(STREAMS).without_traces()
}
