//! What is sent, and what must come of it.

use super::MARK;
use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITIZED, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, block,
};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// What must come of a case.
#[derive(Debug)]
pub(super) enum Rule {
    /// The connection ends, with one of these codes if it says one.
    Connection(&'static [u32]),
    /// The stream is reset with one of these codes, or the connection ends with it.
    Stream(&'static [u32]),
    /// As a stream error of a malformed request.
    Malformed,
    /// The request on stream 1 is served.
    Answered,
    /// Nothing: what comes after is answered.
    Goes,
    /// The settings are.
    Acknowledged,
    /// The request is served, and of the body no more than this comes.
    Bytes(usize),
}

#[derive(Debug)]
pub(super) struct Case {
    pub(super) section: &'static str,
    pub(super) what: &'static str,
    pub(super) wire: Wire,
    pub(super) rule: Rule,
}

const PROTOCOL: Rule = Rule::Connection(&[PROTOCOL_ERROR]);
const SIZE: Rule = Rule::Connection(&[FRAME_SIZE_ERROR]);
const COMPRESSION: Rule = Rule::Connection(&[COMPRESSION_ERROR]);
const ENDED: Rule = Rule::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]);

const GET: [(&str, &[u8]); 4] =
    [(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/")];

/// The fields of a `GET`, without one of them, and with others.
fn head(without: &str, more: &[(&'static str, &'static [u8])]) -> Vec<u8> {
    let kept = GET.iter().filter(|(name, _)| *name != without);
    block(&kept.chain(more).copied().collect::<Vec<_>>())
}

/// Collects cases; each begins after the preface.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, section: &'static str, what: &'static str, rule: Rule, say: impl FnOnce(&mut Wire)) {
        let mut wire = Wire::default().preface(&[]);
        say(&mut wire);
        wire.frame(PING, 0, 0, &MARK);
        self.0.push(Case { section, what, wire, rule });
    }

    /// One frame, and nothing before it.
    fn frame(
        &mut self,
        (section, what, rule): (&'static str, &'static str, Rule),
        (kind, flags, stream, payload): (u8, u8, u32, &[u8]),
    ) {
        self.add(section, what, rule, |wire| wire.frame(kind, flags, stream, payload));
    }

    /// One request's head on stream 1.
    fn head(&mut self, (section, what, rule): (&'static str, &'static str, Rule), block: &[u8]) {
        self.frame((section, what, rule), (HEADERS, END_HEADERS | END_STREAM, 1, block));
    }

    /// One frame on stream 1 after a head that does not end it.
    fn after_head(
        &mut self,
        (section, what, rule): (&'static str, &'static str, Rule),
        (kind, flags, payload): (u8, u8, &[u8]),
    ) {
        self.add(section, what, rule, |wire| {
            wire.frame(HEADERS, END_HEADERS, 1, &head("", &[]));
            wire.frame(kind, flags, 1, payload);
        });
    }
}

pub(super) fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    connection(&mut cases);
    streams(&mut cases);
    data_and_heads(&mut cases);
    control(&mut cases);
    windows(&mut cases);
    messages(&mut cases);
    compression(&mut cases);
    cases.0
}

fn connection(cases: &mut Cases) {
    let mut wire = Wire::default();
    wire.raw(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    cases.0.push(Case { section: "9113 3.4", what: "a wrong preface", wire, rule: PROTOCOL });
    cases.add("9113 3.4", "settings are acknowledged", Rule::Acknowledged, |_| {});
    cases.frame(("9113 4.1", "a frame of a type nobody knows", Rule::Goes), (0x1f, 0, 0, b"what"));
    cases.frame(("9113 4.1", "flags that nobody knows", Rule::Goes), (PING, 0x16, 0, b"flagship"));
    cases.frame(
        ("9113 4.1", "the reserved bit of a stream's number", Rule::Goes),
        (PING, 0, 1 << 31, b"whatever"),
    );
    cases.after_head(
        ("9113 4.2", "more data than a frame may have", Rule::Stream(&[FRAME_SIZE_ERROR])),
        (DATA, END_STREAM, &[0; 16_385]),
    );
    cases.frame(
        ("9113 4.2", "a larger head than a frame may have", SIZE),
        (HEADERS, END_HEADERS | END_STREAM, 1, &[0; 16_385]),
    );
    let begun = |wire: &mut Wire| wire.frame(HEADERS, END_STREAM, 1, &head("", &[]));
    cases.add("9113 4.3", "another stream's frame within a head", PROTOCOL, |wire| {
        begun(wire);
        wire.frame(HEADERS, END_HEADERS | END_STREAM, 3, &head("", &[]));
    });
    cases.add("9113 4.3", "a priority within a head", PROTOCOL, |wire| {
        begun(wire);
        wire.frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]);
    });
    cases.add("9113 5.5", "a frame of an unknown type within a head", PROTOCOL, |wire| {
        begun(wire);
        wire.frame(0x1f, 0, 0, b"what");
    });
}

