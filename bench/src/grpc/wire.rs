//! HTTP/2 as far as a load generator needs it: requests are bytes put together beforehand, answers are taken apart no
//! further than to their messages. A client library costs more than the servers that are measured.
//!
//! Frames are those of RFC 9113, header blocks those of RFC 7541.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// RFC 9113 §6.9.2: what may be sent before the other side allows more.
const FIRST_WINDOW: i64 = 65_535;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// After so many bytes of answers the server may send as many more.
const WINDOW_STEP: u32 = 1 << 20;
/// A gRPC message's head: whether it is compressed, and its length.
pub(super) const MESSAGE_HEAD: usize = 5;
/// No frame may be larger unless the other side says so, and no stream's window is smaller.
const LARGEST_MESSAGE: usize = 16_384;

/// RFC 9113 §6.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A call as it goes out.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Which of all calls it is.
    pub(super) number: usize,
    /// The value of `traceparent`, if it is in a trace.
    pub(super) traceparent: Option<String>,
    /// The message with its head.
    pub(super) message: Bytes,
}

/// A call that was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) number: usize,
    pub(super) took: Duration,
    /// Without its head.
    pub(super) message: Bytes,
}

struct Waiting {
    number: usize,
    since: Instant,
    answer: BytesMut,
}

/// One connection that makes calls of one method.
pub(super) struct Connection {
    stream: TcpStream,
    heads: Heads,
    out: BytesMut,
    come: BytesMut,
    waiting: HashMap<u32, Waiting>,
    next_stream: u32,
    may_send: i64,
    /// Taken and not yet given back.
    taken: u32,
}

impl Connection {
    pub(super) async fn to(address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut out = BytesMut::from(PREFACE);
        frame(&mut out, kind::SETTINGS, 0, 0, 6);
        out.put_u16(INITIAL_WINDOW_SIZE);
        out.put_u32(LARGEST_WINDOW);
        window_update(&mut out, LARGEST_WINDOW - FIRST_WINDOW as u32);
        Ok(Self {
            stream,
            heads: Heads::new(&address.to_string(), path),
            out,
            come: BytesMut::with_capacity(1 << 18),
            waiting: HashMap::new(),
            next_stream: 1,
            may_send: FIRST_WINDOW,
            taken: 0,
        })
    }

    /// How many calls wait for their answer.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the server has room for a call of this size.
    pub(super) fn has_room(&self, message: usize) -> bool {
        self.may_send >= message as i64
    }

    /// Puts a call among what goes out next.
    pub(super) fn call(&mut self, call: Outgoing, now: Instant) -> anyhow::Result<()> {
        let size = call.message.len();
        ensure!(size <= LARGEST_MESSAGE, "a message of {size} bytes does not fit one frame");
        let stream = self.next_stream;
        self.next_stream += 2;
        self.may_send -= size as i64;
        let traceparent = call.traceparent.as_deref();
        let head = self.heads.of_call();
        frame(
            &mut self.out,
            kind::HEADERS,
            END_HEADERS,
            stream,
            head.len() + traceparent.map_or(0, literal_size),
        );
        self.out.put_slice(head);
        if let Some(value) = traceparent {
            literal(&mut self.out, 0, "traceparent", value);
        }
        frame(&mut self.out, kind::DATA, END_STREAM, stream, size);
        self.out.put_slice(&call.message);
        self.waiting.insert(stream, Waiting { number: call.number, since: now, answer: BytesMut::new() });
        Ok(())
    }

