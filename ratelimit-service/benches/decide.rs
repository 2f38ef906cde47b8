//! What one decision costs without the network: matching, and matching with counting in memory.
//!
//! Run with `cargo bench -p tollgate-ratelimit`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate_ratelimit::answer::Manner;
use tollgate_ratelimit::arrivals::Arrivals;
use tollgate_ratelimit::counters::{Bounds, Counters, MemoryStore};
use tollgate_ratelimit::limiter::Limiter;
use tollgate_ratelimit::limits::compile::compile;
use tollgate_ratelimit::limits::{LimitSet, Source};
use tollgate_ratelimit::metrics::Metrics;
use tollgate_ratelimit::wire::messages::{Descriptor, Entry, RateLimitRequest};
use tollgate_runtime::Service;
use tollgate_runtime::config::parse_yaml;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIMITS: &str = "
domain: shop
descriptors:
  - key: plan
    value: free
    descriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 1000, name: free-user}}]
  - {key: address, rate_limit: {unit: hour, requests_per_unit: 1000}}
";
const KEYS: usize = 100_000;

fn limits() -> LimitSet {
    let file = parse_yaml(Path::new("bench.yaml"), LIMITS).expect("the limits are well formed");
    let source = |_: &str| Source { file: Path::new("bench.yaml").into(), line: 1 };
    let mut set = LimitSet::default();
    let domain = compile(&file, &source).expect("the limits are good");
    set.insert(domain).expect("there is one domain");
    set
}

fn request(user: usize) -> RateLimitRequest {
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    let entries = vec![entry("plan", "free".to_owned()), entry("user", format!("user-{user}"))];
    let descriptors = vec![Descriptor { entries, ..Descriptor::default() }];
    RateLimitRequest { domain: "shop".to_owned(), descriptors, hits_addend: 0 }
}

fn decide(c: &mut Criterion) {
    let set = limits();
    let one = request(7);
    c.bench_function("match two entries", |b| {
        b.iter(|| set.domain("shop").map(|domain| domain.find(black_box(&one.descriptors[0]).pairs())));
    });

    let service = Service::for_test("bench");
    let metrics = Metrics::new(service.telemetry().meter());
    let counters = Arc::new(Counters::in_memory(MemoryStore::new(Bounds::keys(1_000_000)), metrics.clone()));
    let limiter = Limiter::new(
        limits(),
        counters,
        Manner::default(),
        Arrivals::new(64 << 20),
        service.clock().clone(),
        metrics,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
    let all: Vec<_> = (0..KEYS).map(request).collect();

    c.bench_function("decide, one key", |b| {
        b.iter(|| runtime.block_on(limiter.should_rate_limit(black_box(&one))));
    });
    let mut next = 0;
    c.bench_function("decide, 100,000 keys", |b| {
        b.iter(|| {
            next = (next + 7_919) % KEYS;
            runtime.block_on(limiter.should_rate_limit(black_box(&all[next])))
        });
    });
}

criterion_group!(benches, decide);
criterion_main!(benches);
