//! Two real, unmodified Envoys that share one limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_runtime::Service;
use tollgate_testkit::envoy_quota::{self, QuotaConfig};
use tollgate_testkit::relay::Relay;

use crate::quota::LIMITS;
use crate::support::Served;

const RATE: u64 = 40;
const BURST: u64 = 40;

/// How long loads go on before and while they are measured; longer in `make soak`.
const SETTLES: u64 = 12;
const MEASURED: u64 = if cfg!(feature = "soak") { 60 } else { 12 };

/// Sends so many requests a second for as long as it is held, and counts those that passed.
struct Load {
    passed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Option<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    fn on(service: &Service, address: SocketAddr, per_second: u32) -> Self {
        let passed = Arc::<AtomicU64>::default();
        let counting = Arc::clone(&passed);
        let task = service.tasks().spawn("load", async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
            let mut stream = TcpStream::connect(address).await.unwrap();
            loop {
                ticks.tick().await;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nuser: u\r\n\r\n").await.unwrap();
                let mut answer = [0; 4096];
                let read = stream.read(&mut answer).await.unwrap();
                let head = String::from_utf8_lossy(&answer[..read]);
                counting.fetch_add(u64::from(head.starts_with("HTTP/1.1 200")), Ordering::Relaxed);
            }
        });
        Self { passed, task }
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn envoy(service: SocketAddr) -> tollgate_testkit::envoy::Envoy {
    let without = "DENY_ALL";
    envoy_quota::start(&QuotaConfig { service, domain: "shop", bucket_header: "user", without })
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Real time passes here, since Envoy's clock is not ours.
async fn served() -> Served {
    Served::with_real_clock(LIMITS, |_| ()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unequal_demand_is_served_fairly_and_within_the_bound() {
    let served = served().await;
    let (one, other) = (envoy(served.address()), envoy(served.address()));
    let service = Service::for_test("load");
    let started = Instant::now();
    let (little, much) = (Load::on(&service, one.address(), 5), Load::on(&service, other.address(), 100));
    seconds(SETTLES).await;
    let (before, at) = ((little.passed(), much.passed()), Instant::now());
    seconds(MEASURED).await;
    let measured = at.elapsed().as_secs_f64();
    let bound = (RATE as f64 * started.elapsed().as_secs_f64() + BURST as f64) * 1.1;
    let all = little.passed() + much.passed();
    let (little, much) =
        ((little.passed() - before.0) as f64 / measured, (much.passed() - before.1) as f64 / measured);
    assert!(all as f64 <= bound, "{all} of {bound}");
    assert!((4.5..=5.5).contains(&little), "{little} a second");
    assert!((31.5..=38.5).contains(&much), "{much} a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_stays_within_the_stated_bound() {
    let served = served().await;
    let relay = Relay::to(served.address()).await;
    let (one, other) = (envoy(relay.address()), envoy(served.address()));
    let service = Service::for_test("load");
    let started = Instant::now();
    let loads = [Load::on(&service, one.address(), 100), Load::on(&service, other.address(), 100)];
    seconds(8).await;
    // The Envoy lives on with what it has, and comes back by another stream.
    relay.cut();
    seconds(2).await;
    relay.mend();
    seconds(14).await;
    let all: u64 = loads.iter().map(Load::passed).sum();
    let bound = RATE as f64 * started.elapsed().as_secs_f64() + BURST as f64;
    assert!(all as f64 <= bound * 1.1, "{all} of {bound}");
    assert!(
        all as f64 >= bound * 0.6,
        "{all} of {bound}: what is reserved for the lost one is not lost for good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_service_learns_what_was_handed_out_and_stays_within_the_bound() {
    let served = served().await;
    let address = served.address();
    let (one, other) = (envoy(address), envoy(address));
    let service = Service::for_test("load");
    let started = Instant::now();
    let loads = [Load::on(&service, one.address(), 60), Load::on(&service, other.address(), 60)];
    seconds(8).await;
    served.service.stop().await;
    drop(served);
    let _again = Served::with_real_clock(LIMITS, |config| config.listen = address).await;
    // For one lifetime of an assignment the new run learns; both Envoys live on with what they have.
    seconds(if cfg!(feature = "soak") { 60 } else { 18 }).await;
    let all: u64 = loads.iter().map(Load::passed).sum();
    let bound = RATE as f64 * started.elapsed().as_secs_f64() + BURST as f64;
    assert!(all as f64 <= bound * 1.1, "{all} of {bound}");
    assert!(all as f64 >= bound * 0.6, "{all} of {bound}");
}
