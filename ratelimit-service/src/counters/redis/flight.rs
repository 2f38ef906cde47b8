//! Calls that go to Redis as one command.
//!
//! ```text
//! boarding --command()--> on its way --land()--> landed
//!     \---------------------------land()-----------^       (given up, or there was no link)
//! ```
//!
//! A call has a seat and waits there. It has no task, timer, channel or answer of its own: what Redis says is kept once,
//! and each call reads its part of it. Whoever leaves its seat before the command is made is not counted.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;
use tokio::time::Instant;

use super::script::{Answer, By, Kind, Scripts};
use crate::counters::{Batch, StoreError};
use crate::window::Tally;

/// Calls of one flight.
const MAX_CALLS: usize = 256;
/// Counters of one that has several calls: Redis is busy with it for about a millisecond.
const MAX_COUNTERS: usize = 1_024;

/// Calls that go together.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) kind: Kind,
    cabin: Mutex<Cabin>,
}

#[derive(Debug)]
struct Cabin {
    seats: Vec<Place>,
    counters: usize,
    /// No call came after this; none while more may come.
    closed: Option<Instant>,
    answer: Option<Result<Answer, StoreError>>,
}

#[derive(Debug)]
struct Place {
    /// None when the call has left.
    batch: Option<Arc<Batch>>,
    /// The first of its counters among those of the command.
    first: usize,
    waker: Option<Waker>,
}

/// A call's place in a flight, for as long as it waits for its answer.
#[derive(Debug)]
pub(super) struct Seat {
    flight: Arc<Flight>,
    number: usize,
}

impl Flight {
    /// Of calls of this kind; nobody is in it yet.
    pub(super) fn new(kind: Kind) -> Self {
        let cabin = Cabin { seats: Vec::new(), counters: 0, closed: None, answer: None };
        Self { kind, cabin: Mutex::new(cabin) }
    }

    /// Seats a call, if there is room and it is of the same kind as the others.
    pub(super) fn seat(self: &Arc<Self>, batch: &Arc<Batch>) -> Option<Seat> {
        let mut cabin = self.cabin.lock();
        let Cabin { seats, counters, .. } = &mut *cabin;
        let has_room =
            seats.is_empty() || (seats.len() < MAX_CALLS && *counters + batch.len() <= MAX_COUNTERS);
        if self.kind != Kind::of(batch) || !has_room {
            return None;
        }
        *counters += batch.len();
        seats.push(Place { batch: Some(Arc::clone(batch)), first: 0, waker: None });
        Some(Seat { flight: Arc::clone(self), number: seats.len() - 1 })
    }

    /// It takes nobody from now on, or did not already.
    pub(super) fn close(&self, now: Instant) {
        self.cabin.lock().closed.get_or_insert(now);
    }

    /// Whether even its last call has waited so long.
    pub(super) fn is_overdue(&self, now: Instant, timeout: Duration) -> bool {
        self.cabin.lock().closed.is_some_and(|closed| now >= closed + timeout)
    }

    /// Calls that were seated.
    pub(super) fn calls(&self) -> usize {
        self.cabin.lock().seats.len()
    }

    /// The command for all who are still there, and how many counters it has; none where nobody is.
    pub(super) fn command(&self, by: By, scripts: &Scripts, prefix: &[u8]) -> Option<(Cmd, usize)> {
        let mut cabin = self.cabin.lock();
        let mut counters = 0;
        for place in &mut cabin.seats {
            place.first = counters;
            counters += place.batch.as_ref().map_or(0, |batch| batch.len());
        }
        let batches = cabin.seats.iter().filter_map(|place| place.batch.as_deref());
        (counters > 0).then(|| (scripts.command(self.kind, by, prefix, batches), counters))
    }

    /// Tells all calls how it ended; the first word holds.
    pub(super) fn land(&self, answer: Result<Answer, StoreError>) {
        let mut wakers: Vec<Waker> = {
            let mut cabin = self.cabin.lock();
            if cabin.answer.is_some() {
                return;
            }
            cabin.answer = Some(answer);
            cabin.seats.iter_mut().filter_map(|place| place.waker.take()).collect()
        };
        // Calls of one connection mostly sit together, and are woken together.
        wakers.dedup_by(|next, before| next.will_wake(before));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Seat {
    /// Waits for the flight to land, and adds the tallies of this call.
    pub(super) fn poll_tallies(
        &self,
        context: &mut Context<'_>,
        tallies: &mut Vec<Tally>,
    ) -> Poll<Result<(), StoreError>> {
        let mut cabin = self.flight.cabin.lock();
        let Cabin { seats, answer, .. } = &mut *cabin;
        let place = &mut seats[self.number];
        match answer {
            None => {
                match &mut place.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            Some(Ok(answer)) => {
                if let Some(batch) = &place.batch {
                    tallies.extend(answer.tallies(place.first, batch));
                }
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // What is dropped may be the last of much; not under the lock.
        let _left = {
            let mut cabin = self.flight.cabin.lock();
            let place = &mut cabin.seats[self.number];
            (place.batch.take(), place.waker.take())
        };
    }
}
