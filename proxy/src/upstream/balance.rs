//! Which of several endpoints gets the next request. Pure: costs and numbers in, an index out.

use std::time::Duration;

/// How to choose among endpoints that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Of two at random the one that costs less.
    CheaperOfTwo,
    /// Each in turn.
    InTurn,
    /// Any.
    Random,
}

/// The index of the endpoint to use among `count`; `turn` grows by one a request, `draw` is random.
pub(super) fn pick(
    way: Way,
    count: usize,
    turn: usize,
    draw: u64,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    match (count, way) {
        (0, _) => None,
        (1, _) => Some(0),
        (_, Way::InTurn) => Some(turn % count),
        (_, Way::Random) => Some((draw >> 32) as usize % count),
        (_, Way::CheaperOfTwo) => {
            let (high, low) = ((draw >> 32) as usize, (draw & u64::from(u32::MAX)) as usize);
            let first = high % count;
            // One of the others, so that two different ones are compared.
            let second = (first + 1 + low % (count - 1)) % count;
            Some(if cost(second) < cost(first) { second } else { first })
        }
    }
}

/// Whether the one that was picked keeps the request, or another gets it that has been in use for longer: one that has
/// just come gets its share of what would be its own. `draw` is random, and none of what `picked` came of.
pub(super) fn warmer(picked: usize, count: usize, draw: u64, warmth: impl Fn(usize) -> f64) -> usize {
    if count < 2 {
        return picked;
    }
    let (high, low) = ((draw >> 32) as usize, (draw & u64::from(u32::MAX)) as f64);
    let other = (picked + 1 + high % (count - 1)) % count;
    let share = warmth(picked) / warmth(other);
    if low / f64::from(u32::MAX) < share { picked } else { other }
}

/// The share, from a tenth to 1, that an endpoint gets that has been in use for so long.
pub(super) fn warmth(in_use: Duration, slow_start: Duration) -> f64 {
    if in_use >= slow_start { 1.0 } else { (in_use.as_secs_f64() / slow_start.as_secs_f64()).max(0.1) }
}

/// How much an old latency counts beside a new one: half after seven seconds.
const DECAY: Duration = Duration::from_secs(10);

/// The latency to reckon with after one more answer: a peak counts at once and is forgotten slowly.
pub(super) fn peak_ewma(before: f64, since: Duration, latency: f64) -> f64 {
    if latency > before {
        return latency;
    }
    let weight = (-since.as_secs_f64() / DECAY.as_secs_f64()).exp();
    before * weight + latency * (1.0 - weight)
}

/// Which group gets the next request. A group of which less than `1 / 1.4` may be used gives what it cannot take
/// to the others, in proportion (as Envoy's localities do). Each group: its weight, how many it has, how many of
/// them may be used.
pub(super) fn group(groups: impl Iterator<Item = (u32, usize, usize)> + Clone, draw: u64) -> Option<usize> {
    const OVERPROVISIONING: f64 = 1.4;
    let effective = |(weight, of, usable): (u32, usize, usize)| {
        if of == 0 || usable == 0 {
            return 0.0;
        }
        f64::from(weight) * (OVERPROVISIONING * usable as f64 / of as f64).min(1.0)
    };
    let total: f64 = groups.clone().map(effective).sum();
    let mut point = draw as f64 / u64::MAX as f64 * total;
    let mut last = None;
    for (index, one) in groups.enumerate() {
        let share = effective(one);
        if share > 0.0 {
            last = Some(index);
            if point < share {
                return last;
            }
            point -= share;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [Way; 3] = [Way::CheaperOfTwo, Way::InTurn, Way::Random];

    #[test]
    fn nobody_and_one() {
        for way in WAYS {
            assert_eq!(pick(way, 0, 3, 9, |_| 0.0), None);
            assert_eq!(pick(way, 1, 3, 9, |_| 7.0), Some(0));
        }
    }

    #[test]
    fn one_that_has_just_come_gets_its_share_however_idle_all_are() {
        for way in WAYS {
            for (warmths, low, high) in [
                // A tenth of a third, beside two that are warm.
                (&[1.0, 0.1, 1.0][..], 200, 500),
                (&[1.0, 0.1][..], 350, 700),
                // All have just come: then nobody steps back.
                (&[0.1, 0.1][..], 4500, 5500),
            ] {
                let count = warmths.len();
                let picks = (0..10_000).filter(|turn| {
                    let picked = pick(way, count, *turn, rand::random(), |_| 1.0).unwrap();
                    warmer(picked, count, rand::random(), |index| warmths[index]) == 1
                });
                let picks = picks.count();
                assert!((low..high).contains(&picks), "{way:?} {warmths:?}: {picks} of 10,000");
            }
        }
        assert_eq!(warmer(0, 1, 7, |_| 0.1), 0);
    }

    #[test]
    fn turns_are_taken() {
        let picked: Vec<_> = (0..5).filter_map(|turn| pick(Way::InTurn, 3, turn, 0, |_| 0.0)).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn the_cheaper_of_two_is_taken() {
        let costs = [5.0, 0.0, 5.0];
        for draw in 0..1000_u64 {
            let mixed = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let picked = pick(Way::CheaperOfTwo, 3, 0, mixed, |index| costs[index]).unwrap();
            let first = ((mixed >> 32) as usize) % 3;
            let second = (first + 1 + (mixed & 0xffff_ffff) as usize % 2) % 3;
            assert_ne!(first, second);
            assert_eq!(picked == 1, first == 1 || second == 1);
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        assert_eq!(peak_ewma(0.01, Duration::from_secs(1), 0.5), 0.5);
        let after = peak_ewma(0.5, Duration::from_secs(10), 0.01);
        assert!((0.18..0.2).contains(&after), "{after}");
        assert_eq!(peak_ewma(0.5, Duration::ZERO, 0.01), 0.5);
    }

    #[test]
    fn endpoints_warm_up() {
        let slow = Duration::from_secs(10);
        for (seconds, expected) in [(0, 0.1), (1, 0.1), (5, 0.5), (10, 1.0), (60, 1.0)] {
            assert!((warmth(Duration::from_secs(seconds), slow) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn groups_share_by_weight_and_health() {
        for (groups, expected) in [
            (vec![(80, 10, 10), (20, 10, 10)], [80, 20]),
            (vec![(80, 10, 8), (20, 10, 10)], [80, 20]),
            (vec![(80, 10, 0), (20, 10, 10)], [0, 100]),
            (vec![(50, 10, 5), (50, 10, 10)], [41, 59]),
            (vec![(80, 0, 0), (20, 10, 10)], [0, 100]),
        ] {
            let mut counts = [0_usize; 2];
            for step in 0..1000_u64 {
                counts[group(groups.iter().copied(), step * (u64::MAX / 1000)).unwrap()] += 1;
            }
            for (count, expected) in counts.iter().zip(expected) {
                assert!((count / 10).abs_diff(expected) <= 1, "{groups:?}: {counts:?}");
            }
        }
        assert_eq!(group([(1, 2, 0)].into_iter(), 0), None);
    }
}
