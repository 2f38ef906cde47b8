//! Addresses for servers of other processes, which must be told theirs before they start.
//!
//! Whoever can bind port 0 and be asked for its address does that. The numbers that the system gives for it are the ones
//! that outgoing connections get, too: once let go, one of them may be somebody's by the time a server wants it. The
//! numbers here are below those (Linux begins at 32,768), so only another test can be given the same one; each process
//! begins somewhere else, and goes on from there.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

const FIRST: u64 = 10_000;
const COUNT: u64 = 20_000;

/// What this process tries next, counted from anywhere.
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(FIRST) >> 1));

/// An address of loopback where nobody listens.
///
/// # Panics
/// Where all ports are taken.
pub fn free_address() -> SocketAddr {
    let candidates = (0..COUNT).map(|_| {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("all of them are ports")))
    });
    first_free(candidates).expect("loopback has a free port")
}

/// As many as are asked for, all different.
///
/// # Panics
/// As [`free_address`].
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_| free_address())
}

fn first_free(mut candidates: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    candidates.find(|address| TcpListener::bind(address).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_differ_and_are_of_no_outgoing_connection() {
        let addresses: HashSet<_> = free_addresses::<100>().into_iter().collect();
        assert_eq!(addresses.len(), 100);
        assert!(addresses.iter().all(|address| (10_000..30_000).contains(&address.port())), "{addresses:?}");
    }

    #[test]
    fn where_somebody_listens_is_passed_over() {
        let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let (taken, other) = (somebody.local_addr().expect("it is bound"), free_address());
        assert_eq!(first_free([taken, other].into_iter()), Some(other));
        assert_eq!(first_free([taken].into_iter()), None);
    }
}