fn streams(cases: &mut Cases) {
    cases.frame(("9113 5.1", "data on an idle stream", PROTOCOL), (DATA, END_STREAM, 1, b"test"));
    cases.frame(("9113 5.1", "a reset of an idle stream", PROTOCOL), (RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    cases
        .frame(("9113 5.1", "a window for an idle stream", PROTOCOL), (WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100]));
    cases.frame(
        ("9113 5.1", "a continuation on an idle stream", PROTOCOL),
        (CONTINUATION, END_HEADERS, 1, b""),
    );
    let whole = |wire: &mut Wire| wire.frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("", &[]));
    cases.add("9113 5.1", "data after the end of a stream", ENDED, |wire| {
        whole(wire);
        wire.frame(DATA, END_STREAM, 1, b"test");
    });
    cases.add("9113 5.1", "a head after the end of a stream", ENDED, |wire| {
        whole(wire);
        whole(wire);
    });
    cases.add("9113 5.1", "a continuation after the end of a stream", ENDED, |wire| {
        whole(wire);
        wire.frame(CONTINUATION, END_HEADERS, 1, b"");
    });
    let reset = |wire: &mut Wire| {
        wire.frame(HEADERS, END_HEADERS, 1, &head("", &[]));
        wire.frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    };
    cases.add("9113 5.1", "data after a reset", ENDED, |wire| {
        reset(wire);
        wire.frame(DATA, END_STREAM, 1, b"test");
    });
    cases.add("9113 5.1", "a head after a reset", ENDED, |wire| {
        reset(wire);
        whole(wire);
    });
    cases.add("9113 5.1", "a window after a reset", Rule::Goes, |wire| {
        reset(wire);
        wire.frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100]);
    });
    cases.frame(
        ("9113 5.1.1", "a stream with a server's number", PROTOCOL),
        (HEADERS, END_HEADERS | END_STREAM, 2, &head("", &[])),
    );
    cases.add(
        "9113 5.1.1",
        "a stream with a number below the last",
        Rule::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        |wire| {
            wire.frame(HEADERS, END_HEADERS | END_STREAM, 5, &head("", &[]));
            wire.frame(HEADERS, END_HEADERS | END_STREAM, 3, &head("", &[]));
        },
    );
    let refused = Rule::Stream(&[REFUSED_STREAM, PROTOCOL_ERROR]);
    cases.add("9113 5.1.2", "more streams than may be open", refused, |wire| {
        for stream in 0..140 {
            wire.frame(HEADERS, END_HEADERS, 1 + 2 * stream, &head("", &[]));
        }
    });
}

fn data_and_heads(cases: &mut Cases) {
    cases.frame(("9113 6.1", "data on the connection", PROTOCOL), (DATA, 0, 0, b"test"));
    cases.after_head(
        ("9113 6.1", "data with more padding than there is", PROTOCOL),
        (DATA, PADDED | END_STREAM, &[6, 0, 0]),
    );
    cases.after_head(
        ("9113 6.1", "data with padding", Rule::Answered),
        (DATA, PADDED | END_STREAM, &[2, b'x', 0, 0]),
    );
    cases.frame(
        ("9113 6.2", "a head on the connection", PROTOCOL),
        (HEADERS, END_HEADERS | END_STREAM, 0, &head("", &[])),
    );
    cases.frame(
        ("9113 6.2", "a head with more padding than there is", PROTOCOL),
        (HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[255, 0x82]),
    );
    let padded = [&[3][..], &head("", &[]), &[0; 3]].concat();
    cases.frame(
        ("9113 6.2", "a head with padding", Rule::Answered),
        (HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &padded),
    );
    let prioritized = [&[0, 0, 0, 0, 255][..], &head("", &[])].concat();
    cases.frame(
        ("9113 6.2", "a head with a priority", Rule::Answered),
        (HEADERS, PRIORITIZED | END_HEADERS | END_STREAM, 1, &prioritized),
    );
    let on_itself = [&[0, 0, 0, 1, 255][..], &head("", &[])].concat();
    cases.frame(
        ("7540 5.3.1", "a stream that depends on itself", Rule::Stream(&[PROTOCOL_ERROR])),
        (HEADERS, PRIORITIZED | END_HEADERS | END_STREAM, 1, &on_itself),
    );
    cases.add("9113 6.10", "a head in three frames", Rule::Answered, |wire| {
        let head = head("", &[]);
        wire.frame(HEADERS, END_STREAM, 1, &head[..5]);
        wire.frame(CONTINUATION, 0, 1, &head[5..9]);
        wire.frame(CONTINUATION, END_HEADERS, 1, &head[9..]);
    });
    cases.add("9113 6.10", "a continuation of the connection", PROTOCOL, |wire| {
        wire.frame(HEADERS, END_STREAM, 1, &head("", &[]));
        wire.frame(CONTINUATION, END_HEADERS, 0, b"");
    });
    cases.after_head(
        ("9113 6.10", "a continuation of a head that has ended", PROTOCOL),
        (CONTINUATION, END_HEADERS, b""),
    );
    cases.add("9113 6.10", "data before the end of a head", PROTOCOL, |wire| {
        wire.frame(HEADERS, 0, 1, &head("", &[]));
        wire.frame(DATA, END_STREAM, 1, b"test");
    });
}

