//! Requests as they arrive.
//!
//! Each subscriber has a bounded queue. One that reads too slowly misses rows, is told how many, and slows nobody down.
//! More than [`MAX_ROWS_A_SECOND`] matching rows are thinned evenly, and the share shown is said.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, Interval};
use utoipa::IntoParams;

use super::ApiState;
use super::problem::{ApiError, Params, Problem};
use super::rows;
use super::types::{LiveStatus, RequestRow};
use crate::query::{Filter, Loaded, Range, select};
use crate::store::{Part, three_digits};

/// Rows a person can still make sense of.
const MAX_ROWS_A_SECOND: usize = 200;
/// Rows made and not yet sent.
const MAX_PENDING: usize = 2 * MAX_ROWS_A_SECOND;
/// Live tails at once.
const MAX_TAILS: usize = 32;

/// The filter of a live tail.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LiveQuery {
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
}

/// Requests as they arrive, as server-sent events: `row` carries a `RequestRow`, `status` a `LiveStatus`.
#[utoipa::path(get, path = "/live/requests", tag = "live", params(LiveQuery), responses(
    (status = 200, content((RequestRow = "text/event-stream"), (LiveStatus = "text/event-stream;event=status"))),
    (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn requests(
    State(state): State<ApiState>,
    Params(query): Params<LiveQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let filter = Filter::parse(&query.q)?;
    let permit = Arc::clone(&state.tails)
        .try_acquire_owned()
        .map_err(|_| ApiError::Busy(format!("{MAX_TAILS} live tails are open already")))?;
    let mut tick = tokio::time::interval_at(Instant::now() + SECOND, SECOND);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let tail = Tail {
        parts: state.store.subscribe(),
        filter,
        pending: VecDeque::new(),
        tick,
        matched: 0,
        shown: 0,
        dropped: 0,
        stopping: state.stopping.clone(),
        _permit: permit,
    };
    // The first event goes out at once, so that the page knows the tail is open.
    let events = stream::unfold((tail, true), |(mut tail, first)| async move {
        let event = if first { tail.status() } else { tail.next().await? };
        Some((Ok(event), (tail, false)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

const SECOND: Duration = Duration::from_secs(1);

/// Permits for live tails.
pub(super) fn permits() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(MAX_TAILS))
}

struct Tail {
    parts: Receiver<Arc<Part>>,
    filter: Filter,
    pending: VecDeque<RequestRow>,
    tick: Interval,
    /// Matching and shown rows of this second.
    matched: u64,
    shown: u64,
    /// Rows missed since the start.
    dropped: u64,
    stopping: tollgate_runtime::tasks::Stopping,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Tail {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(row) = self.pending.pop_front() {
                return Event::default().event("row").json_data(row).ok();
            }
            tokio::select! {
                _ = self.tick.tick() => return Some(self.status()),
                received = self.parts.recv() => match received {
                    Ok(part) => self.take(part),
                    // The count is of batches; each held at least one record.
                    Err(RecvError::Lagged(batches)) => self.dropped += batches,
                    Err(RecvError::Closed) => return None,
                },
                () = self.stopping.cancelled() => return None,
            }
        }
    }

    fn take(&mut self, part: Arc<Part>) {
        let loaded = Loaded::Open(part);
        let selected = select(&loaded, &self.filter, Range { from: i64::MIN, to: i64::MAX });
        let rows: Vec<usize> = (0..selected.len()).filter(|row| selected[*row]).collect();
        self.matched += rows.len() as u64;
        let left = MAX_ROWS_A_SECOND.saturating_sub(usize::try_from(self.shown).unwrap_or(usize::MAX));
        let every = rows.len().div_ceil(left.max(1)).max(1);
        if left == 0 {
            return;
        }
        for row in rows.into_iter().step_by(every) {
            if self.pending.len() >= MAX_PENDING {
                self.dropped += 1;
                continue;
            }
            self.shown += 1;
            self.pending.push_back(rows::row(&loaded, row));
        }
    }

    fn status(&mut self) -> Event {
        #[expect(clippy::cast_precision_loss, reason = "a rate to three digits")]
        let per_second = three_digits(self.matched as f64);
        let shown_1_in = if self.shown == 0 { 1 } else { self.matched.div_ceil(self.shown) };
        let status = LiveStatus { per_second, shown_1_in, dropped: self.dropped };
        (self.matched, self.shown) = (0, 0);
        Event::default().event("status").json_data(status).unwrap_or_default()
    }
}
