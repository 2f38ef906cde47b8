//! Counters in Redis, for several replicas of this service.
//!
//! One script counts all descriptors of a call in one round trip, by the server's clock, so that
//! replicas agree on windows whatever their own clocks say. Calls share one connection, on which
//! they are pipelined. A counter expires with its window, so it needs no window in its name.
//!
//! ```text
//!            .--- connect, load the script ---> linked --- broken, or silent thrice ---.
//!  unlinked -'      (again and again, with growing pauses)                              '-> unlinked
//! ```
//!
//! While unlinked a call fails at once instead of waiting for a timeout; the task that owns the link
//! finds out by itself when the server is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Script, Value};
use tokio::sync::Notify;
use tollgate_runtime::config::Secret;
use tollgate_runtime::tasks::Tasks;

use super::{Batch, CounterStore, StoreError};
use crate::window::{Hits, Tally};

/// Answers that may be outstanding on the connection; further calls wait, within their timeout.
const MAX_IN_FLIGHT: usize = 8_192;
/// Calls in a row without an answer after which the connection is given up.
const SILENCES: u32 = 3;
/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed connection, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// For each key two arguments: the window's seconds and the hits (negative: give back, 0: look).
/// For each key two answers: the count, and the seconds until the window ends.
const SCRIPT: &str = r"
local now = tonumber(redis.call('TIME')[1])
local answer = {}
for i, key in ipairs(KEYS) do
  local window, hits = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local ends = now - now % window + window
  local count
  if hits > 0 then
    count = redis.call('INCRBY', key, ARGV[2 * i])
    if count == hits then redis.call('EXPIREAT', key, ends) end
  else
    count = tonumber(redis.call('GET', key) or '0')
    if hits < 0 and count > 0 then
      if count + hits > 0 then count = redis.call('INCRBY', key, ARGV[2 * i])
      else redis.call('DEL', key) count = 0 end
    end
  end
  answer[2 * i - 1] = count
  answer[2 * i] = ends - now
end
return answer
";

/// Counters in a Redis server.
#[derive(Debug, Clone)]
pub struct RedisStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    shown_url: String,
    timeout: Duration,
    script: Script,
    link: ArcSwapOption<Link>,
    linked: Notify,
}

/// One connection, for as long as it is good.
#[derive(Debug)]
struct Link {
    connection: MultiplexedConnection,
    silences: AtomicU32,
    broken: Notify,
}

impl RedisStore {
    /// A store that begins unlinked; [`Self::keep_linked`] connects it.
    pub fn new(url: &Secret, timeout: Duration) -> Result<Self, redis::RedisError> {
        Ok(Self(Arc::new(Inner {
            client: Client::open(url.expose())?,
            shown_url: url.redacted_url(),
            timeout,
            script: Script::new(SCRIPT),
            link: ArcSwapOption::empty(),
            linked: Notify::new(),
        })))
    }

    /// Starts the task that connects, and connects again whenever the link breaks.
    pub fn keep_linked(&self, tasks: &Tasks) {
        let (inner, stopping) = (Arc::clone(&self.0), tasks.stopping());
        tasks.spawn("redis-link", async move {
            tokio::select! {
                () = stopping.wait() => {}
                () = inner.keep_linked() => {}
            }
            // What is in flight when the service stops may still be counted: the link stays.
        });
    }

    /// Returns once there is a link.
    pub async fn linked(&self) {
        loop {
            let linked = self.0.linked.notified();
            if self.0.link.load().is_some() {
                return;
            }
            linked.await;
        }
    }

