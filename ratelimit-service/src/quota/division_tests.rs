//! The division against simulated proxies that do what Envoy was seen doing.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;
const STEP: u64 = 10_000;
const REPORT_EVERY: u64 = 5 * SECOND;
const TTL: u64 = 15 * SECOND;

fn policy() -> Policy {
    Policy { ttl_us: TTL, reclaim_at_once: false, learning_until_us: 0 }
}

fn terms(units: u32, fill_seconds: u32, burst: u32) -> Terms {
    Terms { units, fill_seconds, burst, enforced: true }
}

/// A bucket that starts full, keeps its ratio when it is replaced, and refuses everything without an assignment.
struct Proxy {
    id: HolderId,
    demand: f64,
    due: f64,
    share: Option<Share>,
    level: f64,
    until: u64,
    usage: Usage,
    report_at: u64,
    connected: bool,
}

impl Proxy {
    fn new(id: HolderId, demand: f64, now: u64) -> Self {
        let usage = Usage::default();
        let (due, level) = (0.0, 0.0);
        Self { id, demand, due, share: None, level, until: 0, usage, report_at: now, connected: true }
    }

    fn take(&mut self, share: Share, now: u64) {
        if self.share != Some(share) {
            let ratio = match self.share {
                Some(before) if before.burst > 0 => self.level / f64::from(before.burst),
                _ => 1.0,
            };
            self.level = f64::from(share.burst) * ratio;
            self.share = Some(share);
        }
        self.until = now + TTL;
    }

    fn run(&mut self, terms: &Terms, now: u64) {
        if now >= self.until {
            self.share = None;
        }
        if let Some(share) = self.share {
            let back = f64::from(share.units) / f64::from(terms.fill_seconds) * STEP as f64 / 1e6;
            self.level = (self.level + back).min(f64::from(share.burst));
        }
        self.due += self.demand * STEP as f64 / 1e6;
        while self.due >= 1.0 {
            self.due -= 1.0;
            if self.share.is_some_and(|share| share.units > 0) && self.level >= 1.0 {
                self.level -= 1.0;
                self.usage.allowed += 1;
            } else {
                self.usage.denied += 1;
            }
        }
    }
}

struct World {
    division: Division,
    policy: Policy,
    proxies: Vec<Proxy>,
    now: u64,
    admitted: Vec<u64>,
}

impl World {
    fn new(terms: Terms) -> Self {
        let start = 1_000 * SECOND;
        let division = Division::new(terms, start);
        Self { division, policy: policy(), proxies: Vec::new(), now: start, admitted: Vec::new() }
    }

    fn join(&mut self, demand: f64) {
        let id = self.admitted.len() as HolderId;
        self.admitted.push(0);
        self.proxies.push(Proxy::new(id, demand, self.now));
    }

    fn tell(&mut self, ids: Vec<HolderId>) {
        for id in ids {
            let (Some(share), Some(proxy)) = (
                self.division.told(id),
                self.proxies.iter_mut().find(|proxy| proxy.id == id && proxy.connected),
            ) else {
                continue;
            };
            proxy.take(share, self.now);
            self.division.delivered(id, &self.policy, self.now);
        }
    }

    fn divide(&mut self) {
        let told = self.division.divide(&self.policy, self.now);
        self.tell(told);
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + seconds * SECOND;
        while self.now < end {
            self.now += STEP;
            let terms = *self.division.terms();
            let mut reporters = Vec::new();
            for proxy in &mut self.proxies {
                proxy.run(&terms, self.now);
                if proxy.connected && self.now >= proxy.report_at {
                    proxy.report_at = self.now + REPORT_EVERY;
                    let usage = std::mem::take(&mut proxy.usage);
                    self.admitted[proxy.id as usize] += usage.allowed;
                    self.division.report(proxy.id, usage, &self.policy, self.now);
                    reporters.push(proxy.id);
                }
            }
            if !reporters.is_empty() {
                let told = self.division.divide(&self.policy, self.now);
                self.tell(told);
                self.tell(reporters);
            }
            if self.now.is_multiple_of(SECOND / 2) && self.division.is_restless() {
                self.divide();
            }
            assert!(self.division.units_held() <= self.division.terms().units, "more is held than there is");
        }
    }

    fn all_admitted(&self) -> u64 {
        self.admitted.iter().sum::<u64>() + self.proxies.iter().map(|proxy| proxy.usage.allowed).sum::<u64>()
    }

    fn admitted_by(&self, id: usize) -> u64 {
        self.admitted[id]
            + self.proxies.iter().filter(|proxy| proxy.id == id as u64).map(|p| p.usage.allowed).sum::<u64>()
    }
}

#[test]
fn two_that_want_more_than_there_is_share_evenly() {
    let mut world = World::new(terms(80, 2, 40));
    world.join(100.0);
    world.run(10);
    world.join(100.0);
    world.run(20);
    let before = (world.admitted_by(0), world.admitted_by(1));
    world.run(30);
    let (one, other) = (world.admitted_by(0) - before.0, world.admitted_by(1) - before.1);
    assert!(one.abs_diff(other) < 60, "{one} {other}");
    assert!(one + other >= 40 * 30 * 93 / 100, "{} of {}", one + other, 40 * 30);
    assert!(world.all_admitted() <= 40 * 60 + 40);
}

#[test]
fn who_wants_little_gets_it_and_the_rest_goes_to_the_other() {
    let mut world = World::new(terms(80, 2, 40));
    world.join(5.0);
    world.join(100.0);
    world.run(20);
    let before = (world.admitted_by(0), world.admitted_by(1));
    world.run(60);
    let (little, much) = (world.admitted_by(0) - before.0, world.admitted_by(1) - before.1);
    assert!((270..=300).contains(&little), "{little} of 300");
    assert!((60 * 63 / 2..=60 * 77 / 2).contains(&much), "{much} of {}", 35 * 60);
}

