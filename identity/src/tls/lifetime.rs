//! How long a connection may live: never longer than its peer's certificate. The arithmetic is pure: times in, times out.
//!
//! ```text
//! handshake ------------- stop reusing --- drain --[jitter]--- close --- cut = not_after
//!                          our own pool    GOAWAY, or           no one    whatever it
//!                          opens anew      `connection: close`  asks      is doing
//! ```
//!
//! Our pool stops using a connection before the other end could begin to drain it, so that between two proxies of
//! ours no request meets a connection that is going away.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tollgate_runtime::clock::Clock;

use crate::identity::{Identity, draw};
use crate::shown::Shown;

/// The part of a life over which drains are spread, and its latest beginning before the end.
const JITTER: f64 = 0.1;
const DRAIN: f64 = 0.1;
/// Before every drain.
const RETIRE: f64 = 0.25;
/// What counts of a life that is longer: nobody drains for days.
const LONGEST_LIFE: f64 = 3600.0;
/// How long before its end a connection closes that is idle then.
const LAST_SECOND: f64 = 1.0;

/// How long from now it is until the end, and the steps towards it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lifetime {
    /// Requests that come from here on are the connection's last.
    pub drain: Duration,
    /// It closes when nothing is under way.
    pub close: Duration,
    /// It ends.
    pub cut: Duration,
    /// Our pool uses it no more.
    pub retire: Duration,
}

impl Lifetime {
    /// Of a connection that was opened to this peer just now: both certificates bound it.
    pub fn opened(
        identity: Option<&Identity>,
        peer: Option<&CertificateDer<'_>>,
        clock: &Clock,
    ) -> Option<Self> {
        let of = |from, to| Self::of(from, to, clock.unix_nanos(), draw());
        let own = identity.map(|identity| {
            let material = identity.material();
            of(material.credential.leaf.not_before, material.credential.leaf.not_after)
        });
        let peer =
            peer.and_then(|peer| Shown::read(peer).ok()).map(|peer| of(peer.not_before, peer.not_after));
        match (own, peer) {
            (Some(own), Some(peer)) => Some(own.earlier(peer)),
            (own, peer) => own.or(peer),
        }
    }

    /// Of a certificate with these dates (Unix seconds), now (Unix nanoseconds); `draw` is a random number from 0 to 1.
    pub fn of(not_before: i64, not_after: i64, now_nanos: u64, draw: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "seconds of this age are far below 2^52")]
        let (life, left) = (
            not_after.saturating_sub(not_before) as f64,
            not_after as f64 - now_nanos as f64 / 1_000_000_000.0,
        );
        let life = life.clamp(0.0, LONGEST_LIFE);
        let lead = life * (DRAIN + JITTER * draw.clamp(0.0, 1.0));
        let before = |lead: f64| Duration::from_secs_f64((left - lead).max(0.0));
        Self {
            drain: before(lead),
            close: before(LAST_SECOND.min(lead / 4.0)),
            cut: before(0.0),
            retire: before(life * RETIRE),
        }
    }

    /// The one that ends first.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        let retire = self.retire.min(other.retire);
        Self { retire, ..if other.cut < self.cut { other } else { self } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_come_in_their_order_before_the_end() {
        for (life, used) in [(20, 0), (20, 10), (6 * 3600, 60), (365 * 86_400, 5), (20, 30)] {
            for draw in [0.0, 0.5, 1.0] {
                let now = u64::try_from(1000 + used).unwrap() * 1_000_000_000;
                let at = Lifetime::of(1000, 1000 + life, now, draw);
                assert!(at.retire <= at.drain && at.drain <= at.close && at.close <= at.cut, "{at:?}");
                assert_eq!(at.cut.as_secs(), u64::try_from((life - used).max(0)).unwrap());
                assert!(at.cut - at.retire <= Duration::from_secs(900), "{at:?}");
            }
        }
        let at = Lifetime::of(1000, 1020, 1_000_000_000_000, 0.0);
        assert_eq!((at.retire.as_secs(), at.drain.as_secs()), (15, 18));
    }
}
