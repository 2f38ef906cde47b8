//! The hub by a clock of the tests' own: when exactly a share is somebody else's, and what a slow reader costs.

use std::path::Path;

use tollgate_runtime::clock::ManualClock;

use super::*;
use crate::answer::Manner;
use crate::arrivals::Arrivals;
use crate::counters::{Bounds, Counters, MemoryStore};
use crate::limits::compile::compile;
use crate::limits::{LimitSet, Source};
use crate::metrics::Metrics;

const START_NANOS: u64 = 1_700_000_000 * 1_000_000_000;
const TTL: Duration = Duration::from_secs(15);
const REPORT_EVERY: Duration = Duration::from_secs(5);
const LIMITS: &str = "
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: second, requests_per_unit: 40, burst: 40, enforcement: quota}}
";

fn limits() -> LimitSet {
    let file = tollgate_runtime::config::parse_yaml(Path::new("t.yaml"), LIMITS).unwrap();
    let source = |_: &str| Source { file: Path::new("t.yaml").into(), line: 1 };
    let mut set = LimitSet::default();
    set.insert(compile(&file, &source).unwrap()).unwrap();
    set
}

fn bucket(user: &str) -> BucketId {
    BucketId::new([("user".to_owned(), user.to_owned())])
}

/// A proxy whose stream is read at once, and what it was told last.
struct Proxy {
    stream: StreamId,
    wanted: u64,
    given: f64,
    told_at: Duration,
    is_here: bool,
}

/// A hub, its proxies and the time.
struct World {
    hub: Hub,
    clock: ManualClock,
    passed: Duration,
    proxies: Vec<Proxy>,
    _service: Service,
}

impl World {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(START_NANOS);
        let service = Service::for_test_at("hub", clock.clone());
        let metrics = Metrics::new(service.telemetry().meter());
        let counters = Counters::in_memory(MemoryStore::new(Bounds::keys(1_000)), metrics.clone());
        let limiter = Limiter::new(
            limits(),
            Arc::new(counters),
            Manner::default(),
            Arrivals::new(0),
            clock.clone(),
            metrics,
        );
        let settings = Settings { ttl: TTL, reclaim_at_once: false };
        let hub = Hub::new(limiter, settings, false, clock, QuotaMetrics::new(&service.telemetry().meter()));
        Self { hub, clock: hand, passed: Duration::ZERO, proxies: Vec::new(), _service: service }
    }

    /// Another proxy, which wants so many a second of the one limit there is.
    fn join(&mut self, wanted: u64) {
        let (stream, _) = self.hub.open(None).unwrap();
        self.proxies.push(Proxy { stream, wanted, given: 0.0, told_at: self.passed, is_here: true });
        self.report(self.proxies.len() - 1, 1, 0);
        self.read();
    }

    fn report(&self, who: usize, allowed: u64, denied: u64) {
        let usage = Usage { allowed, denied, elapsed_seconds: REPORT_EVERY.as_secs(), veteran: false };
        self.hub.report(self.proxies[who].stream, "shop", bucket("u"), usage);
    }

    fn read(&mut self) {
        let mut is_new = true;
        while std::mem::take(&mut is_new) {
            for proxy in self.proxies.iter_mut().filter(|proxy| proxy.is_here) {
                for told in self.hub.take(proxy.stream) {
                    (proxy.told_at, is_new) = (self.passed, true);
                    proxy.given = match told.what {
                        What::Tokens { per_fill, fill_seconds, .. } => {
                            f64::from(per_fill) / f64::from(fill_seconds)
                        }
                        What::AllowAll => f64::INFINITY,
                        What::DenyAll | What::Abandon => 0.0,
                    };
                }
            }
        }
    }

    /// Lets half a second pass, as the hub's own task looks.
    fn step(&mut self) {
        self.clock.advance(LOOK_EVERY);
        self.passed += LOOK_EVERY;
        self.hub.look();
        self.read();
        if self.passed.as_millis().is_multiple_of(REPORT_EVERY.as_millis()) {
            for who in 0..self.proxies.len() {
                let proxy = &self.proxies[who];
                if proxy.is_here {
                    let asked = proxy.wanted * REPORT_EVERY.as_secs();
                    let allowed = asked.min((proxy.given * REPORT_EVERY.as_secs_f64()) as u64);
                    self.report(who, allowed, asked - allowed);
                }
            }
            self.read();
        }
    }

    fn run(&mut self, seconds: u64) {
        let until = self.passed + Duration::from_secs(seconds);
        while self.passed < until {
            self.step();
        }
    }

    /// Until this proxy is given so much.
    fn until_given(&mut self, who: usize, per_second: f64) -> Duration {
        let since = self.passed;
        while self.proxies[who].given < per_second {
            self.step();
            assert!(
                self.passed - since < Duration::from_secs(600),
                "it stays at {}",
                self.proxies[who].given
            );
        }
        self.passed - since
    }

    fn close(&mut self, who: usize, given_back: bool) {
        self.proxies[who].is_here = false;
        self.hub.close(self.proxies[who].stream, given_back);
        self.read();
    }
}

