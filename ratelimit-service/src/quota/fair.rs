//! Max-min fair division: nobody gets more than it wants while somebody gets less than an equal share.
//!
//! Pure. Shares are whole units, since what a proxy can be told is a whole number of tokens.

/// Divides `total` units among those who want this many each. What is wanted by nobody stays undivided.
///
/// Where an equal share is a fraction the units left over go one by one to those of most `patience`, so that whoever
/// went without comes first the next time.
pub fn max_min(total: u32, wanted: &[Wanted]) -> Vec<u32> {
    let mut shares = vec![0; wanted.len()];
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_unstable_by_key(|place| wanted[*place].units);
    let mut left = total;
    for (served, place) in order.iter().enumerate() {
        let waiting = u32::try_from(order.len() - served).unwrap_or(u32::MAX);
        if wanted[*place].units > left / waiting {
            spread(left, &order[served..], wanted, &mut shares);
            break;
        }
        shares[*place] = wanted[*place].units;
        left -= wanted[*place].units;
    }
    shares
}

/// What one of them wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// This many units, if it can get them.
    pub units: u32,
    /// The larger, the sooner it gets what cannot be divided evenly.
    pub patience: u64,
}

/// All of these want more than an equal share of what is left.
fn spread(left: u32, places: &[usize], wanted: &[Wanted], shares: &mut [u32]) {
    let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let (each, over) = (left / count, (left % count) as usize);
    let mut patient = places.to_vec();
    patient.sort_by_key(|place| std::cmp::Reverse(wanted[*place].patience));
    for (rank, place) in patient.into_iter().enumerate() {
        shares[place] = each + u32::from(rank < over);
    }
}

/// Cuts `total` in proportion to these weights, rounded down, so that the parts never add up to more.
pub fn in_proportion(total: u32, weights: &[u32]) -> Vec<u32> {
    let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let part = |weight: &u32| (u64::from(total) * u64::from(*weight)).checked_div(all).unwrap_or_default();
    // A part is never larger than the whole.
    weights.iter().map(|weight| u32::try_from(part(weight)).unwrap_or(total)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn divide(total: u32, wanted: &[u32]) -> Vec<u32> {
        let wanted: Vec<_> = wanted.iter().map(|units| Wanted { units: *units, patience: 0 }).collect();
        max_min(total, &wanted)
    }

    #[test]
    fn table() {
        let table: &[(u32, &[u32], &[u32])] = &[
            (40, &[5, 100], &[5, 35]),
            (40, &[100, 100], &[20, 20]),
            (40, &[5, 5], &[5, 5]),
            (40, &[], &[]),
            (0, &[7], &[0]),
            (30, &[2, 8, 100, 100], &[2, 8, 10, 10]),
            (3, &[9, 9], &[2, 1]),
            (7, &[u32::MAX], &[7]),
        ];
        for (total, wanted, shares) in table {
            assert_eq!(divide(*total, wanted), *shares, "{total} {wanted:?}");
        }
    }

    #[test]
    fn the_patient_come_first_where_there_is_too_little() {
        let wanted = [(5, 1), (5, 9), (5, 4)].map(|(units, patience)| Wanted { units, patience });
        assert_eq!(max_min(2, &wanted), [0, 1, 1]);
        assert_eq!(max_min(4, &wanted), [1, 2, 1]);
    }

    proptest! {
        #[test]
        fn is_max_min_fair(total in 0u32..200, wanted in proptest::collection::vec(0u32..100, 1..20)) {
            let shares = divide(total, &wanted);
            let sum: u32 = shares.iter().sum();
            prop_assert_eq!(sum, total.min(wanted.iter().sum()));
            for (one, share) in shares.iter().enumerate() {
                prop_assert!(*share <= wanted[one]);
                if *share < wanted[one] {
                    // Whoever is short has no less than anybody else, but for one indivisible unit.
                    prop_assert!(shares.iter().all(|other| *other <= share + 1));
                }
            }
        }

        #[test]
        fn proportions_never_add_up_to_more(
            total in any::<u32>(), weights in proptest::collection::vec(any::<u32>(), 0..20)
        ) {
            let sum: u64 = in_proportion(total, &weights).iter().map(|part| u64::from(*part)).sum();
            prop_assert!(sum <= u64::from(total));
        }
    }
}
