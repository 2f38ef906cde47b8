//! Calls that wait at the same time go to Redis together.
//!
//! ```text
//! calls --bounded queue--> gathered: all that wait, up to MAX_CALLS --one command a script--> Redis
//!                             ^------ while MAX_FLIGHTS are on their way, calls pile up ------'
//! ```
//!
//! With little to do a call goes out alone and at once; with much to do the batches grow by themselves, and what a
//! system call, a wake-up and a script's start cost is shared. In a Cluster one command must stay on one node, so
//! calls are gathered by domain, whose counters share a hash tag.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::ServerErrorKind;
use tokio::sync::{mpsc, oneshot};

use super::script::{self, By, Kind};
use super::{Inner, Link};
use crate::counters::key::tag;
use crate::counters::{Batch, StoreError};
use crate::window::Tally;

/// Calls that may wait to be sent; further ones wait for a place, within their timeout.
pub(super) const MAX_WAITING: usize = 8_192;
/// Calls gathered at a time.
const MAX_CALLS: usize = 256;
/// Counters in one command, where it has several calls: Redis is busy with it for about a millisecond.
const MAX_COUNTERS: usize = 1_024;
/// Commands on their way.
const MAX_FLIGHTS: usize = 4;

/// One call, and where its tallies go.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Arc<Batch>,
    pub(super) answer: oneshot::Sender<Result<Vec<Tally>, StoreError>>,
}

/// Sends what waits, until nobody can call any more.
pub(super) async fn run(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Job>) {
    let mut flights = FuturesUnordered::new();
    let mut gathered = Vec::with_capacity(MAX_CALLS);
    loop {
        tokio::select! {
            biased;
            Some(()) = flights.next(), if !flights.is_empty() => {}
            count = waiting.recv_many(&mut gathered, MAX_CALLS), if flights.len() < MAX_FLIGHTS => {
                if count == 0 {
                    break;
                }
                // Whoever gave up waiting must not be counted: it was answered by other means.
                gathered.retain(|job: &Job| !job.answer.is_closed());
                for command in sorted(&mut gathered, inner.link.load_full()) {
                    flights.push(fly(Arc::clone(&inner), command));
                }
            }
        }
    }
    while flights.next().await.is_some() {}
}

/// Calls that go out as one command.
struct Together {
    link: Arc<Link>,
    kind: Kind,
    jobs: Vec<Job>,
    counters: usize,
}

impl Together {
    fn has_room_for(&self, kind: Kind, batch: &Batch) -> bool {
        let one_node = || {
            !self.link.connection.is_cluster()
                || tag(self.jobs[0].batch.key_bytes()) == tag(batch.key_bytes())
        };
        self.kind == kind && self.counters + batch.len() <= MAX_COUNTERS && one_node()
    }
}

/// Cuts what was gathered into commands. Without a link there are none: the jobs are dropped, which tells the callers.
fn sorted(gathered: &mut Vec<Job>, link: Option<Arc<Link>>) -> Vec<Together> {
    let Some(link) = link else {
        gathered.clear();
        return Vec::new();
    };
    let mut commands: Vec<Together> = Vec::new();
    for job in gathered.drain(..) {
        let (kind, counters) = (Kind::of(&job.batch), job.batch.len());
        match commands.iter_mut().rev().find(|command| command.has_room_for(kind, &job.batch)) {
            Some(command) => {
                command.counters += counters;
                command.jobs.push(job);
            }
            None => commands.push(Together { link: Arc::clone(&link), kind, jobs: vec![job], counters }),
        }
    }
    commands
}

async fn fly(inner: Arc<Inner>, Together { link, kind, jobs, .. }: Together) {
    let batches = || jobs.iter().map(|job| &*job.batch);
    let prefix = inner.prefix.as_bytes();
    let mut connection = link.connection.clone();
    let mut answer = connection.send(&inner.scripts.command(kind, By::Hash, prefix, batches())).await;
    if let Err(error) = &answer
        && error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
    {
        answer = connection.send(&inner.scripts.command(kind, By::Text, prefix, batches())).await;
    }
    link.judge(&answer);
    let tallies = match answer {
        Ok(value) => script::tallies(&value, kind, batches()),
        Err(error) if error.is_timeout() => Err(StoreError::Timeout(inner.timeout)),
        Err(error) => Err(error.into()),
    };
    // A caller that is gone has given up waiting.
    match tallies {
        Ok(tallies) => {
            jobs.into_iter().zip(tallies).for_each(|(job, tallies)| drop(job.answer.send(Ok(tallies))))
        }
        Err(error) => jobs.into_iter().for_each(|job| drop(job.answer.send(Err(error.clone())))),
    }
}
