//! Full-path ingest (wire, decode, redact, columns, log, acknowledged and sealed) and filtered scans.
//!
//! `cargo bench -p tollgate-dashboard --bench store`. Results with machine and command: `benches/RESULTS.md`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use tollgate_dashboard::bench_support::Bench;
use tollgate_proto::attributes as a;
use tollgate_proto::opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use tollgate_runtime::clock::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As the exporter batches.
const BATCH: u64 = 512;

fn text(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }),
        ..Default::default()
    }
}

fn int(key: &str, value: u64) -> KeyValue {
    let value = any_value::Value::IntValue(value.cast_signed());
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// A cheap source of numbers that do not repeat.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

/// An access record with 24 attributes, as the proxy writes it.
fn record(n: u64, now: u64) -> LogRecord {
    let random = mixed(n);
    let denied = random.is_multiple_of(20);
    let attributes = vec![
        text(a::TOLLGATE_REPORTER, "gateway".to_owned()),
        text(a::TOLLGATE_DIRECTION, "ingress".to_owned()),
        text(
            a::TOLLGATE_REQUEST_ID,
            uuid::Uuid::from_u128(u128::from(random) << 64 | u128::from(mixed(random))).to_string(),
        ),
        text(a::TOLLGATE_REASON, if denied { "scope_missing" } else { "ok" }.to_owned()),
        text(a::TOLLGATE_SOURCE_WORKLOAD, format!("web-{}", random % 12)),
        text(a::TOLLGATE_DESTINATION_WORKLOAD, format!("service-{}", random % 40)),
        text(a::TOLLGATE_DESTINATION_VERSION, "1.0".to_owned()),
        text(a::TOLLGATE_CONNECTION_SECURITY_POLICY, "mutual_tls".to_owned()),
        text(a::HTTP_REQUEST_METHOD, "GET".to_owned()),
        text(a::URL_PATH, format!("/policies/POL-{}", random % 50_000)),
        text(a::HTTP_ROUTE, format!("/policies/{{id}}/{}", random % 25)),
        text(a::SERVER_ADDRESS, "api.example".to_owned()),
        text(a::USER_AGENT_ORIGINAL, format!("client/{}", random % 30)),
        text(a::CLIENT_ADDRESS, format!("192.0.2.{}", random % 250)),
        text(a::ENDUSER_ID, format!("user-{}", random % 5_000)),
        text(a::TOLLGATE_TOKEN_ISSUER, "demo".to_owned()),
        text(a::TOLLGATE_TOKEN_STATE, "valid".to_owned()),
        text(a::TOLLGATE_AUTHZ_DECISION, if denied { "deny" } else { "allow" }.to_owned()),
        text(a::SECURITY_RULE_NAME, format!("rule-{}", random % 60)),
        int(a::TOLLGATE_AUTHZ_EPOCH, 412),
        int(a::HTTP_RESPONSE_STATUS_CODE, if denied { 403 } else { 200 }),
        int(a::TOLLGATE_DURATION_US, 800 + random % 50_000),
        int(a::TOLLGATE_AUTHZ_US, 200 + random % 900),
        int(a::TOLLGATE_UPSTREAM_US, 500 + random % 40_000),
    ];
    LogRecord {
        time_unix_nano: now + n * 700_000,
        event_name: "tollgate.access".to_owned(),
        attributes,
        trace_id: [mixed(n + 1).to_le_bytes(), mixed(n + 2).to_le_bytes()].concat(),
        span_id: mixed(n + 3).to_le_bytes().to_vec(),
        ..Default::default()
    }
}

fn wire(first: u64) -> Vec<u8> {
    let now = Clock::system().unix_nanos() - 600_000_000_000;
    let log_records = (first..first + BATCH).map(|n| record(n, now)).collect();
    let resource = Some(Resource {
        attributes: vec![text(a::SERVICE_NAME, "ingress".to_owned())],
        ..Default::default()
    });
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }],
    }
    .encode_to_vec()
}

fn benchmarks(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();

    let mut group = criterion.benchmark_group("ingest");
    group.sample_size(20);
    // Sixteen batches make one block, so each iteration includes a sealing.
    group.throughput(Throughput::Elements(16 * BATCH));
    let dir = tempfile::tempdir().unwrap();
    let bench = runtime.block_on(Bench::open(dir.path())).unwrap();
    let mut next = 0;
    group.bench_function("wire to sealed, 4 exporters", |b| {
        b.iter_batched(
            || {
                next += 16 * BATCH;
                (0..16).map(|k| wire(next + k * BATCH)).collect::<Vec<_>>()
            },
            |requests| {
                runtime.block_on(async {
                    let exporters = requests.chunks(4).map(async |mine: &[Vec<u8>]| {
                        for request in mine {
                            bench.ingest(request).await.unwrap();
                        }
                    });
                    futures_util::future::join_all(exporters).await;
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    runtime.block_on(bench.close());

    let dir = tempfile::tempdir().unwrap();
    let bench = runtime.block_on(Bench::open(dir.path())).unwrap();
    let records = 400 * BATCH;
    let started = std::time::Instant::now();
    let wires: Vec<Vec<u8>> = (0..400).map(|k| wire(k * BATCH)).collect();
    let made = started.elapsed();
    let started = std::time::Instant::now();
    runtime.block_on(async {
        let exporters = wires.chunks(100).map(async |mine: &[Vec<u8>]| {
            for request in mine {
                bench.ingest(request).await.unwrap();
            }
        });
        futures_util::future::join_all(exporters).await;
    });
    let took = started.elapsed();
    runtime.block_on(bench.close());
    let size: u64 =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    let on_wire: usize = wires.iter().map(Vec::len).sum();
    #[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "what a benchmark is for")]
    {
        println!(
            "{records} records in {took:?} ({:.0}/s, made in {made:?}); {:.0} bytes a record on the wire, {:.1} on disk",
            records as f64 / took.as_secs_f64(),
            on_wire as f64 / records as f64,
            size as f64 / records as f64
        );
    }
    let bench = runtime.block_on(Bench::open(dir.path())).unwrap();
    let mut group = criterion.benchmark_group("scan of 204,800");
    group.sample_size(20);
    group.throughput(Throughput::Elements(records));
    for q in ["status:403 dest:service-7", "dur:>40ms -method:POST", "\"POL-4242\""] {
        group.bench_function(q, |b| b.iter(|| runtime.block_on(bench.count(black_box(q))).unwrap()));
    }
    let columns: Vec<String> = [
        a::TOLLGATE_REASON,
        a::HTTP_RESPONSE_STATUS_CODE,
        "@dest",
        a::HTTP_ROUTE,
        a::HTTP_REQUEST_METHOD,
        a::ENDUSER_ID,
    ]
    .map(str::to_owned)
    .into();
    group.bench_function("six facets", |b| b.iter(|| runtime.block_on(bench.facets(&columns)).unwrap()));
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
