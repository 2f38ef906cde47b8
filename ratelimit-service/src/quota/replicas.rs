//! One limit divided among replicas of this service, each of which divides its part among its own streams.
//!
//! Every second a replica tells Redis what it uses and wants of each limit and is told its part: max-min fair by what
//! all of them want, and never more than what the others do not claim at that moment. A part that shrinks is claimed
//! in full until the streams it is taken from were told, so that no unit is ever in two hands. Who is silent for as
//! long as an assignment lives has no claim any more, and neither have its streams.
//!
//! While Redis is away each replica keeps its part for that long, and after it divides an equal part of the limit, by
//! the replicas it last knew of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Script, Value};
use tokio::time::Instant;
use tollgate_runtime::Service;

use super::Hub;
use super::hub::Claim;
use crate::counters::{Counters, RedisStore, StoreError};

/// How often parts are settled; sooner when somebody waits.
const EVERY: Duration = Duration::from_secs(1);
/// Limits asked about at the same time.
const AT_ONCE: usize = 64;

/// A hash of claims: replica -> "claim wanted expires_ms". Answers this replica's part, and 1 where nobody claimed
/// anything before, so that the whole burst is still there.
const SCRIPT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, held, wanted, total, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local claims, wants, all = 0, { { me = true, wanted = math.min(wanted, total) } }, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local claim, other, expires = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if not claim or tonumber(expires) <= now then redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= me then
    claims = claims + tonumber(claim)
    wants[#wants + 1] = { wanted = math.min(tonumber(other), total) }
  end
end
table.sort(wants, function(a, b) return a.wanted < b.wanted end)
local left, fair = total, 0
for i, one in ipairs(wants) do
  local share = math.min(one.wanted, math.floor(left / (#wants - i + 1)))
  left = left - share
  if one.me then fair = share end
end
fair = fair + math.floor(left / #wants)
local part = math.max(math.min(fair, total - claims), 0)
redis.call('HSET', KEYS[1], me, string.format('%d %d %d', math.max(part, held), math.min(wanted, total), now + ttl))
redis.call('PEXPIRE', KEYS[1], ttl)
return { part, #all == 0 and 1 or 0 }
";

/// Shares the hub's limits with other replicas until the service stops.
pub fn keep_shared(service: &Service, hub: &Hub, counters: &Arc<Counters>, replica: &str) {
    let Some(redis) = counters.redis().cloned() else { return };
    let mut sharing = Sharing {
        hub: hub.clone(),
        counters: Arc::clone(counters),
        redis,
        replica: replica.to_owned(),
        script: Script::new(SCRIPT),
        answered: HashMap::new(),
    };
    let stopping = service.tasks().stopping();
    service.tasks().spawn_essential("quota-share", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = sharing.run() => {}
        }
        sharing.release().await;
    });
}

struct Sharing {
    hub: Hub,
    counters: Arc<Counters>,
    redis: RedisStore,
    replica: String,
    script: Script,
    /// When Redis last answered about a limit.
    answered: HashMap<Arc<[u8]>, Instant>,
}

impl Sharing {
    async fn run(&mut self) {
        loop {
            self.settle().await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.hub.unshared() => {}
            }
        }
    }

    async fn settle(&mut self) {
        let claims = self.hub.claims();
        let mut parts = Vec::with_capacity(claims.len());
        for some in claims.chunks(AT_ONCE) {
            parts.extend(join_all(some.iter().map(|claim| self.ask(claim))).await);
        }
        let now = Instant::now();
        for (claim, part) in claims.iter().zip(parts) {
            match part {
                Ok((part, is_fresh)) => {
                    self.answered.insert(Arc::clone(&claim.key), now);
                    self.hub.share(&claim.key, part, is_fresh);
                }
                Err(error) => {
                    let since = self.answered.get(&claim.key);
                    if since.is_none_or(|since| now - *since > self.hub.ttl()) {
                        tracing::debug!(%error, "a limit is divided without the other replicas");
                        self.hub.share(&claim.key, claim.total / self.counters.replicas(), false);
                    }
                }
            }
        }
        let known: std::collections::HashSet<_> = claims.iter().map(|claim| &claim.key).collect();
        self.answered.retain(|key, _| known.contains(key));
    }

    /// What a replica that stops gives back, others may use at once.
    async fn release(&self) {
        for key in self.answered.keys() {
            let mut delete = redis::cmd("HDEL");
            delete.arg(self.redis.stored_key(key)).arg(&self.replica);
            if self.redis.command(&delete).await.is_err() {
                // It expires by itself.
                return;
            }
        }
    }

    async fn ask(&self, claim: &Claim) -> Result<(u32, bool), StoreError> {
        let ttl_ms = u64::try_from(self.hub.ttl().as_millis()).unwrap_or(u64::MAX);
        let command = |by: &str, script: &str| {
            let mut cmd = redis::cmd(by);
            cmd.arg(script).arg(1).arg(self.redis.stored_key(&claim.key));
            cmd.arg(&self.replica).arg(claim.held).arg(claim.wanted).arg(claim.total).arg(ttl_ms);
            cmd
        };
        let answer = match self.redis.command(&command("EVALSHA", self.script.get_hash())).await {
            Err(StoreError::Redis(error)) if error.code() == Some("NOSCRIPT") => {
                self.redis.command(&command("EVAL", SCRIPT)).await?
            }
            answer => answer?,
        };
        match answer.as_sequence() {
            Some([Value::Int(part), Value::Int(fresh)]) => {
                Ok((u32::try_from(*part).unwrap_or(0), *fresh == 1))
            }
            other => Err(StoreError::Answer { expected: 2, found: other.map_or(0, <[Value]>::len) }),
        }
    }
}