fn control(cases: &mut Cases) {
    cases.frame(("9113 6.3", "a priority of the connection", PROTOCOL), (PRIORITY, 0, 0, &[0, 0, 0, 0, 255]));
    cases.frame(
        ("9113 6.3", "a priority that is too short", Rule::Stream(&[FRAME_SIZE_ERROR])),
        (PRIORITY, 0, 1, &[0, 0, 0, 0]),
    );
    cases.frame(
        ("9113 6.3", "a priority of an idle stream", Rule::Goes),
        (PRIORITY, 0, 5, &[0, 0, 0, 0, 255]),
    );
    cases.frame(("9113 6.4", "a reset of the connection", PROTOCOL), (RST_STREAM, 0, 0, &[0, 0, 0, 8]));
    cases.after_head(("9113 6.4", "a reset that is too short", SIZE), (RST_STREAM, 0, &[0, 0, 8]));
    cases
        .frame(("9113 6.5", "an acknowledgement with settings", SIZE), (SETTINGS, 1, 0, &[0, 0, 0, 0, 0, 0]));
    cases.frame(("9113 6.5", "settings of a stream", PROTOCOL), (SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]));
    cases.frame(("9113 6.5", "half a setting", SIZE), (SETTINGS, 0, 0, &[0, 3, 0]));
    cases.frame(
        ("9113 6.5.2", "push that is neither on nor off", PROTOCOL),
        (SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]),
    );
    cases.frame(
        ("9113 6.5.2", "a window beyond the largest", Rule::Connection(&[FLOW_CONTROL_ERROR])),
        (SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
    );
    cases.frame(
        ("9113 6.5.2", "a frame size below the least", PROTOCOL),
        (SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]),
    );
    cases.frame(
        ("9113 6.5.2", "a frame size beyond the largest", PROTOCOL),
        (SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]),
    );
    cases.frame(
        ("9113 6.5.2", "a setting that nobody knows", Rule::Goes),
        (SETTINGS, 0, 0, &[0, 0xff, 0, 0, 0, 1]),
    );
    cases.frame(("9113 6.6", "a push of a client", PROTOCOL), (PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]));
    cases.frame(("9113 6.7", "a ping of a stream", PROTOCOL), (PING, 0, 1, b"12345678"));
    cases.frame(("9113 6.7", "a ping that is too short", SIZE), (PING, 0, 0, b"123456"));
    cases.frame(("9113 6.7", "the answer to a ping that nobody sent", Rule::Goes), (PING, 1, 0, b"12345678"));
    cases.frame(("9113 6.8", "a goodbye of a stream", PROTOCOL), (GOAWAY, 0, 1, &[0; 8]));
}

fn windows(cases: &mut Cases) {
    cases.frame(("9113 6.9", "a window of nothing", PROTOCOL), (WINDOW_UPDATE, 0, 0, &[0; 4]));
    cases.after_head(
        ("9113 6.9", "a stream's window of nothing", Rule::Stream(&[PROTOCOL_ERROR])),
        (WINDOW_UPDATE, 0, &[0; 4]),
    );
    cases.frame(("9113 6.9", "a window that is too short", SIZE), (WINDOW_UPDATE, 0, 0, &[0, 0, 1]));
    let overflow = [0x7f, 0xff, 0xff, 0xff];
    cases.frame(
        ("9113 6.9.1", "a window beyond the largest", Rule::Connection(&[FLOW_CONTROL_ERROR])),
        (WINDOW_UPDATE, 0, 0, &overflow),
    );
    cases.after_head(
        ("9113 6.9.1", "a stream's window beyond the largest", Rule::Stream(&[FLOW_CONTROL_ERROR])),
        (WINDOW_UPDATE, 0, &overflow),
    );
    let mut wire = Wire::default().preface(&[(4, 1)]);
    wire.frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("", &[]));
    wire.frame(PING, 0, 0, &MARK);
    cases.0.push(Case { section: "9113 6.9.2", what: "a window of one byte", wire, rule: Rule::Bytes(1) });
}

