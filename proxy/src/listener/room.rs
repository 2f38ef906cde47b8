//! How many may be somewhere at once, where the limit may change while they are there: who is in stays in, and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Who is in. How many may be is asked whenever somebody comes.
#[derive(Debug, Default)]
pub(crate) struct Room {
    taken: AtomicUsize,
    /// Somebody has left, or more may be in.
    changed: Notify,
}

/// One place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Room>);

impl Room {
    /// A place, if fewer than `most` are taken.
    pub(crate) fn try_enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let entered = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// Waits for a place among as many as `most` says each time that something has changed.
    pub(crate) async fn enter(self: &Arc<Self>, most: impl Fn() -> usize) -> Place {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on nothing that changes goes unnoticed.
            changed.as_mut().enable();
            if let Some(place) = self.try_enter(most()) {
                return place;
            }
            changed.await;
        }
    }

    /// Whoever waits asks again how many may be in.
    pub(crate) fn has_changed(&self) {
        self.changed.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.has_changed();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_is_in_counts_whatever_the_limit_is_by_now() {
        let room = Arc::<Room>::default();
        let [first, second] = [2, 2].map(|most| room.try_enter(most).unwrap());
        assert!(room.try_enter(2).is_none());
        assert!(room.try_enter(1).is_none(), "nobody is sent away, and nobody comes");
        let third = room.try_enter(3).unwrap();
        drop((first, second));
        assert!(room.try_enter(1).is_none());
        drop(third);
        assert!(room.try_enter(1).is_some());
    }

    #[test]
    fn who_waits_comes_in_when_somebody_leaves_or_more_may_be_in() {
        let (room, most) = (Arc::<Room>::default(), AtomicUsize::new(1));
        let first = room.try_enter(1).unwrap();
        let mut waiting = Box::pin(room.enter(|| most.load(Ordering::Relaxed)));
        assert!((&mut waiting).now_or_never().is_none());
        most.store(2, Ordering::Relaxed);
        room.has_changed();
        let second = (&mut waiting).now_or_never().expect("there is more room");
        let mut waiting = Box::pin(room.enter(|| 2));
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().is_some());
        drop(second);
    }
}
