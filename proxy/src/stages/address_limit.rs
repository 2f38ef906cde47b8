//! How many requests one client address may make, and how many connections it may have: a flood of bad tokens must cost
//! little, and nobody may take all the room there is.
//!
//! A token bucket per address (IPv6: per /64); see [`super::buckets`] for what bounds them. Connections are counted as long
//! as they are open, so there are never more addresses than connections.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::buckets::{Buckets, Rate};

/// A bucket per address, all alike.
#[derive(Debug)]
pub struct AddressLimit(Buckets<IpAddr>);

impl AddressLimit {
    /// So many a second, and as many at once.
    pub fn new(per_second: u32) -> Self {
        Self(Buckets::new(Rate::new(per_second, Duration::from_secs(1), per_second)))
    }

    /// Counts one request; an error says how long there is no room.
    pub fn take(&self, client: IpAddr) -> Result<(), Duration> {
        self.0.take(subnet(client))
    }
}

/// Connections of each address.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    open: Mutex<FxHashMap<IpAddr, usize>>,
}

/// A connection of an address, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    of: IpAddr,
}

impl Addresses {
    /// A place for one more connection, if its address has fewer than `most`.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr, most: usize) -> Option<Place> {
        let of = subnet(client);
        let mut open = self.open.lock();
        if open.get(&of).is_some_and(|count| *count >= most) {
            return None;
        }
        *open.entry(of).or_default() += 1;
        Some(Place { addresses: Arc::clone(self), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock();
        if let Some(count) = open.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.of);
            }
        }
    }
}

/// One customer of an access provider usually has a whole /64.
pub(crate) fn subnet(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(prefix).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_an_address_are_given_back() {
        let addresses = Arc::<Addresses>::default();
        let enter = |address: &str| addresses.enter(address.parse().unwrap(), 2);
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none());
        let _other = enter("192.0.2.1").unwrap();
        drop(first);
        assert!(enter("2001:db8::3").is_some());
        drop((_second, _other));
        assert!(addresses.open.lock().is_empty());
    }

    #[test]
    fn an_ipv6_client_is_its_subnet() {
        for (address, expected) in [
            ("2001:db8::1", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(subnet(address.parse().unwrap()).to_string(), expected);
        }
    }
}
