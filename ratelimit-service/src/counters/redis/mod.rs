//! Counters in Redis, for several replicas of this service.
//!
//! One script counts all limits of a call by the server's clock, so that replicas agree on windows whatever their own
//! clocks say. Calls that wait at the same time are gathered into one command ([`gather`]), so that under load the
//! cost of talking to Redis is shared. A counter expires with its window, so it needs no window in its name.
//!
//! ```text
//!            .--- connect, load the scripts ---> linked --- broken, or silent thrice ---.
//!  unlinked -'      (again and again, with growing pauses)                               '-> unlinked
//! ```
//!
//! While unlinked a call fails at once instead of waiting for a timeout; the task that owns the link
//! finds out by itself when the server is back. Of a Cluster a part can be away: calls of other parts go on ([`lane`]).

mod connect;
mod flight;
mod gather;
mod lane;
mod packed;
mod script;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Cmd, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tollgate_runtime::tasks::Tasks;

pub use connect::{ConnectError, Target, TlsFiles, Topology};

use super::{Batch, StoreError};
use crate::window::Tally;
use connect::{Connection, whole};
use lane::Lanes;
use script::Scripts;

/// Flights in a row without an answer after which the connection is given up, or, in a Cluster, the lane rests.
const SILENCES: u32 = 3;
/// The pause after a failed connection, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Counters in a Redis server.
#[derive(Debug, Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
    /// Gone with the last handle, which ends the tasks that send.
    lanes: Arc<Lanes>,
}

#[derive(Debug)]
struct Inner {
    target: Target,
    prefix: Box<str>,
    timeout: Duration,
    scripts: Scripts,
    link: ArcSwapOption<Link>,
    linked: Notify,
}

/// One connection, for as long as it is good.
#[derive(Debug)]
struct Link {
    connection: Connection,
    silences: AtomicU32,
    broken: Notify,
}

impl RedisStore {
    /// A store whose keys begin with `prefix`, and the tasks that connect it and send its calls. It begins unlinked.
    pub fn start(target: Target, prefix: &str, timeout: Duration, tasks: &Tasks) -> Self {
        let in_cluster = target.topology == Topology::Cluster;
        let inner = Arc::new(Inner {
            target,
            prefix: prefix.into(),
            timeout,
            scripts: Scripts::new(),
            link: ArcSwapOption::empty(),
            linked: Notify::new(),
        });
        let (linker, stopping) = (Arc::clone(&inner), tasks.stopping());
        tasks.spawn("redis-link", async move {
            tokio::select! {
                () = stopping.wait() => {}
                () = linker.keep_linked() => {}
            }
            // What is in flight when the service stops may still be counted: the link stays.
        });
        let lanes = Arc::new(Lanes::new(&inner, in_cluster, tasks));
        Self { inner, lanes }
    }

    /// Returns once there is a link.
    pub async fn linked(&self) {
        loop {
            let linked = self.inner.linked.notified();
            if self.is_linked() {
                return;
            }
            linked.await;
        }
    }

    /// Whether there is a link now.
    pub fn is_linked(&self) -> bool {
        self.inner.link.load().is_some()
    }

    /// Where it connects to, without user and password.
    pub fn shown_url(&self) -> String {
        self.inner.target.url.redacted_url()
    }

    /// As [`super::CounterStore::count`]; the batch is shared with the task that sends it.
    pub async fn count(&self, batch: &Arc<Batch>, tallies: &mut Vec<Tally>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        if !self.is_linked() {
            return Err(StoreError::Unlinked);
        }
        let seat = self.lanes.seat(batch)?;
        poll_fn(|context| seat.poll_tallies(context, tallies)).await
    }

    /// Sends one command of another kind than counting.
    pub async fn command(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        let Some(link) = self.inner.link.load_full() else { return Err(StoreError::Unlinked) };
        let answer = link.connection.clone().send(cmd).await;
        link.judge(&answer);
        Ok(answer?)
    }

    /// The name a counter has there.
    pub fn stored_key(&self, key: &[u8]) -> Vec<u8> {
        [self.inner.prefix.as_bytes(), key].concat()
    }
}

impl Inner {
    async fn keep_linked(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.connect().await {
                Ok(link) => {
                    pause = FIRST_PAUSE;
                    let link = Arc::new(link);
                    self.link.store(Some(Arc::clone(&link)));
                    self.linked.notify_waiters();
                    link.broken.notified().await;
                    // The rest of a Cluster goes on with it, until there is a better one.
                    if !link.connection.is_cluster() {
                        self.link.store(None);
                    }
                }
                Err(error) => {
                    let url = self.target.url.redacted_url();
                    tracing::debug!(
                        url,
                        error = &error as &dyn std::error::Error,
                        "no connection to redis yet"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Link, ConnectError> {
        let mut connection = self.target.connect(self.timeout).await?;
        match &mut connection {
            Connection::One(one) => {
                for script in self.scripts.all() {
                    script.load_async(one).await?;
                }
            }
            // Its nodes learn the scripts when they first meet them. Any of it is better than nothing, and all of it
            // than what there is.
            Connection::Cluster(cluster) => {
                if self.link.load().is_some() {
                    whole(cluster).await?;
                }
            }
        }
        Ok(Link { connection, silences: AtomicU32::new(0), broken: Notify::new() })
    }
}

impl Link {
    /// Gives the connection up when it is broken, has been silent too often, or leads to a server that may not write.
    fn judge<T>(&self, answer: &Result<T, RedisError>) {
        match Sign::of(answer) {
            Sign::Alive => {
                // A store for every call would move the cache line between cores.
                if self.silences.load(Ordering::Relaxed) != 0 {
                    self.silences.store(0, Ordering::Relaxed);
                }
            }
            Sign::Silent => {
                if self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCES {
                    self.broken.notify_one();
                }
            }
            Sign::Broken => self.broken.notify_one(),
        }
    }
}

/// What an answer says about the way it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// There was one, if only an error.
    Alive,
    Silent,
    /// The connection is gone, or leads to a server that may not write.
    Broken,
}

impl Sign {
    fn of<T>(answer: &Result<T, RedisError>) -> Self {
        match answer {
            Err(error) if error.is_timeout() => Self::Silent,
            Err(error)
                if error.is_unrecoverable_error()
                    || error.is_io_error()
                    || error.kind() == redis::ErrorKind::Server(ServerErrorKind::ReadOnly) =>
            {
                Self::Broken
            }
            _ => Self::Alive,
        }
    }
}
