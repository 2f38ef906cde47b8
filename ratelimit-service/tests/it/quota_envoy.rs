//! Two real, unmodified Envoys that share one limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_runtime::Service;
use tollgate_testkit::envoy_quota::{self, QuotaConfig};
use tollgate_testkit::ports::free_address;
use tollgate_testkit::relay::Relay;

use crate::quota::{Client, LIMITS, usage};
use crate::support::{PATIENCE, Served};

const RATE: u64 = 40;
const BURST: u64 = 40;

/// How long loads go on before and while they are measured; longer in `make soak`.
const SETTLES: u64 = 12;
const MEASURED: u64 = if cfg!(feature = "soak") { 60 } else { 12 };

/// How long a share lives that is not renewed.
const ASSIGNED: Duration = Duration::from_secs(15);

/// Sends so many requests a second for as long as it is held, and counts those that passed.
struct Load {
    sent: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Option<Option<()>>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    fn on(service: &Service, address: SocketAddr, per_second: u32) -> Self {
        let (sent, passed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (sending, counting) = (Arc::clone(&sent), Arc::clone(&passed));
        let task = service.tasks().spawn("load", async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
            let mut stream = TcpStream::connect(address).await.unwrap();
            loop {
                ticks.tick().await;
                let request = b"GET / HTTP/1.1\r\nhost: a\r\nuser: u\r\n\r\n";
                // An Envoy that a test has killed takes nothing more.
                stream.write_all(request).await.ok()?;
                sending.fetch_add(1, Ordering::Relaxed);
                let mut answer = [0; 4096];
                let read = stream.read(&mut answer).await.ok().filter(|read| *read > 0)?;
                let head = String::from_utf8_lossy(&answer[..read]);
                counting.fetch_add(u64::from(head.starts_with("HTTP/1.1 200")), Ordering::Relaxed);
            }
        });
        Self { sent, passed, task }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
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

/// What two loads did in the time since they were last looked at.
struct Window<'a> {
    loads: [&'a Load; 2],
    at: Instant,
    sent: [u64; 2],
    passed: [u64; 2],
}

impl<'a> Window<'a> {
    fn of(loads: [&'a Load; 2]) -> Self {
        Self { loads, at: Instant::now(), sent: loads.map(Load::sent), passed: loads.map(Load::passed) }
    }

    /// What each sent and got through, a second.
    fn next(&mut self) -> [(f64, f64); 2] {
        let now = Self::of(self.loads);
        let seconds = (now.at - self.at).as_secs_f64();
        let rates = [0, 1].map(|which| {
            let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
            (rate(now.sent[which], self.sent[which]), rate(now.passed[which], self.passed[which]))
        });
        *self = now;
        rates
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unequal_demand_is_served_fairly_and_within_the_bound() {
    let served = served().await;
    let (one, other) = (envoy(served.address()), envoy(served.address()));
    let service = Service::for_test("load");
    let started = Instant::now();
    let (little, much) = (Load::on(&service, one.address(), 5), Load::on(&service, other.address(), 100));
    seconds(SETTLES).await;
    let mut window = Window::of([&little, &much]);
    let (mut is_fair, mut rates) = (false, [(0.0, 0.0); 2]);
    // A machine that stands still for a moment spoils one window, not all of them.
    while !is_fair && started.elapsed() < PATIENCE {
        seconds(MEASURED).await;
        rates = window.next();
        let [(sent, few), (_, many)] = rates;
        is_fair = few >= 0.9 * sent && (31.5..=38.5).contains(&many);
    }
    let bound = RATE as f64 * started.elapsed().as_secs_f64() + BURST as f64;
    let all = (little.passed() + much.passed()) as f64;
    println!("5 and 100 wanted of 40: sent and passed a second {rates:?}; {all} of {bound} admitted");
    assert!(is_fair, "sent and passed a second: {rates:?}");
    assert!(all <= bound * 1.1, "{all} of {bound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_envoys_share_is_the_others_when_it_has_expired() {
    let served = served().await;
    let (one, other) = (envoy(served.address()), envoy(served.address()));
    let service = Service::for_test("load");
    let started = Instant::now();
    let loads = [Load::on(&service, one.address(), 60), Load::on(&service, other.address(), 60)];
    seconds(SETTLES).await;
    let before: u64 = loads.iter().map(Load::passed).sum();
    drop(one);
    let killed = Instant::now();
    let mut window = Window::of([&loads[0], &loads[1]]);
    let mut rates = [(0.0, 0.0); 2];
    while rates[1].1 < 36.0 && killed.elapsed() < PATIENCE {
        seconds(2).await;
        rates = window.next();
    }
    let all: u64 = loads.iter().map(Load::passed).sum();
    let bound = RATE as f64 * started.elapsed().as_secs_f64() + BURST as f64;
    println!("{rates:?} {:?} after the kill; {before}, then {all} of {bound} admitted", killed.elapsed());
    assert!(rates[1].1 >= 36.0, "of 40 a second: {rates:?}");
    assert!(all as f64 <= bound * 1.1, "{all} of {bound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_given_back_is_an_envoys_long_before_it_would_have_expired() {
    let served = served().await;
    let envoy = envoy(served.address());
    let service = Service::for_test("load");
    let load = Load::on(&service, envoy.address(), 100);
    // Another proxy that wants as much, and drains.
    let wants_much = || vec![usage(&[("user", "u")], 40, 160, 2)];
    let mut proxy = Client::open(&served, None, vec![usage(&[("user", "u")], 1, 0, 0)]).await;
    let mut window = Window::of([&load, &load]);
    let (mut passed, waiting) = (f64::INFINITY, Instant::now());
    while passed > 24.0 && waiting.elapsed() < PATIENCE {
        seconds(2).await;
        proxy.report(wants_much()).await;
        passed = window.next()[0].1;
    }
    assert!(passed <= 24.0, "{passed} a second beside one that holds half");
    proxy.end();
    let drained = Instant::now();
    while passed < 36.0 && drained.elapsed() < ASSIGNED / 2 {
        seconds(1).await;
        passed = window.next()[0].1;
    }
    println!("{passed} a second {:?} after the drain", drained.elapsed());
    assert!(passed >= 36.0, "{passed} a second {:?} after the drain", drained.elapsed());
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
    let address = free_address();
    let served = Served::with_real_clock(LIMITS, |config| config.listen = address).await;
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
