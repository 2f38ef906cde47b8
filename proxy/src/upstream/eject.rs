//! Which endpoints are left out for a while because of their answers, and why those that are not are not. Pure:
//! what happened and the time in, events out.
//!
//! ```text
//! in use --bad answers, and there is room--> left out, base × times --time over--> in use
//!    \----bad answers, and there is none---> spared: it is said why
//! ```
//!
//! Counting answers is [`super::tally`]'s; when too few are left to use is [`super::selection`]'s.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{OutlierDetection, Percent};

/// What an endpoint is left out for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cause {
    Consecutive5xx(u32),
    ConsecutiveGateway(u32),
    ConsecutiveLocalOrigin(u32),
    /// Its share of successes, and the least it should have been.
    SuccessRate(f64, f64),
    /// Its share of failures, and what is too much.
    FailurePercentage(f64, f64),
}

impl Cause {
    /// The word in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx(_) => "consecutive_5xx",
            Self::ConsecutiveGateway(_) => "consecutive_gateway",
            Self::ConsecutiveLocalOrigin(_) => "consecutive_local_origin",
            Self::SuccessRate(..) => "success_rate",
            Self::FailurePercentage(..) => "failure_percentage",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive5xx(count) => write!(f, "{count} answers 5xx in a row"),
            Self::ConsecutiveGateway(count) => write!(f, "{count} answers 502, 503 or 504 in a row"),
            Self::ConsecutiveLocalOrigin(count) => write!(f, "{count} requests in a row without an answer"),
            Self::SuccessRate(had, least) => {
                write!(
                    f,
                    "{:.1} % success where the others have it above {:.1} %",
                    had * 100.0,
                    least * 100.0
                )
            }
            Self::FailurePercentage(had, most) => {
                write!(f, "{:.1} % failures, {:.1} % is too much", had * 100.0, most * 100.0)
            }
        }
    }
}

/// Why a bad endpoint is used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spared {
    /// So many are left out already, and no more may be.
    MaxShare { ejected: usize, most: usize },
    /// So many of all would be left to use.
    MinHealth { left: usize, of: usize, least: Percent },
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxShare { most: 0, .. } => f.write_str("it is the only one"),
            Self::MaxShare { ejected, most } => {
                write!(f, "{ejected} are left out already and at most {most} may be (max_ejection_percent)")
            }
            Self::MinHealth { left, of, least } => {
                write!(
                    f,
                    "{left} of {of} would be left and {least} must be (min_health_percent); the breaker holds"
                )
            }
        }
    }
}

/// What was decided about an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Ejected { host: SocketAddr, cause: Cause, lasts: Duration, times: u32 },
    Spared { host: SocketAddr, cause: Cause, why: Spared },
    Returned { host: SocketAddr },
}

/// An endpoint's answers in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) host: SocketAddr,
    pub(crate) total: u64,
    pub(crate) failed: u64,
}

/// An endpoint's standing.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// Since some fixed moment.
    until: Option<Duration>,
    times: u32,
    /// It does not answer health checks.
    failing: bool,
}

/// Everybody's standing in one cluster.
#[derive(Debug)]
pub(crate) struct Ejector {
    policy: OutlierDetection,
    hosts: Vec<(SocketAddr, Standing)>,
}

impl Ejector {
    pub(crate) fn new(policy: &OutlierDetection) -> Self {
        Self { policy: policy.clone(), hosts: Vec::new() }
    }

    /// These are the endpoints from now on; who stays keeps its standing.
    pub(crate) fn set_hosts(&mut self, hosts: impl Iterator<Item = SocketAddr>) {
        let mut before = std::mem::take(&mut self.hosts);
        self.hosts = hosts
            .map(|host| {
                let kept = before.iter_mut().find(|(other, _)| *other == host);
                (host, kept.map(|(_, standing)| std::mem::take(standing)).unwrap_or_default())
            })
            .collect();
    }

    /// What active health checks found out.
    pub(crate) fn set_failing(&mut self, host: SocketAddr, failing: bool) {
        if let Some((_, standing)) = self.hosts.iter_mut().find(|(other, _)| *other == host) {
            standing.failing = failing;
        }
    }

