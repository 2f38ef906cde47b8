//! How much may be under way to a cluster: counted at the door, never queued beyond a number.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::config::BreakerConfig;

/// What there is no more room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Open connections, and requests that wait for one.
    Pending,
    /// Requests under way.
    Requests,
    /// Tries beyond the first.
    Retries,
}

impl Full {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The counts of one cluster.
#[derive(Debug)]
pub(crate) struct Breaker {
    limits: BreakerConfig,
    requests: AtomicUsize,
    retries: AtomicUsize,
    pending: AtomicUsize,
    connections: AtomicUsize,
    refused: [AtomicU64; 3],
    /// A connection was given back or closed.
    pub(super) freed: Notify,
}

/// What is under way, for the status page.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct UnderWay {
    pub(crate) requests: usize,
    pub(crate) max_requests: usize,
    pub(crate) pending: usize,
    pub(crate) max_pending: usize,
    pub(crate) connections: usize,
    pub(crate) max_connections: usize,
    pub(crate) retries: usize,
    pub(crate) max_retries: usize,
    /// Refused since the start.
    pub(crate) refused_requests: u64,
    pub(crate) refused_pending: u64,
    pub(crate) refused_retries: u64,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    breaker: Arc<Breaker>,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Request,
    Retry,
    Pending,
    Connection,
}

impl Breaker {
    pub(crate) fn new(limits: &BreakerConfig) -> Arc<Self> {
        Arc::new(Self {
            limits: limits.clone(),
            requests: AtomicUsize::new(0),
            retries: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            refused: Default::default(),
            freed: Notify::new(),
        })
    }

    /// A place for a request.
    pub(crate) fn request(self: &Arc<Self>) -> Result<Place, Full> {
        self.take(What::Request, self.limits.requests, Full::Requests)
    }

    /// A place for a try beyond the first, while they are few beside the requests under way.
    pub(crate) fn retry(self: &Arc<Self>) -> Result<Place, Full> {
        self.take(What::Retry, self.max_retries(), Full::Retries)
    }

    /// A place to wait for a connection in.
    pub(super) fn pending(self: &Arc<Self>) -> Result<Place, Full> {
        self.take(What::Pending, self.limits.pending, Full::Pending)
    }

    /// A place for a connection; nothing when it has to be waited for. Who has none may always open one.
    pub(super) fn connection(self: &Arc<Self>, has_none: bool) -> Option<Place> {
        let most = if has_none { usize::MAX } else { self.limits.connections };
        self.count(What::Connection, most)
            .then(|| Place { breaker: Arc::clone(self), what: What::Connection })
    }

    /// Whether somebody waits for a connection.
    pub(super) fn is_waited_for(&self) -> bool {
        self.pending.load(Ordering::SeqCst) > 0
    }

    fn max_retries(&self) -> usize {
        let share = self.limits.retry_percent.of(self.requests.load(Ordering::Relaxed));
        share.max(self.limits.min_retries)
    }

    fn take(self: &Arc<Self>, what: What, most: usize, full: Full) -> Result<Place, Full> {
        if self.count(what, most) {
            return Ok(Place { breaker: Arc::clone(self), what });
        }
        self.refused[full as usize].fetch_add(1, Ordering::Relaxed);
        Err(full)
    }

    fn count(&self, what: What, most: usize) -> bool {
        let counter = self.counter(what);
        if counter.fetch_add(1, Ordering::SeqCst) < most {
            return true;
        }
        counter.fetch_sub(1, Ordering::SeqCst);
        false
    }

    fn counter(&self, what: What) -> &AtomicUsize {
        match what {
            What::Request => &self.requests,
            What::Retry => &self.retries,
            What::Pending => &self.pending,
            What::Connection => &self.connections,
        }
    }

    pub(crate) fn under_way(&self) -> UnderWay {
        let refused = |full: Full| self.refused[full as usize].load(Ordering::Relaxed);
        UnderWay {
            requests: self.requests.load(Ordering::Relaxed),
            max_requests: self.limits.requests,
            pending: self.pending.load(Ordering::Relaxed),
            max_pending: self.limits.pending,
            connections: self.connections.load(Ordering::Relaxed),
            max_connections: self.limits.connections,
            retries: self.retries.load(Ordering::Relaxed),
            max_retries: self.max_retries(),
            refused_requests: refused(Full::Requests),
            refused_pending: refused(Full::Pending),
            refused_retries: refused(Full::Retries),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.breaker.counter(self.what).fetch_sub(1, Ordering::SeqCst);
        if matches!(self.what, What::Connection) && self.breaker.is_waited_for() {
            self.breaker.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Percent;

    #[test]
    fn places_are_taken_and_given_back() {
        let breaker = Breaker::new(&BreakerConfig { requests: 2, ..BreakerConfig::default() });
        let first = breaker.request().unwrap();
        let _second = breaker.request().unwrap();
        assert_eq!(breaker.request().unwrap_err(), Full::Requests);
        drop(first);
        assert!(breaker.request().is_ok());
        assert_eq!(breaker.under_way().refused_requests, 1);
    }

    #[test]
    fn retries_are_few_beside_the_requests() {
        let breaker = Breaker::new(&BreakerConfig {
            retry_percent: Percent::of_hundred(20),
            min_retries: 1,
            ..BreakerConfig::default()
        });
        let retries = |requests: usize| {
            let _requests: Vec<_> = (0..requests).map(|_| breaker.request().unwrap()).collect();
            let mut places = Vec::new();
            while let Ok(place) = breaker.retry() {
                places.push(place);
            }
            places.len()
        };
        assert_eq!([0, 4, 10, 100].map(retries), [1, 1, 2, 20]);
    }

    #[test]
    fn who_has_no_connection_may_open_one() {
        let breaker = Breaker::new(&BreakerConfig { connections: 1, ..BreakerConfig::default() });
        let _first = breaker.connection(true).unwrap();
        assert!(breaker.connection(false).is_none());
        assert!(breaker.connection(true).is_some());
    }
}
