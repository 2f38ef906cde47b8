//! What can wait begins one by one, when whatever else was ready is done.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// Of so many who wait one follows while each thread goes round once.
const FOLLOW: usize = 8;

/// Whoever waits for a turn, in the order of their coming.
#[derive(Debug)]
pub(super) struct Turns {
    /// So many wait.
    pub(super) waiting: AtomicUsize,
    /// For each thread one of them at a time lets all others go first. More than these are there for those who need not.
    next: Semaphore,
    /// So many of the next need not.
    follow: AtomicUsize,
    threads: usize,
}

impl Turns {
    pub(super) fn new(threads: usize) -> Self {
        let (waiting, follow) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { waiting, next: Semaphore::new(threads), follow, threads }
    }

    /// Waits until those who came before have had their turns, and then for all others that are ready. Some of those who wait
    /// follow whoever has done so and do not, so that however long the others take nobody waits for them many times.
    ///
    /// The turn is what the task does until it waits again.
    pub(super) async fn take(&self) {
        let _waiting = Waiting::new(&self.waiting);
        let Ok(next) = self.next.acquire().await else { return };
        let follows = |left: usize| left.checked_sub(1);
        if self.follow.fetch_update(Ordering::Relaxed, Ordering::Relaxed, follows).is_ok() {
            next.forget();
            return;
        }
        all_others().await;
        let following = self.waiting.load(Ordering::Relaxed) / (FOLLOW * self.threads);
        self.follow.fetch_add(following, Ordering::Relaxed);
        self.next.add_permits(following);
    }

    /// Waits until those who came before have had their turns.
    pub(super) async fn reach(&self) {
        let _next = self.next.acquire().await;
    }
}

/// One of those who wait, for as long as it does.
struct Waiting<'t>(&'t AtomicUsize);

impl<'t> Waiting<'t> {
    fn new(all: &'t AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until whatever is ready is done, and what has arrived meanwhile.
pub(crate) async fn all_others() {
    yield_now().await;
    // Who has yielded goes before what the look at the sockets woke.
    to_the_back().await;
}

/// Goes behind all tasks that are ready now. (`yield_now` waits for those too that become ready meanwhile.)
pub(super) async fn to_the_back() {
    let mut gone = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::pin::pin;

    use futures_util::future::{FutureExt, join, join_all};

    use super::*;

    /// All that is ready beside them; counts how often it is its turn.
    async fn others(done: &Cell<bool>) -> u32 {
        let mut times = 0;
        while !done.get() {
            times += 1;
            to_the_back().await;
        }
        times
    }

    #[tokio::test]
    async fn turns_come_in_order_and_few_of_those_who_wait_begin_at_once() {
        const MANY: usize = 64;
        let (turns, came, done) = (Turns::new(1), RefCell::new(Vec::new()), Cell::new(false));
        let waiting = async {
            let take = async |number| {
                turns.take().await;
                came.borrow_mut().push(number);
            };
            join_all((0..MANY).map(take)).await;
            done.set(true);
        };
        let ((), rounds) = join(waiting, others(&done)).await;
        assert_eq!(came.into_inner(), (0..MANY).collect::<Vec<_>>());
        // One of eight in each, fewer and fewer of them.
        assert!((MANY / FOLLOW..MANY).contains(&(rounds as usize)), "{rounds}");
    }

    #[tokio::test]
    async fn whoever_gives_up_takes_nobodys_turn() {
        let turns = Turns::new(1);
        {
            let (mut first, mut second) = (pin!(turns.take()), pin!(turns.take()));
            assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
            assert_eq!(turns.waiting.load(Ordering::Relaxed), 2);
        }
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
        // Many of whom every other gives up while it waits.
        let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(turns.take())).collect();
        for take in &mut waiting {
            assert!(take.now_or_never().is_none());
        }
        let mut number = 0;
        waiting.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        join_all(waiting).await;
        turns.take().await;
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
        let left = turns.next.available_permits() - turns.follow.load(Ordering::Relaxed);
        assert_eq!(left, 1);
    }
}
