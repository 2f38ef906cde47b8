//! Where WebSocket frames end in what an upstream sends (RFC 6455, 5.2), and a last one of our own: a client that is told to go
//! should hear so in the protocol that it speaks.
//!
//! ```text
//! upstream: ...frame frame fra|me frame...        client: ...frame frame frame CLOSE(1001)
//!                             ^ told to go
//! ```
//!
//! The client answers with a close frame of its own, which goes to the upstream like anything it says, so that end is told as well.
//! Payloads are not looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A whole close frame: "going away".
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
const CLOSE: u8 = 8;
const LARGEST_HEAD: usize = 14;

/// Finds the ends of frames.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; LARGEST_HEAD],
    /// How much of a head is there.
    have: usize,
    /// How much of a payload is not.
    left: u64,
    /// The last frame was among them.
    closed: bool,
}

impl Frames {
    /// Follows what comes; says behind which of these bytes the last whole frame ends, if one does.
    fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut end) = (0, None);
        while at < bytes.len() {
            if self.left > 0 {
                let here = bytes.len() - at;
                let taken = usize::try_from(self.left).map_or(here, |left| left.min(here));
                self.left -= taken as u64;
                at += taken;
            } else {
                self.head[self.have] = bytes[at];
                self.have += 1;
                at += 1;
                if self.have < self.head_length() {
                    continue;
                }
                self.left = self.payload_length();
                self.closed |= self.head[0] & 0x0f == CLOSE;
                self.have = 0;
            }
            if self.is_between() {
                end = Some(at);
            }
        }
        end
    }

    /// Whether the last frame is whole and no other has begun.
    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        // Servers do not mask. One that does is the client's business.
        length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_length(&self) -> u64 {
        let longer = match self.head[1] & 0x7f {
            126 => &self.head[2..4],
            127 => &self.head[2..10],
            short => return short.into(),
        };
        longer.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
    }
}

/// An upstream that has switched. Where it speaks WebSocket it seems to say goodbye when its client is told to go.
#[derive(Debug)]
pub(super) struct Farewell<S> {
    stream: S,
    parting: Option<Parting>,
}

#[derive(Debug)]
struct Parting {
    frames: Frames,
    told: Pin<Box<WaitForCancellationFutureOwned>>,
    is_told: bool,
    /// How much of the goodbye is out, once there is one.
    said: Option<usize>,
}

impl<S> Farewell<S> {
    pub(super) fn new(stream: S, websocket: bool, closing: &CancellationToken) -> Self {
        let parting = websocket.then(|| Parting {
            frames: Frames::default(),
            told: Box::pin(closing.clone().cancelled_owned()),
            is_told: false,
            said: None,
        });
        Self { stream, parting }
    }
}

impl Parting {
    /// Whether a goodbye is due as soon as a frame is whole.
    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        self.is_told = self.is_told || self.told.as_mut().poll(context).is_ready();
        self.is_told && !self.frames.closed
    }

    /// Says what fits; nothing, which is the end, when all is out.
    fn say(&mut self, buffer: &mut ReadBuf<'_>) {
        let said = self.said.unwrap_or(0);
        let count = buffer.remaining().min(GOING_AWAY.len() - said);
        buffer.put_slice(&GOING_AWAY[said..said + count]);
        self.said = Some(said + count);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Farewell<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, parting } = &mut *self;
        let Some(parting) = parting else { return Pin::new(stream).poll_read(context, buffer) };
        let due = parting.said.is_none() && parting.is_due(context);
        if parting.said.is_some() || due && parting.frames.is_between() {
            parting.say(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        let end = parting.frames.follow(&buffer.filled()[before..]);
        if let Some(end) = end.filter(|_| due && !parting.frames.closed) {
            buffer.set_filled(before + end);
            parting.said = Some(0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Farewell<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(opcode: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match (u8::try_from(payload), u16::try_from(payload)) {
            (Ok(short), _) if short < 126 => frame.push(short),
            (_, Ok(longer)) => {
                frame.push(126);
                frame.extend(longer.to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        // Not what a head could be mistaken for.
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    #[test]
    fn the_ends_of_frames_are_found_however_they_are_cut() {
        let frames =
            [frame(1, 5), frame(9, 0), frame(2, 125), frame(2, 126), frame(0, 300), frame(2, 70_000)];
        let ends: Vec<usize> = frames
            .iter()
            .scan(0, |end, one| {
                *end += one.len();
                Some(*end)
            })
            .collect();
        let bytes = frames.concat();
        for step in [1, 2, 3, 7, 64, 1000, bytes.len()] {
            let (mut following, mut found, mut at) = (Frames::default(), Vec::new(), 0);
            for chunk in bytes.chunks(step) {
                found.extend(following.follow(chunk).map(|end| at + end));
                at += chunk.len();
            }
            let expected: Vec<usize> = match step {
                1 => ends.clone(),
                // The last end in each piece.
                _ => {
                    let mut last: Vec<usize> = ends.clone();
                    last.dedup_by(|later, earlier| {
                        let same = (*later - 1) / step == (*earlier - 1) / step;
                        if same {
                            *earlier = *later
                        }
                        same
                    });
                    last
                }
            };
            assert_eq!(found, expected, "in pieces of {step}");
            assert!(following.is_between() && !following.closed);
        }
        let mut following = Frames::default();
        following.follow(&frame(CLOSE, 2));
        assert!(following.closed);
    }

    #[tokio::test]
    async fn the_goodbye_follows_a_whole_frame_and_ends_what_is_said() {
        let (mut upstream, ours) = tokio::io::duplex(1 << 20);
        let closing = CancellationToken::new();
        let mut farewell = Farewell::new(ours, true, &closing);
        let (first, second) = (frame(1, 10), frame(2, 1000));
        upstream.write_all(&first).await.unwrap();
        upstream.write_all(&second[..500]).await.unwrap();
        let mut heard = vec![0; first.len() + 500];
        farewell.read_exact(&mut heard).await.unwrap();
        closing.cancel();
        upstream.write_all(&second[500..]).await.unwrap();
        upstream.write_all(&frame(1, 20)[..10]).await.unwrap();
        farewell.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [first, second, GOING_AWAY.to_vec()].concat());
    }

    #[tokio::test]
    async fn nothing_is_said_after_the_upstreams_own_goodbye_nor_in_another_protocol() {
        for (websocket, said) in [(true, frame(CLOSE, 2)), (false, b"anything".to_vec())] {
            let (mut upstream, ours) = tokio::io::duplex(1 << 10);
            let closing = CancellationToken::new();
            let mut farewell = Farewell::new(ours, websocket, &closing);
            upstream.write_all(&said).await.unwrap();
            drop(upstream);
            let mut heard = vec![0; said.len()];
            farewell.read_exact(&mut heard).await.unwrap();
            closing.cancel();
            farewell.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, said);
        }
    }
}
