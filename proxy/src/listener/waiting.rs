//! Waiting for the rest of a head that did not come whole.
//!
//! Thousands of clients may send theirs a byte at a time, all in the same moment; were each woken for it, whoever else is
//! served would wait for all of them. So the rest is waited for while it may be under way, and after that looked for now and
//! then, by each connection at times of its own, about as long apart as the head has taken so far.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

/// What was sent together has come by then, also over a slow line.
const TOGETHER: Duration = Duration::from_millis(50);
/// The longest from one look to the next, on average.
const SELDOM: Duration = Duration::from_secs(1);
/// The last look is so long before the time for a head is over.
const LAST: Duration = Duration::from_millis(20);

/// How the rest of one head is waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

impl Waiting {
    /// Its first piece has just come.
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), look: Box::pin(tokio::time::sleep(TOGETHER)) }
    }

    /// Reads what has come, or waits; in so much time the head must be whole.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        left: Duration,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let due = self.look.as_mut().poll(context).is_ready();
            let waited = self.since.elapsed();
            if waited < TOGETHER {
                return Pin::new(stream).poll_read(context, buffer);
            }
            if !due {
                return Poll::Pending;
            }
            // Nobody is woken for what comes next.
            let read = Pin::new(&mut *stream).poll_read(&mut Context::from_waker(Waker::noop()), buffer);
            if read.is_ready() {
                return read;
            }
            if !has_budget_remaining() {
                // Nothing was read because it is somebody else's turn.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let pause = waited.min(SELDOM).mul_f64(rand::random_range(0.5..1.5));
            let last = left.checked_sub(LAST).filter(|last| !last.is_zero());
            self.look.as_mut().reset(Instant::now() + last.map_or(pause, |last| last.min(pause)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::task::JoinSet;

    use super::*;

    /// What a head has.
    const WITHIN: Duration = Duration::from_secs(30);

    /// Reads a piece; says how often it was woken until it came.
    async fn piece(waiting: &mut Waiting, stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, u32) {
        let (mut room, mut woken) = ([0; 64], 0);
        let mut buffer = ReadBuf::new(&mut room);
        poll_fn(|context| {
            woken += 1;
            waiting.poll_read(stream, WITHIN.saturating_sub(waiting.since.elapsed()), context, &mut buffer)
        })
        .await
        .unwrap();
        (buffer.filled().to_vec(), woken)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_soon_is_read_at_once_and_the_end_is_noticed() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let began = Instant::now();
        let mut waiting = Waiting::new();
        client.write_all(b"a").await.unwrap();
        assert_eq!(piece(&mut waiting, &mut server).await.0, b"a");
        let later = async {
            tokio::time::sleep(TOGETHER / 2).await;
            client.write_all(b"b").await.unwrap();
        };
        let ((read, _), ()) = tokio::join!(piece(&mut waiting, &mut server), later);
        assert_eq!((read.as_slice(), began.elapsed()), (b"b".as_slice(), TOGETHER / 2));
        drop(client);
        assert_eq!(piece(&mut waiting, &mut server).await.0, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_bit_by_bit_is_looked_for_seldom_and_read_in_time() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let began = Instant::now();
        let mut waiting = Waiting::new();
        let mut sending = JoinSet::new();
        sending.spawn(async move {
            for bit in 1..=200 {
                tokio::time::sleep_until(began + Duration::from_millis(100) * bit).await;
                client.write_all(&[1]).await.unwrap();
            }
            Instant::now()
        });
        let (mut bits, mut woken) = (0, 0);
        while bits < 200 {
            let (read, times) = piece(&mut waiting, &mut server).await;
            (bits, woken) = (bits + read.len(), woken + times);
        }
        let late = sending.join_next().await.unwrap().unwrap().elapsed();
        assert!(woken < 100, "{woken} times in 20 s");
        assert!(late < SELDOM * 2, "{late:?} after the last");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_read_in_time() {
        for _ in 0..50 {
            let (mut client, mut server) = tokio::io::duplex(64);
            let began = Instant::now();
            let mut waiting = Waiting::new();
            let mut sending = JoinSet::new();
            sending.spawn(async move {
                tokio::time::sleep_until(began + WITHIN - LAST - Duration::from_millis(1)).await;
                client.write_all(b"x").await.unwrap();
                client
            });
            assert_eq!(piece(&mut waiting, &mut server).await.0, b"x");
            assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
        }
    }
}