/// Two that want more than there is.
fn two() -> World {
    let mut world = World::new();
    world.join(100);
    world.run(5);
    world.join(100);
    world.run(60);
    let given: Vec<f64> = world.proxies.iter().map(|proxy| proxy.given).collect();
    assert!(given.iter().all(|given| (17.0..=23.0).contains(given)), "{given:?}");
    world
}

#[test]
fn a_share_given_back_is_usable_at_once() {
    let mut world = two();
    world.close(1, true);
    assert_eq!(world.until_given(0, 37.0), Duration::ZERO);
}

#[test]
fn a_lost_share_is_usable_when_its_assignment_has_expired_and_not_before() {
    let mut world = two();
    world.run(3);
    let assigned = world.proxies[1].told_at;
    world.close(1, false);
    while world.passed + LOOK_EVERY < assigned + TTL {
        world.step();
        assert!(world.proxies[0].given <= 23.0, "{} before it expired", world.proxies[0].given);
    }
    let waited = world.until_given(0, 37.0);
    assert!(waited <= Duration::from_secs(1), "{waited:?}");
}

#[test]
fn an_abandoned_share_is_usable_at_once() {
    let mut world = World::new();
    // What nobody wants is spread: the one that wants nothing has a share as well.
    world.join(10);
    world.run(5);
    world.join(10);
    world.run(60);
    world.proxies[1].wanted = 0;
    world.run(60);
    let (busy, idle) = (world.proxies[0].given, world.proxies[1].given);
    assert!(busy < 30.0 && idle > 10.0, "{busy} {idle}");
    while world.proxies[1].given > 0.0 {
        world.step();
        assert!(world.passed < Duration::from_secs(400), "an idle bucket is abandoned");
    }
    let abandoned = world.passed;
    // Its proxy has erased the bucket and reports it no more.
    world.proxies[1].is_here = false;
    world.until_given(0, 37.0);
    assert!(world.passed - abandoned <= Duration::from_secs(1), "{:?}", world.passed - abandoned);
}

#[test]
fn a_clock_that_steps_gives_nothing_twice_and_nobody_nothing_for_good() {
    for back in [true, false] {
        let mut world = two();
        let now = START_NANOS + u64::try_from(world.passed.as_nanos()).unwrap();
        const STEP_NANOS: u64 = 10_000_000_000;
        world.clock.set(if back { now - STEP_NANOS } else { now + STEP_NANOS });
        for _ in 0..120 {
            world.step();
            let all: f64 = world.proxies.iter().map(|proxy| proxy.given).sum();
            assert!(all <= 40.0, "{all}");
        }
        let all: f64 = world.proxies.iter().map(|proxy| proxy.given).sum();
        assert!(all >= 36.0, "{all} a minute after the step");
        world.close(1, false);
        let waited = world.until_given(0, 37.0);
        assert!(waited <= TTL + Duration::from_secs(1), "{waited:?}");
    }
}

#[test]
fn a_reader_that_takes_nothing_has_one_assignment_a_bucket_waiting() {
    const BUCKETS: usize = 2_000;
    let world = World::new();
    let (slow, _) = world.hub.open(None).unwrap();
    for _ in 0..50 {
        for number in 0..BUCKETS {
            let usage = Usage { allowed: 7, ..Usage::default() };
            world.hub.report(slow, "shop", bucket(&format!("u-{number}")), usage);
        }
        world.clock.advance(REPORT_EVERY);
        world.hub.look();
    }
    let mut waiting = 0;
    while world.hub.has_news(slow) {
        let message = world.hub.take(slow);
        assert!(message.len() <= MAX_ACTIONS);
        waiting += message.len();
    }
    assert_eq!(waiting, BUCKETS);
}
