//! Which root signs now, and which are trusted: pure, from the times at which roots take over.
//!
//! ```text
//! root 1  ──signs──────────────────┤ trusted until its last certificate has ended ├─ gone
//! root 2        ├─ trusted already ┤──signs────────────────────────────────────────...
//!               made               takes over
//! ```
//!
//! A new root is trusted everywhere before it signs anything, and an old one for as long as anything that it signed
//! is valid. So a rotation refuses nobody.

use std::time::Duration;

/// When a root may do what, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// From when on it signs.
    pub takes_over: i64,
    /// When its certificate ends.
    pub not_after: i64,
}

/// The state of things at one moment, by positions in the list that was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Succession {
    /// Who signs; nobody if no root is there yet.
    pub signer: Option<usize>,
    /// Who is trusted, in the order given.
    pub trusted: Vec<usize>,
    /// Whose keys are needed no more.
    pub gone: Vec<usize>,
}

/// Says who signs and who is trusted at `now`, where certificates live for `leaf_life` at most.
pub fn succession(reigns: &[Reign], leaf_life: Duration, now: i64) -> Succession {
    let leaf_life = i64::try_from(leaf_life.as_secs()).unwrap_or(i64::MAX);
    let alive = |reign: &Reign| now < reign.not_after;
    let signer = (reigns.iter().enumerate())
        .filter(|(_, reign)| alive(reign) && reign.takes_over <= now)
        .max_by_key(|(index, reign)| (reign.takes_over, *index))
        .map(|(index, _)| index);
    // The moment from which on nobody older has signed anything.
    let since = signer.map_or(i64::MIN, |index| reigns[index].takes_over);
    let mut state = Succession { signer, ..Succession::default() };
    for (index, reign) in reigns.iter().enumerate() {
        let ended = Some(index) != signer
            && reign.takes_over <= since
            && since != i64::MIN
            && now >= since.saturating_add(leaf_life);
        if alive(reign) && !ended { state.trusted.push(index) } else { state.gone.push(index) }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(100);

    fn at(now: i64, reigns: &[(i64, i64)]) -> (Option<usize>, Vec<usize>) {
        let reigns: Vec<_> =
            reigns.iter().map(|&(takes_over, not_after)| Reign { takes_over, not_after }).collect();
        let state = succession(&reigns, LIFE, now);
        assert_eq!(state.trusted.len() + state.gone.len(), reigns.len());
        (state.signer, state.trusted)
    }

    #[test]
    fn a_new_root_is_trusted_before_it_signs_and_the_old_one_after() {
        let roots = [(0, 10_000), (1000, 20_000)];
        for (now, expected) in [
            (500, (Some(0), vec![0, 1])),
            (999, (Some(0), vec![0, 1])),
            (1000, (Some(1), vec![0, 1])),
            (1099, (Some(1), vec![0, 1])),
            (1100, (Some(1), vec![1])),
            (20_000, (None, vec![])),
        ] {
            assert_eq!(at(now, &roots), expected, "{now}");
        }
    }

    #[test]
    fn no_root_no_signer_and_two_at_once_agree_on_one() {
        assert_eq!(at(5, &[]), (None, vec![]));
        assert_eq!(at(5, &[(10, 100)]), (None, vec![0]));
        assert_eq!(at(50, &[(10, 1000), (10, 1000)]), (Some(1), vec![0, 1]));
        assert_eq!(at(500, &[(10, 400), (20, 450)]), (None, vec![]));
    }

    #[test]
    fn a_root_that_ended_early_leaves_the_elder_signing() {
        assert_eq!(at(60, &[(0, 1000), (50, 55)]), (Some(0), vec![0]));
    }
}
