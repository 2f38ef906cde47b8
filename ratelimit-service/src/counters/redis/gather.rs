//! Calls that wait at the same time go to Redis together.
//!
//! ```text
//! call --takes a seat--> flight at the gate --leaves--> one command --> Redis --lands--> all its calls go on
//!                             ^------ while MAX_FLIGHTS are on their way, flights fill ------'
//! ```
//!
//! With little to do a call flies alone and at once; with much to do the flights grow by themselves, and what a system
//! call, a wake-up, a timer and a script's start cost is shared.
//!
//! A flight is given up as a whole when its last call has waited as long as a call may. So that its first call has not
//! come much earlier, it takes nobody any more after a tick, of which the timeout has [`TICKS`]. Nobody is given up early,
//! and nobody more than two ticks late.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::ServerErrorKind;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::flight::{Flight, Seat};
use super::lane::Lane;
use super::script::{Answer, By, Kind};
use super::{Inner, Link};
use crate::counters::{Batch, StoreError};

/// Calls that may wait to be sent in a lane, several times what Redis counts within the usual timeout; further ones are
/// refused.
const MAX_WAITING: usize = 32_768;
/// Commands of a lane on their way.
const MAX_FLIGHTS: usize = 4;
/// The youngest flights at the gate; a call that fits none of these gets a new one.
const NEAR: usize = 64;
/// Looks at the time within the timeout of a call.
const TICKS: u32 = 10;

/// Where flights fill that have not left.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    flights: VecDeque<Arc<Flight>>,
    /// Of these, so many take nobody any more.
    closed: usize,
    calls: usize,
}

impl Gate {
    /// Seats a call; `bell` tells the task that sends flights of the first one.
    pub(super) fn seat(&self, batch: &Arc<Batch>, bell: &mpsc::Sender<()>) -> Result<Seat, StoreError> {
        let mut waiting = self.0.lock();
        if waiting.calls >= MAX_WAITING {
            return Err(StoreError::Full);
        }
        waiting.calls += 1;
        let mut open = waiting.flights.range(waiting.closed..).rev().take(NEAR);
        if let Some(seat) = open.find_map(|flight| flight.seat(batch)) {
            return Ok(seat);
        }
        let flight = Arc::new(Flight::new(Kind::of(batch)));
        // The first call always has room.
        let seat = flight.seat(batch).ok_or(StoreError::Full);
        waiting.flights.push_back(flight);
        if waiting.flights.len() == 1 {
            // A bell that has been rung already is as good.
            let _ = bell.try_send(());
        }
        seat
    }

    fn is_empty(&self) -> bool {
        self.0.lock().flights.is_empty()
    }

    /// Those that leave when so many may.
    fn leaving(&self, room: usize) -> Vec<Arc<Flight>> {
        let mut waiting = self.0.lock();
        let count = room.min(waiting.flights.len());
        if count > waiting.closed {
            let now = Instant::now();
            waiting.flights.range(waiting.closed..count).for_each(|flight| flight.close(now));
        }
        waiting.take(count)
    }

    /// Closes what is open, and takes out those that are overdue.
    fn tick(&self, timeout: Duration) -> Vec<Arc<Flight>> {
        let mut waiting = self.0.lock();
        // Under the lock: nobody is seated in these after this moment.
        let now = Instant::now();
        waiting.flights.range(waiting.closed..).for_each(|flight| flight.close(now));
        waiting.closed = waiting.flights.len();
        let count = waiting.flights.iter().take_while(|flight| flight.is_overdue(now, timeout)).count();
        waiting.take(count)
    }
}

impl Waiting {
    fn take(&mut self, count: usize) -> Vec<Arc<Flight>> {
        let taken: Vec<_> = self.flights.drain(..count).collect();
        self.closed = self.closed.saturating_sub(count);
        self.calls -= taken.iter().map(|flight| flight.calls()).sum::<usize>();
        taken
    }
}

/// Sends what waits in a lane, until nobody can call any more.
pub(super) async fn run(inner: Arc<Inner>, lane: Arc<Lane>, mut bell: mpsc::Receiver<()>) {
    let tick = (inner.timeout / TICKS).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flying = FuturesUnordered::new();
    let mut away: Vec<Arc<Flight>> = Vec::with_capacity(MAX_FLIGHTS);
    loop {
        let is_idle = away.is_empty() && lane.gate.is_empty();
        tokio::select! {
            biased;
            Some(landed) = flying.next(), if !flying.is_empty() => {
                away.retain(|flight| !Arc::ptr_eq(flight, &landed));
            }
            _ = ticks.tick(), if !is_idle => {
                let late = lane.gate.tick(inner.timeout);
                let now = Instant::now();
                // One that is on its way goes on, unheard, so that it shows whether the server is silent.
                let overdue = away.iter().filter(|flight| flight.is_overdue(now, inner.timeout));
                for flight in late.iter().chain(overdue) {
                    flight.land(Err(StoreError::Timeout(inner.timeout)));
                }
            }
            rung = bell.recv() => match rung {
                // Whoever is ready now comes along.
                Some(()) => tokio::task::yield_now().await,
                None => break,
            },
        }
        for flight in lane.gate.leaving(MAX_FLIGHTS.saturating_sub(away.len())) {
            away.push(Arc::clone(&flight));
            flying.push(fly(Arc::clone(&inner), Arc::clone(&lane), flight));
        }
    }
    while flying.next().await.is_some() {}
}

async fn fly(inner: Arc<Inner>, lane: Arc<Lane>, flight: Arc<Flight>) -> Arc<Flight> {
    match inner.link.load_full() {
        Some(link) => {
            if let Some(answer) = ask(&inner, &lane, &link, &flight).await {
                flight.land(answer);
            }
        }
        None => flight.land(Err(StoreError::Unlinked)),
    }
    flight
}

/// What Redis says; nothing where nobody is left to ask.
async fn ask(inner: &Inner, lane: &Lane, link: &Link, flight: &Flight) -> Option<Result<Answer, StoreError>> {
    let prefix = inner.prefix.as_bytes();
    let mut connection = link.connection.clone();
    let (mut command, mut counters) = flight.command(By::Hash, &inner.scripts, prefix)?;
    let mut answer = connection.send(&command).await;
    if let Err(error) = &answer
        && error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
    {
        (command, counters) = flight.command(By::Text, &inner.scripts, prefix)?;
        answer = connection.send(&command).await;
    }
    lane.judge(link, &answer);
    Some(match answer {
        Ok(value) => Answer::read(&value, flight.kind, counters),
        Err(error) if error.is_timeout() => Err(StoreError::Timeout(inner.timeout)),
        Err(error) => Err(error.into()),
    })
}
