//! Which endpoint gets the next request. Pure: loads and numbers in, an index out.

use crate::config::Balance;

/// The index of the endpoint to use among `count`; `turn` grows by one a request, `draw` is random.
pub(super) fn pick(
    balance: Balance,
    count: usize,
    turn: usize,
    draw: u64,
    load: impl Fn(usize) -> usize,
) -> Option<usize> {
    match (count, balance) {
        (0, _) => None,
        (1, _) => Some(0),
        (_, Balance::RoundRobin) => Some(turn % count),
        (_, Balance::LeastRequest) => {
            let (high, low) = ((draw >> 32) as usize, (draw & u64::from(u32::MAX)) as usize);
            let first = high % count;
            // One of the others, so that two different ones are compared.
            let second = (first + 1 + low % (count - 1)) % count;
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_and_one() {
        for balance in [Balance::RoundRobin, Balance::LeastRequest] {
            assert_eq!(pick(balance, 0, 3, 9, |_| 0), None);
            assert_eq!(pick(balance, 1, 3, 9, |_| 7), Some(0));
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let picked: Vec<_> = (0..5).filter_map(|turn| pick(Balance::RoundRobin, 3, turn, 0, |_| 0)).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        let loads = [5, 0, 5];
        for draw in 0..1000_u64 {
            let mixed = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let picked = pick(Balance::LeastRequest, 3, 0, mixed, |index| loads[index]).unwrap();
            let first = ((mixed >> 32) as usize) % 3;
            let second = (first + 1 + (mixed & 0xffff_ffff) as usize % 2) % 3;
            assert_ne!(first, second);
            assert_eq!(picked == 1, first == 1 || second == 1);
        }
    }
}
