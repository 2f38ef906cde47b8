//! Handshakes under way at a listener: so many at most. When there are more, whoever holds the most places loses the oldest
//! of them.
//!
//! A place costs a client a byte, so it must not be worth much: who takes many takes them from itself. With as many from each of
//! several clients the oldest of theirs goes first, and who shakes hands without delay is done before.
//!
//! A step of a handshake takes as long as several requests. So each waits for a turn, of which there is one at a time for each
//! thread, and a turn begins when whatever else was ready is done: requests on connections that stand do not wait behind
//! handshakes, however many begin at once. Newcomers have turns of their own, so that neither they nor who has begun can keep
//! the others waiting. A place is held from the first step on: until then it is us who are waited for.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;

use crate::overload::all_others;
use crate::stages::address_limit::subnet;

/// The handshakes of one listener.
#[derive(Debug)]
pub(super) struct Handshakes {
    most: usize,
    under_way: Mutex<UnderWay>,
}

/// Turns of the handshakes of all listeners.
#[derive(Debug)]
pub(crate) struct HandshakeTurns {
    newcomers: Semaphore,
    begun: Semaphore,
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
struct Place<'h> {
    handshakes: &'h Handshakes,
    client: IpAddr,
    number: u64,
    given_way: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(super) fn new(most: usize) -> Self {
        Self { most, under_way: Mutex::default() }
    }

    /// Does what `handshake` has to do, a step in each turn, for at most `patience` from its first; `None` when it has to give
    /// way, or has waited as long for that first turn.
    pub(super) async fn shake<T>(
        &self,
        turns: &HandshakeTurns,
        client: IpAddr,
        patience: Duration,
        handshake: impl Future<Output = io::Result<T>>,
    ) -> Option<io::Result<T>> {
        let turn = timeout(patience, turn_of(&turns.newcomers)).await.ok()?;
        let place = self.begin(client);
        let steps = place.steps(turns, turn, handshake);
        timeout(patience, steps).await.unwrap_or_else(|_| Some(Err(io::ErrorKind::TimedOut.into())))
    }

    /// Begins one; if there are too many then, one of them ends.
    fn begin(&self, client: IpAddr) -> Place<'_> {
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

impl HandshakeTurns {
    pub(crate) fn new(threads: usize) -> Self {
        Self { newcomers: Semaphore::new(threads), begun: Semaphore::new(threads) }
    }
}

/// Free again when it is dropped.
type Turn<'t> = Result<SemaphorePermit<'t>, AcquireError>;

/// Waits for a turn, and then until whatever is ready is done, and what has arrived meanwhile.
async fn turn_of(turns: &Semaphore) -> Turn<'_> {
    let turn = turns.acquire().await;
    all_others().await;
    turn
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
    async fn steps<T, F: Future<Output = T>>(
        mut self,
        turns: &HandshakeTurns,
        mut turn: Turn<'_>,
        handshake: F,
    ) -> Option<T> {
        let mut handshake = pin!(handshake);
        loop {
            let step = poll_fn(|context| Poll::Ready(handshake.as_mut().poll(context))).await;
            drop(turn);
            if let Poll::Ready(done) = step {
                return Some(done);
            }
            if self.gives_way_or_is_woken().await {
                return None;
            }
            turn = turn_of(&turns.begun).await;
        }
    }

    /// Whether it has to give way; otherwise what the handshake waits for has come, perhaps.
    async fn gives_way_or_is_woken(&mut self) -> bool {
        let mut waits = true;
        poll_fn(|context| match Pin::new(&mut self.given_way).poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if std::mem::take(&mut waits) => Poll::Pending,
            Poll::Pending => Poll::Ready(false),
        })
        .await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.under_way.lock().ends(self.client, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::sync::Notify;
    use tokio::task::JoinSet;

    use super::*;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    fn gone(places: &mut [Place<'_>]) -> Vec<u64> {
        let gone = |place: &mut Place<'_>| (&mut place.given_way).now_or_never().map(|_| place.number);
        places.iter_mut().filter_map(gone).collect()
    }

    /// Bytes that handshakes send, and what reads them.
    struct Clients {
        turns: HandshakeTurns,
        handshakes: Handshakes,
        done: Mutex<String>,
        sends: UnixStream,
        answered: Notify,
    }

    impl Clients {
        /// One handshake; with its step somebody asks something.
        async fn shakes(self: Arc<Self>) {
            let handshake = async {
                self.done.lock().push('h');
                (&self.sends).write_all(b"?").unwrap();
                self.answered.notified().await;
                Ok(())
            };
            let patience = Duration::from_secs(30);
            self.handshakes.shake(&self.turns, client(1), patience, handshake).await.unwrap().unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_has_arrived_goes_before_the_next_step_of_a_handshake() {
        let (sends, asked) = UnixStream::pair().unwrap();
        asked.set_nonblocking(true).unwrap();
        let (turns, handshakes) = (HandshakeTurns::new(1), Handshakes::new(10));
        let answered = Notify::new();
        let clients = Arc::new(Clients { turns, handshakes, done: Mutex::default(), sends, answered });
        let (here, asked) = (Arc::clone(&clients), tokio::net::UnixStream::from_std(asked).unwrap());
        // From a task on, all is one thread's.
        let mut all = JoinSet::new();
        all.spawn(async move {
            let (mut shaking, mut serving) = (JoinSet::new(), JoinSet::new());
            for _ in 0..6 {
                shaking.spawn(Arc::clone(&here).shakes());
            }
            let served = Arc::clone(&here);
            serving.spawn(async move {
                let mut byte = [0];
                loop {
                    asked.readable().await.unwrap();
                    if asked.try_read(&mut byte).is_ok() {
                        served.done.lock().push('r');
                        served.answered.notify_waiters();
                    }
                }
            });
            shaking.join_all().await;
        });
        all.join_all().await;
        let done = clients.done.lock();
        assert!(!done.contains("hh") && done.matches('h').count() == 6, "{done}");
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