fn messages(cases: &mut Cases) {
    cases.after_head(
        ("9113 8.1", "a second head that ends nothing", Rule::Malformed),
        (HEADERS, END_HEADERS, &block(&[("x-more", b"1")])),
    );
    cases.after_head(
        ("9113 8.1", "trailers with a pseudo-header", Rule::Malformed),
        (HEADERS, END_HEADERS | END_STREAM, &block(&[(":method", b"GET")])),
    );
    let with = |name: &'static str, value: &'static [u8]| head("", &[(name, value)]);
    cases.head(("9113 8.2.1", "a name in capitals", Rule::Malformed), &with("X-Test", b"1"));
    cases.head(("9113 8.2.1", "a line's end in a value", Rule::Malformed), &with("x-test", b"1\r\nx: 2"));
    cases.head(("9113 8.2.1", "a space in a name", Rule::Malformed), &with("x test", b"1"));
    cases.head(
        ("9113 8.2.2", "a header about the connection", Rule::Malformed),
        &with("connection", b"keep-alive"),
    );
    cases.head(("9113 8.2.2", "a transfer coding", Rule::Malformed), &with("transfer-encoding", b"chunked"));
    cases
        .head(("9113 8.2.2", "TE of more than trailers", Rule::Malformed), &with("te", b"trailers, deflate"));
    cases.head(("9113 8.2.2", "TE of trailers", Rule::Answered), &with("te", b"trailers"));
    cases.head(("9113 8.3", "a pseudo-header that nobody knows", Rule::Malformed), &with(":test", b"1"));
    cases.head(("9113 8.3", "a pseudo-header of answers", Rule::Malformed), &with(":status", b"200"));
    let late = block(&[
        (":method", b"GET"),
        (":scheme", b"http"),
        ("x-test", b"1"),
        (":path", b"/"),
        (":authority", b"h"),
    ]);
    cases.head(("9113 8.3", "a pseudo-header after others", Rule::Malformed), &late);
    cases.head(("9113 8.3.1", "an empty path", Rule::Malformed), &head(":path", &[(":path", b"")]));
    cases.head(("9113 8.3.1", "no method", Rule::Malformed), &head(":method", &[]));
    cases.head(("9113 8.3.1", "no scheme", Rule::Malformed), &head(":scheme", &[]));
    cases.head(("9113 8.3.1", "no path", Rule::Malformed), &head(":path", &[]));
    cases.head(("9113 8.3.1", "two methods", Rule::Malformed), &with(":method", b"GET"));
    cases.head(("9113 8.3.1", "two schemes", Rule::Malformed), &with(":scheme", b"http"));
    cases.head(("9113 8.3.1", "two paths", Rule::Malformed), &with(":path", b"/"));
    for (what, parts) in [
        ("another length than its data", &[&b"test"[..]][..]),
        ("another length than its data in pieces", &[b"te", b"st"]),
    ] {
        cases.add("9113 8.1.1", what, Rule::Malformed, |wire| {
            let head = head(":method", &[(":method", b"POST"), ("content-length", b"1")]);
            wire.frame(HEADERS, END_HEADERS, 1, &head);
            for (place, part) in parts.iter().enumerate() {
                let ends = if place + 1 == parts.len() { END_STREAM } else { 0 };
                wire.frame(DATA, ends, 1, part);
            }
        });
    }
}

fn compression(cases: &mut Cases) {
    let with = |bytes: &[u8]| [&head("", &[])[..], bytes].concat();
    cases.head(("7541 2.3.3", "a place beyond the table", COMPRESSION), &with(&[0xff, 0x70]));
    cases.head(("7541 6.1", "place zero of the table", COMPRESSION), &with(&[0x80]));
    cases.head(("7541 4.2", "a table size after the fields", COMPRESSION), &with(&[0x20]));
    cases.head(
        ("7541 6.3", "a table size beyond the largest", COMPRESSION),
        &[&[0x3f, 0xe2, 0xff, 0x7f][..], &head("", &[])].concat(),
    );
    cases.head(
        ("7541 5.2", "Huffman padding of a whole byte", COMPRESSION),
        &with(&[0, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff]),
    );
    cases.head(
        ("7541 5.2", "Huffman padding with zeros", COMPRESSION),
        &with(&[0, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90]),
    );
    cases.head(
        ("7541 5.2", "the end of a Huffman text in it", COMPRESSION),
        &with(&[0, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa, 0x7f]),
    );
    cases
        .head(("7541 5.2", "a text that ends before its length", COMPRESSION), &with(&[0, 0x7f, 0x0a, b'x']));
    cases.head(
        ("7541 6.1", "fields from the static table", Rule::Answered),
        &[0x82, 0x84, 0x86, 0x41, 1, b'h'],
    );
}