    /// How long an endpoint is still left out, and how often it has been.
    pub(crate) fn standing(&self, host: SocketAddr) -> (Option<Duration>, u32) {
        let found = self.hosts.iter().find(|(other, _)| *other == host);
        found.map_or((None, 0), |(_, standing)| (standing.until, standing.times))
    }

    /// Whether an endpoint may be used.
    pub(crate) fn is_in_use(&self, host: SocketAddr) -> bool {
        self.hosts.iter().any(|(other, standing)| *other == host && standing.is_in_use())
    }

    /// A row of bad answers. `draw`, from 0 to 1, is chance. Nothing, if it is left out already.
    pub(crate) fn bad(&mut self, host: SocketAddr, cause: Cause, now: Duration, draw: f64) -> Option<Event> {
        let place = self.hosts.iter().position(|(other, _)| *other == host)?;
        if !self.policy.enabled || self.hosts[place].1.until.is_some() {
            return None;
        }
        if let Err(why) = self.room(place) {
            return Some(Event::Spared { host, cause, why });
        }
        let standing = &mut self.hosts[place].1;
        standing.times = standing.times.saturating_add(1);
        let times = standing.times;
        let policy = &self.policy;
        let lasts = policy.base_ejection_time.saturating_mul(times).min(policy.max_ejection_time);
        let lasts = lasts + policy.jitter.mul_f64(draw.clamp(0.0, 1.0));
        standing.until = Some(now + lasts);
        Some(Event::Ejected { host, cause, lasts, times })
    }

    /// Whether one more may be left out.
    fn room(&self, place: usize) -> Result<(), Spared> {
        let of = self.hosts.len();
        let ejected = self.hosts.iter().filter(|(_, standing)| standing.until.is_some()).count();
        let most = self.policy.max_ejection_percent.of(of).max(usize::from(of >= 2));
        if ejected >= most {
            return Err(Spared::MaxShare { ejected, most });
        }
        let others = self.hosts.iter().enumerate().filter(|(index, _)| *index != place);
        let left = others.filter(|(_, (_, standing))| standing.is_in_use()).count();
        let least = self.policy.min_health_percent;
        if (left as f64) < least.fraction() * of as f64 {
            return Err(Spared::MinHealth { left, of, least });
        }
        Ok(())
    }

    /// An interval is over: who has been left out long enough comes back, and success is compared.
    pub(crate) fn sweep(
        &mut self,
        now: Duration,
        answers: &[Answers],
        mut draw: impl FnMut() -> f64,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (host, standing) in &mut self.hosts {
            match standing.until {
                Some(until) if until <= now => {
                    standing.until = None;
                    events.push(Event::Returned { host: *host });
                }
                Some(_) => {}
                // Good behaviour makes up for earlier times.
                None => standing.times = standing.times.saturating_sub(1),
            }
        }
        let just_back = events.len();
        for (host, cause) in outliers(&self.policy, answers) {
            let returned = |event: &Event| matches!(event, Event::Returned { host: back } if *back == host);
            if !events[..just_back].iter().any(returned) {
                events.extend(self.bad(host, cause, now, draw()));
            }
        }
        events
    }
}

impl Standing {
    fn is_in_use(&self) -> bool {
        self.until.is_none() && !self.failing
    }
}

