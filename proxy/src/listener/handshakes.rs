//! Handshakes under way at a listener: so many at most. When there are more, whoever holds the most places loses the oldest
//! of them.
//!
//! A place costs a client a byte, so it must not be worth much: who takes many takes them from itself. With as many from each of
//! several clients the oldest of theirs goes first, and who shakes hands without delay is done before.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::stages::address_limit::subnet;

/// The handshakes of one listener.
#[derive(Debug)]
pub(super) struct Handshakes {
    most: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    begun: u64,
    /// By their order; whoever's sender is dropped gives way.
    places: FxHashMap<u64, oneshot::Sender<()>>,
    /// The same by where they come from.
    of: HashMap<IpAddr, BTreeSet<u64>>,
}

/// One of them. Its place is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place<'h> {
    handshakes: &'h Handshakes,
    client: IpAddr,
    number: u64,
    given_way: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(super) fn new(most: usize) -> Self {
        Self { most, under_way: Mutex::default() }
    }

    /// Begins one; if there are too many then, one of them ends.
    pub(super) fn begin(&self, client: IpAddr) -> Place<'_> {
        let client = subnet(client);
        let (place, given_way) = oneshot::channel();
        let mut under_way = self.under_way.lock();
        let number = under_way.begun;
        under_way.begun += 1;
        under_way.places.insert(number, place);
        under_way.of.entry(client).or_default().insert(number);
        if under_way.places.len() > self.most {
            under_way.one_gives_way();
        }
        Place { handshakes: self, client, number, given_way }
    }
}

impl UnderWay {
    fn one_gives_way(&mut self) {
        let oldest = |numbers: &BTreeSet<u64>| numbers.first().copied().unwrap_or(u64::MAX);
        let greediest =
            self.of.iter().max_by_key(|(_, numbers)| (numbers.len(), std::cmp::Reverse(oldest(numbers))));
        if let Some((&client, numbers)) = greediest {
            let number = oldest(numbers);
            self.ends(client, number);
        }
    }

    fn ends(&mut self, client: IpAddr, number: u64) {
        self.places.remove(&number);
        if let Some(numbers) = self.of.get_mut(&client) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of.remove(&client);
            }
        }
    }
}

impl Place<'_> {
    /// Returns when it has to give way.
    pub(super) async fn gives_way(&mut self) {
        let _ = (&mut self.given_way).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.under_way.lock().ends(self.client, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;

    use super::*;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    fn gone(places: &mut [Place<'_>]) -> Vec<u64> {
        let gone = |place: &mut Place<'_>| place.gives_way().now_or_never().map(|()| place.number);
        places.iter_mut().filter_map(gone).collect()
    }

    #[test]
    fn among_equals_the_oldest_gives_way_and_nobody_else_does() {
        let handshakes = Handshakes::new(3);
        let mut places: Vec<_> = (0..3).map(|number| handshakes.begin(client(number))).collect();
        assert_eq!(gone(&mut places), [0; 0]);
        places.push(handshakes.begin(client(3)));
        assert_eq!(gone(&mut places), [0]);
        // One that is done makes room.
        drop(places.remove(2));
        places.push(handshakes.begin(client(4)));
        assert_eq!(gone(&mut places[1..]), [0; 0]);
        drop(places);
        let under_way = handshakes.under_way.lock();
        assert!(under_way.places.is_empty() && under_way.of.is_empty());
    }

    #[test]
    fn who_takes_many_takes_them_from_itself() {
        let handshakes = Handshakes::new(10);
        let mut honest: Vec<_> = (0..3).map(|number| handshakes.begin(client(number))).collect();
        let mut greedy: Vec<_> = (0..1_000).map(|_| handshakes.begin(client(9))).collect();
        assert_eq!(gone(&mut honest), [0; 0]);
        assert_eq!(gone(&mut greedy).len(), 993);
    }
}