    /// Sends what is to go out, and takes what comes.
    pub(super) async fn exchange(&mut self, answered: &mut Vec<Answered>) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        ensure!(self.stream.read_buf(&mut self.come).await? > 0, "the connection was closed");
        let now = Instant::now();
        while let Some(length) = self.come.first_chunk().map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]))
        {
            if self.come.len() < FRAME_HEAD + length as usize {
                break;
            }
            self.come.advance(3);
            let (kind, flags, stream) = (self.come.get_u8(), self.come.get_u8(), self.come.get_u32());
            let payload = self.come.split_to(length as usize);
            self.take((kind, flags, stream), payload, now, answered)?;
        }
        self.come.reserve(1 << 16);
        if self.taken >= WINDOW_STEP {
            window_update(&mut self.out, std::mem::take(&mut self.taken));
        }
        Ok(())
    }

    fn take(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        mut payload: BytesMut,
        now: Instant,
        answered: &mut Vec<Answered>,
    ) -> anyhow::Result<()> {
        match kind {
            kind::DATA => {
                self.taken += payload.len() as u32;
                if let Some(call) = self.waiting.get_mut(&stream) {
                    call.answer.unsplit(payload);
                }
            }
            kind::WINDOW_UPDATE if stream == 0 => self.may_send += i64::from(payload.get_u32()),
            kind::SETTINGS if flags & ACK == 0 => frame(&mut self.out, kind::SETTINGS, ACK, 0, 0),
            kind::PING if flags & ACK == 0 => {
                frame(&mut self.out, kind::PING, ACK, 0, payload.len());
                self.out.put_slice(&payload);
            }
            kind::RST_STREAM => bail!("stream {stream} was reset with code {}", payload.get_u32()),
            kind::GOAWAY => bail!("the server sent GOAWAY"),
            _ => {}
        }
        if matches!(kind, kind::DATA | kind::HEADERS) && flags & END_STREAM != 0 {
            let Some(Waiting { number, since, mut answer }) = self.waiting.remove(&stream) else {
                bail!("an answer on stream {stream}, which has no call");
            };
            // What failed has a status in its trailers and no message.
            ensure!(answer.len() >= MESSAGE_HEAD, "call {number} failed");
            answer.advance(MESSAGE_HEAD);
            answered.push(Answered { number, took: now - since, message: answer.freeze() });
        }
        Ok(())
    }
}

/// The header block of a call. The first on a connection says the headers, those after it where they stand in the
/// table that both sides keep.
struct Heads {
    first: Option<Vec<u8>>,
    next: Vec<u8>,
    current: Vec<u8>,
}

impl Heads {
    fn new(authority: &str, path: &str) -> Self {
        // Entries of the static table: RFC 7541, appendix A.
        let (mut first, mut next) = (BytesMut::from(&[0x83, 0x86][..]), BytesMut::from(&[0x83, 0x86][..]));
        indexed_literal(&mut first, 4, path);
        indexed_literal(&mut first, 1, authority);
        let named =
            [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "tollgate-bench")];
        for (name, value) in named {
            literal(&mut first, 0x40, name, value);
        }
        // The newest entry is the first after the static table's 61; `:path` is the oldest, and comes before the others.
        next.extend((0..2 + named.len() as u8).rev().map(|at| 0x80 | (62 + at)));
        Self { first: Some(first.to_vec()), next: next.to_vec(), current: Vec::new() }
    }

    fn of_call(&mut self) -> &[u8] {
        match self.first.take() {
            Some(first) => {
                self.current = first;
                &self.current
            }
            None => &self.next,
        }
    }
}

fn frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, length: usize) {
    out.put_uint(length as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

fn window_update(out: &mut BytesMut, more: u32) {
    frame(out, kind::WINDOW_UPDATE, 0, 0, 4);
    out.put_u32(more);
}

/// A header whose name is in the static table; both go into the dynamic one.
fn indexed_literal(out: &mut BytesMut, name: u8, value: &str) {
    out.put_u8(0x40 | name);
    text(out, value);
}

fn literal(out: &mut BytesMut, representation: u8, name: &str, value: &str) {
    out.put_u8(representation);
    text(out, name);
    text(out, value);
}

fn literal_size(value: &str) -> usize {
    1 + 1 + "traceparent".len() + 1 + value.len()
}

/// Texts of 127 bytes and more have a longer length.
fn text(out: &mut BytesMut, text: &str) {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
    out.put_u8(length.expect("header values here are short"));
    out.put_slice(text.as_bytes());
}
