//! How many requests one client address may make: a flood of bad tokens must cost little.
//!
//! A token bucket per address (IPv6: per /64); see [`super::buckets`] for what bounds them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
