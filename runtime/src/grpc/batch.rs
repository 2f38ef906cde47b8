//! Answers that are ready together leave together.
//!
//! h2 flushes after every answer, and twice where one is long. Here a flush waits until whoever polls the connection has
//! nothing else to do with it:
//!
//! ```text
//! h2 --writes, flushes--> waiting bytes --Outbox, once after each poll--> the stream
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes wait at most before they are written all the same, so that the first answers need not wait for the last.
const FULL: usize = 16 * 1024;

/// Cuts a stream in two: what h2 reads and writes, and what writes in truth.
pub(super) fn batched<IO>(stream: IO) -> (Batched<IO>, Outbox<IO>) {
    let shared = Arc::new(Mutex::new(Shared { stream, waiting: Vec::new(), written: 0, flushed: true }));
    (Batched(Arc::clone(&shared)), Outbox(shared))
}

struct Shared<IO> {
    stream: IO,
    waiting: Vec<u8>,
    /// Of what is waiting, this much has left.
    written: usize,
    /// Whether the stream holds nothing back of what it took. TLS takes more than its socket does.
    flushed: bool,
}

/// The stream, as h2 has it. It says that it has flushed what the [`Outbox`] has still to write.
pub(super) struct Batched<IO>(Arc<Mutex<Shared<IO>>>);

/// Writes what was written to a [`Batched`].
pub(super) struct Outbox<IO>(Arc<Mutex<Shared<IO>>>);

impl<IO: AsyncWrite + Unpin> Outbox<IO> {
    /// Whoever has polled the connection calls this right after it, whatever came of that.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(context)
    }
}

impl<IO: AsyncWrite + Unpin> Shared<IO> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() && self.flushed {
            return Poll::Ready(Ok(()));
        }
        self.flushed = false;
        while self.written < self.waiting.len() {
            let left = &self.waiting[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.waiting.clear();
        self.waiting.shrink_to(FULL);
        self.written = 0;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.len() < FULL { Poll::Ready(Ok(())) } else { self.poll_send(context) }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Batched<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Batched<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.0.lock();
        ready!(shared.poll_room(context))?;
        slices.iter().for_each(|slice| shared.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_room(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        ready!(shared.poll_send(context))?;
        Pin::new(&mut shared.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_at_once_and_together() {
        let (ours, mut theirs) = duplex(1024);
        let (mut batched, outbox) = batched(ours);
        for part in ["one ", "two ", "three"] {
            batched.write_all(part.as_bytes()).await.unwrap();
            batched.flush().await.unwrap();
        }
        let mut heard = [0; 64];
        let mut buffer = ReadBuf::new(&mut heard);
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut theirs).poll_read(&mut nobody, &mut buffer).is_pending());
        poll_fn(|context| outbox.poll_send(context)).await.unwrap();
        assert_eq!(theirs.read(&mut heard).await.unwrap(), "one two three".len());
        assert!(heard.starts_with(b"one two three"));
    }

    /// As TLS is when its socket is full: takes what it is given, and has flushed it when it is asked a second time.
    #[derive(Default)]
    struct HoldsBack {
        held: usize,
        flushed: usize,
        asked: bool,
    }

    impl AsyncWrite for HoldsBack {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            if !std::mem::replace(&mut self.asked, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.flushed += std::mem::take(&mut self.held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(context)
        }
    }

    #[tokio::test]
    async fn what_the_stream_holds_back_is_flushed_though_nothing_more_is_written() {
        let (mut batched, outbox) = batched(HoldsBack::default());
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut batched).poll_write(&mut nobody, b"answer").is_ready());
        assert!(outbox.poll_send(&mut nobody).is_pending());
        assert!(outbox.poll_send(&mut nobody).is_ready());
        assert_eq!(outbox.0.lock().stream.flushed, "answer".len());
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_the_writer_up() {
        let (ours, mut theirs) = duplex(64);
        let (mut batched, outbox) = batched(ours);
        let mut nobody = Context::from_waker(Waker::noop());
        let chunk = [b'x'; 4096];
        let mut taken = 0;
        while Pin::new(&mut batched).poll_write(&mut nobody, &chunk).is_ready() {
            taken += chunk.len();
            assert!(taken <= FULL + chunk.len(), "it waits without bound");
        }
        assert!(Pin::new(&mut batched).poll_flush(&mut nobody).is_pending());
        // All of it arrives, in order, when the peer reads again.
        let reading = async {
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let ending = async {
            batched.shutdown().await.unwrap();
            drop((batched, outbox));
        };
        let (heard, ()) = tokio::join!(reading, ending);
        assert_eq!(heard.len(), taken);
    }
}