    /// Where it connects to, without user and password.
    pub fn shown_url(&self) -> &str {
        &self.0.shown_url
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
                    self.link.store(None);
                }
                Err(error) => {
                    tracing::debug!(url = self.shown_url, %error, "no connection to redis yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Link, redis::RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT))
            .set_concurrency_limit(MAX_IN_FLIGHT);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.script.load_async(&mut connection).await?;
        connection.set_response_timeout(self.timeout);
        Ok(Link { connection, silences: AtomicU32::new(0), broken: Notify::new() })
    }

    async fn ask(&self, link: &Link, batch: &Batch) -> Result<Value, redis::RedisError> {
        let mut connection = link.connection.clone();
        let by_hash = invocation("EVALSHA", self.script.get_hash(), batch);
        let answer = connection.send_packed_command(&by_hash).await.and_then(Value::extract_error);
        match answer {
            // Somebody flushed the scripts; sending it whole also loads it again.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let whole = invocation("EVAL", SCRIPT, batch);
                connection.send_packed_command(&whole).await.and_then(Value::extract_error)
            }
            answer => answer,
        }
    }
}

impl Link {
    /// Gives the connection up when it is broken or has been silent too often.
    fn judge<T>(&self, answer: &Result<T, redis::RedisError>) {
        match answer {
            Ok(_) => {
                // A store for every call would move the cache line between cores.
                if self.silences.load(Ordering::Relaxed) != 0 {
                    self.silences.store(0, Ordering::Relaxed);
                }
            }
            Err(error) if error.is_timeout() => {
                if self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCES {
                    self.broken.notify_one();
                }
            }
            Err(error) if error.is_unrecoverable_error() || error.is_io_error() => self.broken.notify_one(),
            Err(_) => {}
        }
    }
}

fn invocation(command: &str, script: &str, batch: &Batch) -> Cmd {
    let mut cmd = Cmd::with_capacity(3 + 3 * batch.len(), 64 + 160 * batch.len());
    cmd.arg(command).arg(script).arg(batch.len());
    for (key, _) in batch.iter() {
        cmd.arg(key);
    }
    for (_, counting) in batch.iter() {
        cmd.arg(counting.window.seconds());
        match counting.hits {
            Hits::Add(hits) => cmd.arg(hits),
            Hits::Look => cmd.arg(0),
            // Hits are bounded far below where this could overflow.
            Hits::GiveBack(hits) => cmd.arg(-i64::try_from(hits).unwrap_or(i64::MAX)),
        };
    }
    cmd
}

impl CounterStore for RedisStore {
    async fn count(&self, batch: &Batch, _: u64, tallies: &mut Vec<Tally>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some(link) = self.0.link.load_full() else { return Err(StoreError::Unlinked) };
        let answer = self.0.ask(&link, batch).await;
        link.judge(&answer);
        match answer {
            Ok(value) => tallies_of(&value, batch.len(), tallies),
            Err(error) if error.is_timeout() => Err(StoreError::Timeout(self.0.timeout)),
            Err(error) => Err(error.into()),
        }
    }
}

fn tallies_of(answer: &Value, expected: usize, tallies: &mut Vec<Tally>) -> Result<(), StoreError> {
    let numbers = answer.as_sequence().unwrap_or_default();
    let mut pairs = numbers.chunks_exact(2);
    for pair in &mut pairs {
        if let [Value::Int(count), Value::Int(resets)] = pair {
            tallies.push(Tally {
                count: u64::try_from(*count).unwrap_or(0),
                resets_in_seconds: u64::try_from(*resets).unwrap_or(1).max(1),
            });
        }
    }
    if tallies.len() == expected {
        Ok(())
    } else {
        Err(StoreError::Answer { expected: 2 * expected, found: numbers.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_fit_is_an_error() {
        let table = [
            (Value::Array(vec![Value::Int(3), Value::Int(60)]), true),
            (Value::Array(vec![Value::Int(3)]), false),
            (Value::Array(vec![Value::Okay, Value::Int(60)]), false),
            (Value::Nil, false),
        ];
        for (answer, fits) in table {
            let mut tallies = Vec::new();
            assert_eq!(tallies_of(&answer, 1, &mut tallies).is_ok(), fits, "{answer:?}");
        }
    }
}