#[test]
fn reports_that_follow_each_other_closely_are_measured_together() {
    let (start, policy) = (1_000 * SECOND, policy());
    let mut division = Division::new(terms(80, 2, 40), start);
    division.report(1, Usage::default(), &policy, start);
    // Ten a second, told every half second, now a little early and now a little late.
    for half in 1..=20 {
        let jitter = if half % 2 == 0 { 20_000 } else { 0 };
        let usage = Usage { allowed: 5, ..Usage::default() };
        division.report(1, usage, &policy, start + half * SECOND / 2 - jitter);
        let demand = division.demand(1).unwrap();
        assert!((9.0..=11.0).contains(&demand), "{demand} a second after {half} reports");
    }
}

#[test]
fn a_share_given_back_is_used_at_once_and_a_lost_one_when_it_has_expired() {
    let mut world = World::new(terms(80, 2, 40));
    world.join(100.0);
    world.join(100.0);
    world.run(20);
    let left = world.proxies.remove(1);
    world.division.leave(left.id, world.now);
    world.divide();
    assert!(world.division.told(0).unwrap().units >= 76, "{:?}", world.division.told(0));

    world.join(100.0);
    world.run(20);
    // The proxy lives on; only its stream is cut. It goes on with what it has, so that stays reserved.
    let lost = world.proxies[1].id;
    world.proxies[1].connected = false;
    world.division.lose(lost, &world.policy, world.now);
    world.divide();
    let (before, at) = (world.all_admitted(), world.now);
    world.run(10);
    assert!(world.division.told(0).unwrap().units < 50);
    world.run(6);
    assert!(world.division.told(0).unwrap().units >= 76, "{:?}", world.division.told(0));
    let seconds = (world.now - at) / SECOND;
    assert!(world.all_admitted() - before <= seconds * 40 + 40);
}

#[test]
fn a_limit_too_small_to_divide_is_never_passed_and_goes_round() {
    let mut world = World::new(terms(2, 10, 2));
    for _ in 0..5 {
        world.join(3.0);
    }
    world.run(600);
    let all = world.all_admitted();
    assert!(all <= 600 / 5 + 2, "{all}");
    assert!(all >= 600 / 5 / 3, "{all}");
    let served = (0..5).filter(|id| world.admitted_by(*id) > 0).count();
    assert_eq!(served, 5, "{:?}", world.admitted);
}

#[test]
fn proxies_of_an_earlier_run_get_no_more_than_they_used_while_learning() {
    let mut division = Division::new(terms(80, 2, 40), 0);
    let learning = Policy { learning_until_us: TTL, ..policy() };
    let usage = Usage { allowed: 100, denied: 0, elapsed_seconds: 5, veteran: true };
    division.report(1, usage, &learning, 0);
    assert!(
        division.divide(&learning, 0).is_empty(),
        "it keeps what it has until there is something to give"
    );
    division.divide(&learning, SECOND);
    assert_eq!(division.told(1).unwrap().units, 40, "20 a second, as it was seen using");
    division.report(1, Usage { veteran: false, ..usage }, &learning, 16 * SECOND);
    division.divide(&learning, 16 * SECOND);
    assert_eq!(division.told(1).unwrap().units, 80);
}

#[test]
fn nothing_is_granted_of_a_limit_of_nothing() {
    let mut world = World::new(terms(0, 1, 0));
    world.join(10.0);
    world.run(10);
    assert_eq!((world.all_admitted(), world.division.told(0)), (0, Some(Share::default())));
}

#[derive(Debug, Clone)]
enum Event {
    Join(u32),
    Leave(usize),
    Cut(usize),
    Demand(usize, u32),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1u32..200).prop_map(Event::Join),
        1 => (0usize..8).prop_map(Event::Leave),
        1 => (0usize..8).prop_map(Event::Cut),
        2 => (0usize..8, 0u32..200).prop_map(|(who, demand)| Event::Demand(who, demand)),
        4 => (1u64..12).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever happens, all proxies together never pass the bound.
    #[test]
    fn never_more_than_rate_and_burst(
        units in 1u32..200, fill_seconds in 1u32..20, burst in 1u32..100,
        events in proptest::collection::vec(event(), 1..25),
    ) {
        let mut world = World::new(terms(units, fill_seconds, burst));
        let start = world.now;
        for event in events {
            match event {
                Event::Join(demand) if world.proxies.len() < 8 => world.join(f64::from(demand)),
                Event::Leave(who) if who < world.proxies.len() => {
                    let gone = world.proxies.remove(who);
                    world.admitted[gone.id as usize] += gone.usage.allowed;
                    world.division.leave(gone.id, world.now);
                    world.divide();
                }
                Event::Cut(who) if who < world.proxies.len() => {
                    world.proxies[who].connected = false;
                    let id = world.proxies[who].id;
                    world.division.lose(id, &world.policy, world.now);
                }
                Event::Demand(who, demand) if who < world.proxies.len() => {
                    world.proxies[who].demand = f64::from(demand);
                }
                Event::Wait(seconds) => world.run(seconds),
                _ => {}
            }
            let seconds = (world.now - start) as f64 / 1e6;
            let bound = seconds * f64::from(units) / f64::from(fill_seconds) + f64::from(burst);
            prop_assert!(world.all_admitted() as f64 <= bound + 1.0, "{} > {bound}", world.all_admitted());
        }
    }
}