/// Whose answers of one interval are bad, each once.
fn outliers(policy: &OutlierDetection, answers: &[Answers]) -> Vec<(SocketAddr, Cause)> {
    let success = |answers: &Answers| 1.0 - answers.failed as f64 / answers.total.max(1) as f64;
    let mut found: Vec<(SocketAddr, Cause)> = Vec::new();
    let rates = &policy.success_rate;
    let heard: Vec<&Answers> =
        answers.iter().filter(|one| one.total >= rates.request_volume.max(1)).collect();
    if rates.min_hosts > 0 && heard.len() >= rates.min_hosts {
        let count = heard.len() as f64;
        let mean = heard.iter().map(|one| success(one)).sum::<f64>() / count;
        let variance = heard.iter().map(|one| (success(one) - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(rates.stdev_factor) / 1000.0;
        let below = heard.iter().filter(|one| success(one) < least);
        found.extend(below.map(|one| (one.host, Cause::SuccessRate(success(one), least))));
    }
    let share = &policy.failure_percentage;
    let heard: Vec<&Answers> =
        answers.iter().filter(|one| one.total >= share.request_volume.max(1)).collect();
    if share.min_hosts > 0 && heard.len() >= share.min_hosts {
        let most = share.threshold.fraction();
        let above = heard.iter().filter(|one| 1.0 - success(one) >= most && one.failed > 0);
        for one in above {
            if !found.iter().any(|(host, _)| *host == one.host) {
                found.push((one.host, Cause::FailurePercentage(1.0 - success(one), most)));
            }
        }
    }
    // The worst first: where there is not room for all, it is those that go.
    let failures = |host: &SocketAddr| {
        answers.iter().find(|one| one.host == *host).map_or(0.0, |one| 1.0 - success(one))
    };
    found.sort_by(|(a, _), (b, _)| failures(b).total_cmp(&failures(a)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9000 + number))
    }

    fn ejector(hosts: u16, change: impl FnOnce(&mut OutlierDetection)) -> Ejector {
        let mut policy = OutlierDetection { jitter: Duration::ZERO, ..OutlierDetection::default() };
        change(&mut policy);
        let mut ejector = Ejector::new(&policy);
        ejector.set_hosts((0..hosts).map(host));
        ejector
    }

    const ROW: Cause = Cause::Consecutive5xx(5);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn how_many_may_be_left_out() {
        for (hosts, percent, least, expected) in [
            (1, 50, 30, 0),
            (1, 100, 0, 1),
            (2, 10, 30, 1),
            (2, 50, 30, 1),
            (3, 50, 30, 1),
            (4, 50, 30, 2),
            (10, 50, 30, 5),
            (10, 100, 30, 7),
            (10, 100, 0, 10),
            (10, 10, 30, 1),
        ] {
            let mut ejector = ejector(hosts, |policy| {
                policy.max_ejection_percent = Percent::of_hundred(percent);
                policy.min_health_percent = Percent::of_hundred(least);
            });
            let events: Vec<_> =
                (0..hosts).filter_map(|n| ejector.bad(host(n), ROW, seconds(0), 0.0)).collect();
            let ejected = events.iter().filter(|event| matches!(event, Event::Ejected { .. })).count();
            assert_eq!(ejected, expected, "{hosts} hosts, {percent} %, least {least} %");
            assert_eq!(events.len(), usize::from(hosts), "each is ejected or told why not");
        }
    }

    #[test]
    fn it_is_said_why_not() {
        let mut alone = ejector(1, |_| {});
        let Some(Event::Spared { why, .. }) = alone.bad(host(0), ROW, seconds(0), 0.0) else { panic!() };
        assert_eq!(why.to_string(), "it is the only one");
        let mut four = ejector(4, |policy| policy.max_ejection_percent = Percent::all());
        four.set_failing(host(1), true);
        four.set_failing(host(2), true);
        four.set_failing(host(3), true);
        let Some(Event::Spared { why, .. }) = four.bad(host(0), ROW, seconds(0), 0.0) else { panic!() };
        assert_eq!(
            why.to_string(),
            "0 of 4 would be left and 30 % must be (min_health_percent); the breaker holds"
        );
    }

    #[test]
    fn each_time_is_longer_and_good_times_make_up_for_it() {
        let mut ejector = ejector(4, |policy| policy.max_ejection_time = seconds(75));
        let lasts = |event: Option<Event>| match event {
            Some(Event::Ejected { lasts, .. }) => lasts.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(lasts(ejector.bad(host(0), ROW, seconds(0), 0.0)), 30);
        assert_eq!(ejector.bad(host(0), ROW, seconds(1), 0.0), None);
        assert!(ejector.sweep(seconds(29), &[], || 0.0).is_empty());
        assert_eq!(ejector.sweep(seconds(30), &[], || 0.0), [Event::Returned { host: host(0) }]);
        assert_eq!(lasts(ejector.bad(host(0), ROW, seconds(31), 0.0)), 60);
        ejector.sweep(seconds(91), &[], || 0.0);
        assert_eq!(lasts(ejector.bad(host(0), ROW, seconds(92), 0.0)), 75);
        ejector.sweep(seconds(200), &[], || 0.0);
        for _ in 0..3 {
            ejector.sweep(seconds(210), &[], || 0.0);
        }
        assert_eq!(lasts(ejector.bad(host(0), ROW, seconds(211), 0.0)), 30);
    }

    #[test]
    fn the_one_that_fails_more_than_the_others() {
        let answers = |failed: [u64; 6]| -> Vec<Answers> {
            (0..).zip(failed).map(|(n, failed)| Answers { host: host(n), total: 100, failed }).collect()
        };
        for (failed, expected) in [
            ([0, 0, 0, 0, 0, 0], vec![]),
            ([1, 0, 2, 1, 0, 1], vec![]),
            ([50, 0, 0, 0, 0, 0], vec![0]),
            ([20, 1, 0, 1, 0, 1], vec![0]),
            ([60, 60, 60, 60, 60, 60], vec![0, 1, 2]),
        ] {
            let mut ejector = ejector(6, |_| {});
            let events = ejector.sweep(seconds(10), &answers(failed), || 0.0);
            let ejected: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Ejected { host, .. } => Some(*host),
                    _ => None,
                })
                .collect();
            assert_eq!(ejected, expected.into_iter().map(host).collect::<Vec<_>>(), "{failed:?}");
        }
        // Two endpoints, one of which fails half of its requests.
        let mut two = ejector(2, |_| {});
        let events = two.sweep(seconds(10), &answers([50, 0, 0, 0, 0, 0])[..2], || 0.0);
        assert!(
            matches!(events[..], [Event::Ejected { cause: Cause::FailurePercentage(..), .. }]),
            "{events:?}"
        );
        // Too few requests to tell.
        let few = [
            Answers { host: host(0), total: 10, failed: 10 },
            Answers { host: host(1), total: 10, failed: 0 },
        ];
        assert!(ejector(2, |_| {}).sweep(seconds(10), &few, || 0.0).is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Bad(u16),
        Failing(u16, bool),
        Sweep(u64),
        Hosts(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..8_u16).prop_map(Step::Bad),
            (0..8_u16, any::<bool>()).prop_map(|(n, failing)| Step::Failing(n, failing)),
            (0..120_u64).prop_map(Step::Sweep),
            (1..9_u16).prop_map(Step::Hosts),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold(
            steps in prop::collection::vec(step(), 1..80),
            percent in 0..101_u32,
            least in 0..101_u32,
        ) {
            let mut ejector = ejector(4, |policy| {
                policy.max_ejection_percent = Percent::of_hundred(percent);
                policy.min_health_percent = Percent::of_hundred(least);
                policy.jitter = seconds(3);
            });
            let mut now = Duration::ZERO;
            for step in steps {
                let before = ejector.hosts.iter().filter(|(_, one)| one.until.is_some()).count();
                let event = match step {
                    Step::Bad(n) => ejector.bad(host(n), ROW, now, 0.5),
                    Step::Failing(n, failing) => { ejector.set_failing(host(n), failing); None }
                    Step::Hosts(count) => { ejector.set_hosts((0..count).map(host)); None }
                    Step::Sweep(after) => {
                        now += seconds(after);
                        ejector.sweep(now, &[], || 0.5);
                        None
                    }
                };
                let of = ejector.hosts.len();
                let ejected = ejector.hosts.iter().filter(|(_, one)| one.until.is_some()).count();
                if let Some(Event::Ejected { lasts, .. }) = event {
                    prop_assert!(ejected == before + 1);
                    let most = ejector.policy.max_ejection_percent.of(of).max(usize::from(of >= 2));
                    prop_assert!(ejected <= most);
                    let in_use = ejector.hosts.iter().filter(|(_, one)| one.is_in_use()).count();
                    prop_assert!(in_use as f64 >= f64::from(least) / 100.0 * of as f64 - 1e-9);
                    prop_assert!(lasts <= seconds(303));
                }
                for (_, one) in &ejector.hosts {
                    prop_assert!(one.until.is_none_or(|until| until <= now + seconds(303)));
                }
            }
            // Everybody comes back in the end.
            ejector.sweep(now + seconds(400), &[], || 0.5);
            prop_assert!(ejector.hosts.iter().all(|(_, one)| one.until.is_none()));
        }
    }
}
