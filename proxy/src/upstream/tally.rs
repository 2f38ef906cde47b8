//! An endpoint's answers, counted where requests end: a few atomic numbers, nothing that waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use http::{HeaderMap, StatusCode};

use super::eject::Cause;
use crate::config::OutlierDetection;

/// How a request to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered, and not by a failure of the server.
    Good,
    /// 502, 503, 504: whoever answered could not.
    Gateway,
    /// Another 5xx.
    ServerError,
    /// No answer: refused, reset, timed out, not HTTP.
    LocalOrigin,
}

impl Outcome {
    /// By status; gRPC tells a failed call in its own header where it has no answer to send.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        match (Self::of_status(status), headers.get("grpc-status").map(http::HeaderValue::as_bytes)) {
            (Self::Good, Some(b"14")) => Self::Gateway,
            (Self::Good, Some(b"2" | b"13" | b"15")) => Self::ServerError,
            (outcome, _) => outcome,
        }
    }

    /// By status alone.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Self::Gateway,
            500..=599 => Self::ServerError,
            _ => Self::Good,
        }
    }
}

/// The numbers of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    row_5xx: AtomicU32,
    row_gateway: AtomicU32,
    row_local: AtomicU32,
    total: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    /// Counts one request; a cause when it completes a row that is too long. A row begins anew then.
    pub(crate) fn note(&self, outcome: Outcome, policy: &OutlierDetection) -> Option<Cause> {
        self.total.fetch_add(1, Relaxed);
        if outcome == Outcome::Good {
            for row in [&self.row_5xx, &self.row_gateway, &self.row_local] {
                // A line in the cache is shared by all cores as long as nobody writes to it.
                if row.load(Relaxed) != 0 {
                    row.store(0, Relaxed);
                }
            }
            return None;
        }
        self.failed.fetch_add(1, Relaxed);
        let longer = |row: &AtomicU32, most: u32, cause: fn(u32) -> Cause| {
            let length = row.fetch_add(1, Relaxed) + 1;
            (most > 0 && length >= most).then(|| {
                row.store(0, Relaxed);
                cause(length)
            })
        };
        match outcome {
            Outcome::Good => None,
            Outcome::LocalOrigin => {
                longer(&self.row_local, policy.consecutive_local_origin, Cause::ConsecutiveLocalOrigin)
            }
            Outcome::Gateway => {
                self.row_local.store(0, Relaxed);
                let gateway =
                    longer(&self.row_gateway, policy.consecutive_gateway, Cause::ConsecutiveGateway);
                gateway.or(longer(&self.row_5xx, policy.consecutive_5xx, Cause::Consecutive5xx))
            }
            Outcome::ServerError => {
                self.row_local.store(0, Relaxed);
                self.row_gateway.store(0, Relaxed);
                longer(&self.row_5xx, policy.consecutive_5xx, Cause::Consecutive5xx)
            }
        }
    }

    /// All answers and the failed ones since the last time.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.total.swap(0, Relaxed), self.failed.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        use Outcome::{Gateway, Good, LocalOrigin, ServerError};
        let policy = OutlierDetection {
            consecutive_5xx: 4,
            consecutive_gateway: 3,
            consecutive_local_origin: 2,
            ..OutlierDetection::default()
        };
        for (outcomes, expected) in [
            (vec![Good; 9], None),
            (vec![LocalOrigin, LocalOrigin], Some("consecutive_local_origin")),
            (vec![LocalOrigin, Good, LocalOrigin], None),
            (vec![LocalOrigin, ServerError, LocalOrigin], None),
            (vec![Gateway, Gateway, Gateway], Some("consecutive_gateway")),
            (vec![Gateway, Gateway, ServerError, ServerError], Some("consecutive_5xx")),
            (vec![ServerError, ServerError, ServerError, Good, ServerError], None),
        ] {
            let tally = Tally::default();
            let causes: Vec<_> = outcomes.iter().filter_map(|one| tally.note(*one, &policy)).collect();
            assert_eq!(causes.first().map(|cause| cause.as_str()), expected, "{outcomes:?}");
            assert_eq!(tally.take().0, outcomes.len() as u64);
        }
    }

    #[test]
    fn what_an_answer_counts_as() {
        for (status, grpc, expected) in [
            (200, None, Outcome::Good),
            (404, None, Outcome::Good),
            (500, None, Outcome::ServerError),
            (503, None, Outcome::Gateway),
            (200, Some("14"), Outcome::Gateway),
            (200, Some("13"), Outcome::ServerError),
            (200, Some("5"), Outcome::Good),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(grpc) = grpc {
                headers.insert("grpc-status", grpc.parse().unwrap());
            }
            assert_eq!(Outcome::of(StatusCode::from_u16(status).unwrap(), &headers), expected, "{status}");
        }
    }
}
