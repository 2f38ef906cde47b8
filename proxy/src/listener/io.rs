//! The socket of a connection, watched: what was read ahead comes first, and every read tells the clock.
//!
//! Heads that come in pieces are collected: the first of a connection as a whole, before anything is set up to read it. Of a
//! later one the first piece is passed on, and the others together.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::Connection;
use super::framing::{Framing, Violation};
use super::waiting::Waiting;
use crate::socket::Socket;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of what comes in pieces so much is read at once.
const PIECE: usize = 2048;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    /// It closed before it said anything.
    Nothing,
}

#[derive(Debug)]
pub(super) struct WatchedStream {
    stream: Socket,
    ahead: BytesMut,
    connection: Arc<Connection>,
    /// What is read strictly (HTTP/1.1).
    framing: Option<Framing>,
    refused: Option<Violation>,
    /// The rest of a head, and what came with it: followed, but not passed on yet.
    collected: BytesMut,
    /// How more of a head is waited for, when it did not come whole.
    waiting: Option<Waiting>,
}

impl WatchedStream {
    pub(super) fn new(stream: Socket, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            connection,
            framing: None,
            refused: None,
            collected: BytesMut::new(),
            waiting: None,
        }
    }

    /// From here on messages are read strictly.
    pub(super) fn be_strict(&mut self) {
        self.framing = Some(Framing::default());
        self.waiting = None;
    }

    /// Whether its last message asks to switch protocols.
    pub(super) fn switches(&self) -> bool {
        self.framing.as_ref().is_some_and(Framing::switches)
    }

    /// From here on somebody else reads; `read` is what was read for them already.
    pub(super) fn unread(&mut self, read: &Bytes) {
        self.framing = None;
        let collected = std::mem::take(&mut self.collected);
        if !read.is_empty() || !collected.is_empty() {
            let mut ahead = BytesMut::from(&read[..]);
            ahead.extend_from_slice(&collected);
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
        }
    }

    /// What was not strict, if anything was.
    pub(super) fn refused(&self) -> Option<Violation> {
        self.refused
    }

    /// Follows what was just read; says how much of it belongs to messages that are not refused.
    fn follow(&mut self, read: &[u8]) -> usize {
        let Some(framing) = &mut self.framing else { return read.len() };
        let followed = framing.read(read);
        self.connection.clock.is_between_messages(framing.is_between_messages());
        let Err(refused) = followed else { return read.len() };
        self.refused = Some(refused.violation);
        self.connection.clock.refused();
        refused.fine
    }

    /// As [`Self::follow`], for what stands in `buffer`: takes back what is refused.
    fn follow_in(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        let fine = self.follow(&buffer.filled()[before..]);
        buffer.set_filled(before + fine);
        // Nothing read would look like the end of the connection.
        if fine == 0 && self.refused.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// The number of a head that did not come whole.
    fn unfinished_head(&self) -> Option<u32> {
        self.framing.as_ref().and_then(Framing::unfinished_head)
    }

    /// Collects the rest of a head, until it is whole, too large, refused or broken off.
    fn poll_collect(&mut self, head: u32, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Its first piece may have come while the request before it was under way.
        self.connection.clock.bytes_read();
        let most = self.connection.listener.limits.header_bytes;
        while self.unfinished_head() == Some(head) && self.refused.is_none() && self.collected.len() <= most {
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            std::task::ready!(self.poll_piece(context, &mut piece))?;
            if piece.filled().is_empty() {
                break;
            }
            match self.follow(piece.filled()) {
                // The head itself is refused.
                0 => self.collected.clear(),
                fine => self.collected.extend_from_slice(&piece.filled()[..fine]),
            }
        }
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    /// Reads more of what did not come whole.
    fn poll_piece(&mut self, context: &mut Context<'_>, piece: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.connection.clock.left_for_head();
        self.waiting.get_or_insert_with(Waiting::new).poll_read(&mut self.stream, left, context, piece)
    }

    /// Reads what still comes, until the other side closes.
    pub(super) async fn discard(&mut self) -> io::Result<()> {
        let mut unread = vec![0; 4096];
        while self.stream.read(&mut unread).await? > 0 {}
        Ok(())
    }

    /// Waits for the next bytes without holding a buffer for them; `false` when none will come.
    pub(super) async fn wakes(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() && self.read_first().await? == 0 {
            return Ok(false);
        }
        self.connection.clock.bytes_read();
        Ok(true)
    }

    /// Reads the first bytes of what comes next.
    async fn read_first(&mut self) -> io::Result<usize> {
        let Socket::Plain(stream) = &mut self.stream else {
            return self.stream.read_buf(&mut self.ahead).await;
        };
        loop {
            // An idle connection should hold no buffer.
            stream.readable().await?;
            let mut first = [0; 4096];
            match stream.try_read(&mut first) {
                Ok(read) => {
                    self.ahead.extend_from_slice(&first[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads more of what did not come whole.
    async fn read_piece(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            std::task::ready!(self.poll_piece(context, &mut piece))?;
            self.ahead.extend_from_slice(piece.filled());
            Poll::Ready(Ok(piece.filled().len()))
        })
        .await
    }

    /// Reads until it is clear which HTTP this is, and of HTTP/1.1 a head; what was read is read again by whoever comes next.
    pub(super) async fn recognise(&mut self) -> io::Result<Spoken> {
        let (mut head, mut followed) = (Framing::default(), 0);
        loop {
            let known = self.ahead.len().min(PREFACE.len());
            if self.ahead[..known] != PREFACE[..known] {
                let fine = head.read(&self.ahead[followed..]).is_ok();
                followed = self.ahead.len();
                let whole = head.unfinished_head().is_none_or(|number| number > 0);
                let most = self.connection.listener.limits.header_bytes;
                if whole || !fine || !may_be_head(&self.ahead) || followed > most {
                    return Ok(Spoken::Http1);
                }
            } else if known == PREFACE.len() {
                self.waiting = None;
                return Ok(Spoken::Http2);
            }
            let read = match self.ahead.is_empty() {
                true => self.read_first().await?,
                false => self.read_piece().await?,
            };
            if read == 0 {
                return Ok(if self.ahead.is_empty() { Spoken::Nothing } else { Spoken::Http1 });
            }
            self.connection.clock.bytes_read();
        }
    }
}

/// Whether HTTP/1.x may begin like this; what may not is refused without waiting for its end.
fn may_be_head(begun: &[u8]) -> bool {
    let printable = |byte: &u8| (b' '..=b'~').contains(byte);
    match memchr::memchr(b'\n', begun) {
        None => begun.strip_suffix(b"\r").unwrap_or(begun).iter().all(printable),
        Some(end) => {
            let line = begun[..end].trim_ascii_end();
            line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
        }
    }
}

/// Moves as much as there is room for.
fn pass_on(from: &mut BytesMut, buffer: &mut ReadBuf<'_>) {
    let count = from.len().min(buffer.remaining());
    buffer.put_slice(&from[..count]);
    from.advance(count);
    if from.is_empty() {
        // An idle connection should hold no buffer.
        *from = BytesMut::new();
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let nothing_read = this.ahead.is_empty() && this.collected.is_empty() && this.refused.is_none();
        if nothing_read && let Some(head) = this.unfinished_head() {
            std::task::ready!(this.poll_collect(head, context))?;
        }
        if !this.collected.is_empty() {
            pass_on(&mut this.collected, buffer);
            return Poll::Ready(Ok(()));
        }
        if this.refused.is_some() {
            // Whoever drives the connection sees the refusal, once what came before is answered.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if !this.ahead.is_empty() {
            pass_on(&mut this.ahead, buffer);
            return this.follow_in(buffer, before);
        }
        let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        // What is left of a body whose answer is out already begins no head.
        let of_head = this.framing.as_ref().is_none_or(Framing::is_in_head);
        if buffer.filled().len() > before && of_head {
            this.connection.clock.bytes_read();
        }
        match read {
            Ok(()) => this.follow_in(buffer, before),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.clock.flushed(false);
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.connection.clock.took(count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.connection.clock.flushed(true);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.clock.flushed(false);
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(count)) = written {
            self.connection.clock.took(count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::may_be_head;

    #[test]
    fn what_can_be_no_head_is_not_waited_for() {
        for begun in [
            "G",
            "GET / HT",
            "get",
            "GET / HTTP/1.1\r",
            "GET / HTTP/1.1\r\nhost",
            "GET / HTTP/1.0\nhost: h\r",
        ] {
            assert!(may_be_head(begun.as_bytes()), "{begun:?}");
        }
        for begun in [
            "\x16\x03\x01",
            "GET /\0",
            "GET / HTTP/2.0\r\n",
            "EHLO example.org\r\n",
            "GET /\r\nhost: h\r\n",
            "\n",
        ] {
            assert!(!may_be_head(begun.as_bytes()), "{begun:?}");
        }
    }
}
