//! The whole analysis on requests by chance, from fixed seeds: how soon it finds what is bad, how often what is not.

use crate::analysis::{Analysis, Verdict};
use crate::plan::tests::plan;
use crate::plan::{Plan, Share};
use crate::record::{Record, State};
use crate::window::{ArmCounts, BUCKETS, Window, bucket_of};

/// SplitMix64: the same numbers everywhere, for ever.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn number(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How a version behaves.
#[derive(Clone, Copy)]
struct Version {
    fails: f64,
    /// Of the exponential part of its latency, over a floor of a fifth of it.
    mean_ms: f64,
}

impl Version {
    fn answer(self, chance: &mut Chance, arm: &mut ArmCounts) {
        if chance.number() < self.fails {
            arm.failed += 1;
        } else {
            arm.ok += 1;
        }
        let ms = self.mean_ms * (0.2 - chance.number().max(1e-12).ln());
        if arm.latency.is_empty() {
            arm.latency = vec![0; BUCKETS];
        }
        arm.latency[bucket_of(ms / 1000.0)] += 1;
    }
}

fn window(chance: &mut Chance, requests: u64, share: Share, before: Version, after: Version) -> Window {
    let mut window = Window::default();
    for _ in 0..requests {
        if share.includes(chance.next()) {
            after.answer(chance, &mut window.canary);
        } else {
            before.answer(chance, &mut window.baseline);
        }
    }
    window
}

fn of_a_tenth() -> Plan {
    Plan { min_samples: 1_000_000, ..plan() }
}

/// After how many requests the canary was rolled back.
fn rolled_back_after(
    seed: u64,
    most: u64,
    every: u64,
    before: Version,
    after: Version,
) -> Option<(u64, String)> {
    let mut chance = Chance(seed);
    let mut record = Record::new(of_a_tenth(), 0);
    let mut seen = 0;
    while seen < most {
        let window = window(&mut chance, every, record.weight(), before, after);
        seen += every;
        if let Some(change) = record.observe(&window, 0) {
            assert_eq!(change.to, State::RolledBack);
            return Some((seen, change.reason));
        }
    }
    None
}

const GOOD: Version = Version { fails: 0.001, mean_ms: 20.0 };

#[test]
fn five_percent_errors_at_a_tenth_of_500_rps_are_found_within_thirty_seconds() {
    let mut worst = 0;
    for seed in 0..200 {
        // A report every two seconds.
        let bad = Version { fails: 0.05, ..GOOD };
        let (seen, reason) = rolled_back_after(seed, 500 * 30, 500 * 2, GOOD, bad).expect("found");
        assert!(reason.starts_with("the canary fails"), "{reason}");
        worst = worst.max(seen / 500);
    }
    assert!(worst <= 20, "the slowest of 200 took {worst} s");
}

#[test]
fn twenty_comparisons_of_a_version_with_itself_over_10_000_requests_end_in_none_rolled_back() {
    for fails in [0.0, 0.001, 0.05, 0.3] {
        for seed in 0..20 {
            let same = Version { fails, mean_ms: 20.0 };
            assert_eq!(rolled_back_after(1_000 + seed, 10_000, 100, same, same), None, "{fails} {seed}");
        }
    }
}

#[test]
fn a_version_like_the_other_is_rolled_back_no_more_often_than_allowed() {
    // One in a hundred is allowed here, and looked at 400 times in each: so that a test that is wrong would show.
    let plan = Plan { false_alarm: Share::millionths(10_000), ..of_a_tenth() };
    for (fails, mean_ms) in [(0.0, 20.0), (0.01, 3.0), (0.2, 100.0)] {
        let same = Version { fails, mean_ms };
        let mut wrong = 0;
        for seed in 0..300 {
            let mut chance = Chance(9_000 + seed);
            let mut analysis = Analysis::default();
            let is_bad = |analysis: &Analysis| matches!(analysis.verdict(&plan), Verdict::Bad(_));
            let half = Share::millionths(500_000);
            for _ in 0..400 {
                analysis.observe(&plan, &window(&mut chance, 20, half, same, same));
                if is_bad(&analysis) {
                    wrong += 1;
                    break;
                }
            }
        }
        // 3 expected at most; 10 and more would happen once in a thousand such tests.
        assert!(wrong < 10, "{wrong} of 300 with {fails} failing");
    }
}

#[test]
fn a_slow_version_is_found_and_one_within_the_ratio_is_not() {
    for seed in 0..20 {
        let slow = Version { mean_ms: 60.0, ..GOOD };
        let (_, reason) = rolled_back_after(seed, 30_000, 1_000, GOOD, slow).expect("three times as slow");
        assert!(reason.starts_with("95% of the canary's last answers take up to "), "{reason}");
        let slower = Version { mean_ms: 24.0, ..GOOD };
        assert_eq!(rolled_back_after(seed, 30_000, 1_000, GOOD, slower), None, "a fifth slower is allowed");
    }
}

#[test]
fn minutes_that_are_bad_for_both_roll_nothing_back() {
    let mut chance = Chance(7);
    let mut record = Record::new(of_a_tenth(), 0);
    for minute in 0..60 {
        let both = match minute % 3 {
            0 => GOOD,
            1 => Version { fails: 0.5, mean_ms: 20.0 },
            _ => Version { fails: 0.02, mean_ms: 400.0 },
        };
        for _ in 0..10 {
            let window = window(&mut chance, 200, record.weight(), both, both);
            assert_eq!(record.observe(&window, 0), None, "minute {minute}");
        }
    }
}

#[test]
fn a_canary_that_does_not_answer_at_all_is_found_with_few_requests() {
    for seed in 0..50 {
        let dead = Version { fails: 1.0, ..GOOD };
        let (seen, _) = rolled_back_after(seed, 1_000, 20, GOOD, dead).expect("found");
        assert!(seen <= 200, "{seen} requests, a tenth of them to the canary");
    }
}
