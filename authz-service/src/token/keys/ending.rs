//! Warns of keys that end: certificates in the policy, which nobody replaces unless told.
//!
//! Said when it becomes so and once a day from then on, so that a log shows it whenever somebody looks.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::tasks::Stopping;

use crate::metrics::Metrics;
use crate::policy::{Snapshot, SnapshotCell};

/// How long before their end keys are spoken of, in seconds: long enough for somebody to be away.
pub const SOON: i64 = 30 * 24 * 3600;
/// How often the clock is looked at; a new policy is looked at when it comes.
const LOOK: Duration = Duration::from_secs(60);
/// How often one end is spoken of, in seconds.
const AGAIN: i64 = 24 * 3600;

/// An issuer whose keys end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    issuer: Arc<str>,
    /// Unix seconds.
    at: i64,
}

/// Counts such issuers and warns of them until the service stops.
pub async fn watch(cell: Arc<SnapshotCell>, clock: Clock, metrics: Metrics, stopping: Stopping) {
    let (mut spoken, mut applied) = (Spoken::default(), cell.watch());
    loop {
        let now = clock.unix_seconds().cast_signed();
        let ending = ending(&cell.load(), now);
        let ended = ending.iter().filter(|one| one.at < now).count();
        metrics.keys_ending(ending.len() - ended, ended);
        for Ending { issuer, at } in spoken.not_lately(ending, now) {
            let end = jiff::Timestamp::from_second(at).unwrap_or(jiff::Timestamp::MAX);
            if at < now {
                tracing::error!(%issuer, %end, "a certificate with an issuer's key HAS ENDED; tokens signed with it are refused");
            } else {
                tracing::warn!(%issuer, %end, "a certificate with an issuer's key ends soon; put its successor beside it");
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The issuers some of whose keys have ended or end soon.
fn ending(snapshot: &Snapshot, now: i64) -> Vec<Ending> {
    let of = |trusted: &Arc<crate::token::TrustedIssuer>| {
        let at = trusted.issuer.keys_end_before(now.saturating_add(SOON))?;
        Some(Ending { issuer: Arc::clone(&trusted.issuer.name), at })
    };
    snapshot.issuers().filter_map(of).collect()
}

/// What was said last: which end, and when.
#[derive(Debug, Default)]
struct Spoken(FxHashMap<Arc<str>, (i64, i64)>);

impl Spoken {
    /// Those that have not been spoken of for a day; now they have. Forgets issuers whose keys end no more.
    fn not_lately(&mut self, ending: Vec<Ending>, now: i64) -> Vec<Ending> {
        self.0.retain(|issuer, _| ending.iter().any(|one| one.issuer == *issuer));
        let is_news = |one: &Ending| match self.0.insert(Arc::clone(&one.issuer), (one.at, now)) {
            Some((at, when)) if at == one.at && now < when + AGAIN => {
                self.0.insert(Arc::clone(&one.issuer), (at, when));
                false
            }
            _ => true,
        };
        ending.into_iter().filter(is_news).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_spoken_of_once_a_day() {
        let mut spoken = Spoken::default();
        let ends = |at| vec![Ending { issuer: "demo".into(), at }];
        assert_eq!(spoken.not_lately(ends(7), 0), ends(7));
        assert_eq!(spoken.not_lately(ends(7), AGAIN - 1), []);
        assert_eq!(spoken.not_lately(ends(7), AGAIN), ends(7));
        // Another certificate is another end, and one that is gone is forgotten.
        assert_eq!(spoken.not_lately(ends(8), AGAIN), ends(8));
        assert_eq!(spoken.not_lately(Vec::new(), AGAIN), []);
        assert_eq!(spoken.not_lately(ends(8), AGAIN), ends(8));
    }
}
