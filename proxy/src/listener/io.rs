//! The socket of a connection, watched: what was read ahead comes first, and every read tells the clock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::Connection;
use super::framing::{Framing, Violation};
use crate::socket::Socket;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
}

impl WatchedStream {
    pub(super) fn new(stream: Socket, connection: Arc<Connection>) -> Self {
        Self { stream, ahead: BytesMut::new(), connection, framing: None, refused: None }
    }

    /// From here on messages are read strictly.
    pub(super) fn be_strict(&mut self) {
        self.framing = Some(Framing::default());
    }

    /// Whether its last message asks to switch protocols.
    pub(super) fn switches(&self) -> bool {
        self.framing.as_ref().is_some_and(Framing::switches)
    }

    /// From here on somebody else reads; `read` is what was read for them already.
    pub(super) fn unread(&mut self, read: &Bytes) {
        self.framing = None;
        if !read.is_empty() {
            let mut ahead = BytesMut::from(&read[..]);
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
        }
    }

    /// What was not strict, if anything was.
    pub(super) fn refused(&self) -> Option<Violation> {
        self.refused
    }

    /// Follows what was just read into `buffer`, and takes back what belongs to a message that is refused.
    fn follow(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        let Some(framing) = &mut self.framing else { return Poll::Ready(Ok(())) };
        let read = framing.read(&buffer.filled()[before..]);
        self.connection.clock.is_between_messages(framing.is_between_messages());
        let Err(refused) = read else { return Poll::Ready(Ok(())) };
        self.refused = Some(refused.violation);
        self.connection.clock.refused();
        buffer.set_filled(before + refused.fine);
        // Nothing read would look like the end of the connection.
        if refused.fine > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
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

    /// Reads until it is clear which HTTP this is; what was read is read again by whoever comes next.
    pub(super) async fn recognise(&mut self) -> io::Result<Spoken> {
        loop {
            let known = self.ahead.len().min(PREFACE.len());
            if self.ahead[..known] != PREFACE[..known] {
                return Ok(Spoken::Http1);
            }
            if known == PREFACE.len() {
                return Ok(Spoken::Http2);
            }
            let read = match self.ahead.is_empty() {
                true => self.read_first().await?,
                false => self.stream.read_buf(&mut self.ahead).await?,
            };
            if read == 0 {
                return Ok(if self.ahead.is_empty() { Spoken::Nothing } else { Spoken::Http1 });
            }
            self.connection.clock.bytes_read();
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refused.is_some() {
            // Whoever drives the connection sees the refusal, once what came before is answered.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[..count]);
            this.ahead.advance(count);
            if this.ahead.is_empty() {
                this.ahead = BytesMut::new();
            }
            return this.follow(buffer, before);
        }
        let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        // What is left of a body whose answer is out already begins no head.
        let of_head = this.framing.as_ref().is_none_or(Framing::is_in_head);
        if buffer.filled().len() > before && of_head {
            this.connection.clock.bytes_read();
        }
        match read {
            Ok(()) => this.follow(buffer, before),
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
