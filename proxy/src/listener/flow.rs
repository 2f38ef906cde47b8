//! What has moved on a connection of bytes, and when.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client = 1,
    Upstream = 2,
}

/// What has moved.
#[derive(Debug)]
pub(crate) struct Flow {
    opened: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    /// Microseconds after `opened` at which something moved last.
    moved: AtomicU64,
    /// Which side broke first; 0 for none.
    broken: AtomicU8,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            broken: AtomicU8::new(0),
        }
    }

    pub(super) fn moved(&self, from: Side, bytes: u64) {
        let counter = match from {
            Side::Client => &self.received,
            Side::Upstream => &self.sent,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
        let now = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// From the client, and to it.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// Since when nothing has moved.
    pub(super) fn quiet_since(&self) -> Instant {
        self.opened + Duration::from_micros(self.moved.load(Ordering::Relaxed))
    }

    pub(super) fn broke(&self, side: Side) {
        let _ = self.broken.compare_exchange(0, side as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Which side broke first.
    pub(super) fn broken(&self) -> Option<Side> {
        [Side::Client, Side::Upstream]
            .into_iter()
            .find(|side| *side as u8 == self.broken.load(Ordering::Relaxed))
    }
}
