//! How many requests one client address may make: a flood of bad tokens must cost little.
//!
//! A token bucket per address (IPv6: per /64), kept as one number: the time at which the bucket is full again
//! (the generic cell rate algorithm). Addresses are bounded: when a shard is full those whose bucket has filled
//! up again are forgotten, and if none has, newcomers share one bucket.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

const SHARDS: usize = 16;
/// Addresses remembered at once, per shard: about 3 MB in all.
const ADDRESSES_PER_SHARD: usize = 4096;
const _: () = assert!(SHARDS.is_power_of_two());

/// A bucket per address, all alike.
#[derive(Debug)]
pub struct AddressLimit {
    rate: Rate,
    started: Instant,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    full_at: FxHashMap<IpAddr, u64>,
    /// The bucket of those for whom there is no room.
    crowd_full_at: u64,
}

/// So many a second, and as many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    per_second: u64,
}

impl Rate {
    /// Takes one from a bucket that is full at `full_at`: when it is full then, or how long there is none. Times
    /// are in nanoseconds.
    fn take(self, full_at: u64, now: u64) -> Result<u64, u64> {
        let one = 1_000_000_000 / self.per_second;
        let then = full_at.max(now) + one;
        let capacity = one * self.per_second;
        let ahead = then - now;
        if ahead > capacity { Err(ahead - capacity) } else { Ok(then) }
    }
}

impl AddressLimit {
    /// `per_second` is at least 1.
    pub fn new(per_second: u32) -> Self {
        let rate = Rate { per_second: u64::from(per_second.max(1)) };
        Self { rate, started: Instant::now(), shards: Default::default() }
    }

    /// Counts one request; an error says how long there is no room.
    pub fn take(&self, client: IpAddr) -> Result<(), Duration> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(client, now)
    }

    fn take_at(&self, client: IpAddr, now: u64) -> Result<(), Duration> {
        let key = subnet(client);
        let mut shard = self.shards[shard_of(key)].lock();
        if shard.full_at.len() >= ADDRESSES_PER_SHARD && !shard.full_at.contains_key(&key) {
            shard.full_at.retain(|_, full_at| *full_at > now);
        }
        let has_room = shard.full_at.len() < ADDRESSES_PER_SHARD || shard.full_at.contains_key(&key);
        let full_at = if has_room { shard.full_at.entry(key).or_default() } else { &mut shard.crowd_full_at };
        *full_at = self.rate.take(*full_at, now).map_err(Duration::from_nanos)?;
        Ok(())
    }
}

/// One customer of an access provider usually has a whole /64.
fn subnet(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(prefix).into()
        }
    }
}

fn shard_of(address: IpAddr) -> usize {
    use std::hash::BuildHasher as _;
    let hash = rustc_hash::FxBuildHasher.hash_one(address);
    usize::try_from(hash >> 32).unwrap_or_default() % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_empties_and_fills() {
        let limit = AddressLimit::new(10);
        let client = "192.0.2.1".parse().unwrap();
        let passed = (0..30).filter(|_| limit.take_at(client, SECOND).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.take_at(client, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(limit.take_at(client, SECOND + SECOND / 10), Ok(()));
        assert_eq!(limit.take_at("192.0.2.2".parse().unwrap(), SECOND), Ok(()));
    }

    #[test]
    fn an_ipv6_client_is_its_subnet() {
        let limit = AddressLimit::new(1);
        assert!(limit.take_at("2001:db8::1".parse().unwrap(), 0).is_ok());
        assert!(limit.take_at("2001:db8::2".parse().unwrap(), 0).is_err());
        assert!(limit.take_at("2001:db8:0:1::1".parse().unwrap(), 0).is_ok());
        assert!(limit.take_at("::ffff:192.0.2.1".parse().unwrap(), 0).is_ok());
        assert!(limit.take_at("192.0.2.1".parse().unwrap(), 0).is_err());
    }

    #[test]
    fn memory_is_bounded_and_newcomers_share_what_is_left() {
        let limit = AddressLimit::new(1);
        let addresses = u32::try_from(SHARDS * ADDRESSES_PER_SHARD * 2).unwrap();
        let passed =
            (0..addresses).filter(|n| limit.take_at(std::net::Ipv4Addr::from(*n).into(), 0).is_ok()).count();
        let remembered: usize = limit.shards.iter().map(|shard| shard.lock().full_at.len()).sum();
        assert!(remembered <= SHARDS * ADDRESSES_PER_SHARD);
        assert!(passed <= remembered + SHARDS);
        // Once their buckets are full again the old ones make room.
        assert!(limit.take_at("203.0.113.9".parse().unwrap(), 2 * SECOND).is_ok());
    }
}
