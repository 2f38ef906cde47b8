//! A bound on the lines that peers cause: none fills the disk or the collector by making us say the same again and again.
//!
//! Such a line is one with the field `peer`, which may be empty where it is not known who it is. All others are written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Whose the lines are that tell of others.
pub(super) const TARGET: &str = module_path!();
/// Lines that a place may write at once.
const BURST: u32 = 100;
/// From one to the next when it has written those.
const EVERY: Duration = Duration::from_millis(100);

/// Leaves out lines of a place in the code that writes too many, and says that it does, and how many those were when it
/// writes another. Not of level `debug` and below: who asks for those wants all.
#[derive(Debug, Default)]
pub(super) struct Sparing {
    places: Mutex<HashMap<Identifier, Place>>,
}

/// A generic cell rate algorithm (ITU-T I.371, annex A).
#[derive(Debug)]
struct Place {
    due: Instant,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is written, and so many before it were not.
    Written(u64),
    /// It is the so manieth that is not.
    LeftOut(u64),
}

impl Place {
    fn judge(&mut self, now: Instant) -> Verdict {
        if self.due > now + EVERY * (BURST - 1) {
            self.left_out += 1;
            return Verdict::LeftOut(self.left_out);
        }
        self.due = self.due.max(now) + EVERY;
        Verdict::Written(std::mem::take(&mut self.left_out))
    }
}

impl<S: Subscriber> Layer<S> for Sparing {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.fields().field("peer").is_none() {
            return true;
        }
        let now = Instant::now();
        let verdict = {
            let mut places = self.places.lock();
            places.entry(metadata.callsite()).or_insert(Place { due: now, left_out: 0 }).judge(now)
        };
        // Who hears those lines hears of them.
        let place = metadata.name();
        match (&verdict, *metadata.level()) {
            (Verdict::LeftOut(1), Level::INFO) => {
                tracing::info!(place, "left out from here on: too many of a kind")
            }
            (Verdict::LeftOut(1), _) => tracing::warn!(place, "left out from here on: too many of a kind"),
            (Verdict::Written(lines @ 1..), Level::INFO) => tracing::info!(place, lines, "left out"),
            (Verdict::Written(lines @ 1..), _) => tracing::warn!(place, lines, "left out"),
            _ => {}
        }
        matches!(verdict, Verdict::Written(_))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_burst_passes_then_some_and_what_is_left_out_is_counted() {
        let began = Instant::now();
        let mut place = Place { due: began, left_out: 0 };
        let mut written = |after: Duration, lines: u32| {
            let judged = (0..lines).map(|_| place.judge(began + after));
            judged
                .filter_map(|verdict| match verdict {
                    Verdict::Written(before) => Some(before),
                    Verdict::LeftOut(_) => None,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(written(Duration::ZERO, 1_000), [0; BURST as usize]);
        assert_eq!(written(EVERY / 2, 1), [0; 0]);
        assert_eq!(written(EVERY, 10), [901]);
        assert_eq!(written(EVERY * 4, 10), [9, 0, 0]);
        assert_eq!(written(Duration::from_secs(3_600), 1_000).len(), BURST as usize, "it has rested");
    }

    struct Count(Arc<Mutex<HashMap<Level, u32>>>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().entry(*event.metadata().level()).or_default() += 1;
        }
    }

    #[test]
    fn only_lines_about_peers_are_bounded_and_one_place_takes_none_from_another() {
        let counts = Arc::new(Mutex::default());
        let subscriber =
            tracing_subscriber::registry().with(Sparing::default()).with(Count(Arc::clone(&counts)));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..10_000 {
                tracing::info!(peer = "somebody", "too often");
                tracing::debug!(peer = "somebody", "asked for");
                tracing::warn!("by ourselves");
            }
            tracing::error!(peer = tracing::field::Empty, "something else");
        });
        let counts = counts.lock();
        assert!((BURST..10_000).contains(&counts[&Level::INFO]), "{counts:?}");
        assert_eq!(counts[&Level::DEBUG], 10_000);
        assert_eq!(counts[&Level::WARN], 10_000);
        assert_eq!(counts[&Level::ERROR], 1);
    }
}
