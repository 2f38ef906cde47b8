//! HTTP/2 by hand (RFC 9113, header blocks RFC 7541), for what no library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;
pub(crate) const ACK: u8 = 1;

/// What goes out.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wire(Vec<u8>);

impl Wire {
    /// The first words of a client, with its settings.
    pub(crate) fn preface(mut self, settings: &[(u16, u32)]) -> Self {
        self.0.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        self.frame(SETTINGS, 0, 0, &payload);
        self
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        self.0.extend([kind, flags]);
        self.0.extend(stream.to_be_bytes());
        self.0.extend(payload);
    }

    /// A request's head in one frame.
    pub(crate) fn head(&mut self, stream: u32, fields: &[(&str, &[u8])], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields));
    }

    /// A `GET`, with further fields.
    pub(crate) fn get(&mut self, stream: u32, path: &str, more: &[(&str, &str)], ends: bool) {
        let mut fields: Vec<(&str, &[u8])> =
            vec![(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", path.as_bytes())];
        fields.extend(more.iter().map(|(name, value)| (*name, value.as_bytes())));
        self.head(stream, &fields, ends);
    }

    /// Bytes that are no frame.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A header block of literals that nobody remembers.
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(short) if short < 127 => out.push(short),
            _ => {
                out.push(127);
                let mut rest = bytes.len() - 127;
                while rest >= 128 {
                    out.push(0x80 | (rest % 128) as u8);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend(bytes);
    }
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name.as_bytes());
        text(&mut out, value);
    }
    out
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// Takes the frames apart that are whole.
pub(crate) fn frames(bytes: &mut Vec<u8>) -> Vec<Frame> {
    let mut found = Vec::new();
    loop {
        let Some(head) = bytes.get(..9) else { return found };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let Some(payload) = bytes.get(9..9 + length) else { return found };
        found.push(Frame { kind, flags, stream, payload: payload.to_vec() });
        bytes.drain(..9 + length);
    }
}

/// What became of stream 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection was, with this code.
    Gone(u32),
    Closed,
    Silence,
}

/// Sends bytes on a connection of their own, and waits for what becomes of stream 1.
pub(crate) async fn ask(address: SocketAddr, wire: &Wire, patience: Duration) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(wire.bytes()).await;
    let mut came = Vec::new();
    let mut status = None;
    let waiting = async {
        loop {
            for frame in frames(&mut came) {
                match (frame.kind, frame.stream) {
                    (HEADERS, 1) => status = status.or_else(|| Some(status_of(&frame.payload))),
                    (RST_STREAM, 1) if status.is_none() => return Outcome::Reset(code(&frame.payload)),
                    (GOAWAY, _) if code(&frame.payload[4..]) != 0 => {
                        return Outcome::Gone(code(&frame.payload[4..]));
                    }
                    (SETTINGS, _) if frame.flags & ACK == 0 => {
                        let mut acknowledged = Wire::default();
                        acknowledged.frame(SETTINGS, ACK, 0, &[]);
                        let _ = stream.write_all(acknowledged.bytes()).await;
                    }
                    _ => {}
                }
                let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
                if let (1, true, Some(status)) = (frame.stream, ends, status) {
                    return Outcome::Status(status);
                }
                if let (RST_STREAM, 1, Some(status)) = (frame.kind, frame.stream, status) {
                    return Outcome::Status(status);
                }
            }
            match stream.read_buf(&mut came).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return status.map_or(Outcome::Closed, Outcome::Status),
            }
        }
    };
    tokio::time::timeout(patience, waiting).await.unwrap_or(Outcome::Silence)
}

pub(crate) fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// The status at the beginning of a header block that is the first of its connection.
pub(crate) fn status_of(block: &[u8]) -> u16 {
    // A change of the table's size may come before.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    if let index @ 0x88..=0x8e = block[0] {
        return KNOWN[usize::from(index - 0x88)];
    }
    let length = usize::from(block[1] & 0x7f);
    let value = &block[2..2 + length];
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    // Huffman: 0, 1 and 2 have five bits, the other digits six.
    let bits = value.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let (mut left, mut status) = (8 * length, 0);
    for _ in 0..3 {
        let five = bits >> (left - 5) & 0x1f;
        let digit = if five <= 2 {
            left -= 5;
            five
        } else {
            left -= 6;
            (bits >> left & 0x3f) - 0x19 + 3
        };
        status = status * 10 + u16::try_from(digit).unwrap();
    }
    status
}
