//! Requests that no honest client sends. What is refused never reaches the upstream, and one request never
//! becomes two: both are counted there. The rows are also the table in docs/edge.md.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{Mesh, Setup, raw};
use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Outcome, RST_STREAM, Wire, ask, block,
    code, frames,
};

/// How long nothing more may come before all that comes has come.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long an answer may take that must come.
const LONG: Duration = Duration::from_secs(20);

const ROUTES: &str = r#"
routes:
  - name: open
    matches: [{path: {type: PathPrefix, value: /open}}]
    authz: off
    backends: [{cluster: app}]
    timeout: 2s
    request_header_modifier: {set: [{name: x-user, value: nobody}]}
"#;

/// One kind of hostile request.
struct Row {
    /// What was sent.
    what: &'static str,
    /// Over HTTP/1.1, and the status; 0 stands for a connection that is closed without an answer.
    h1: Option<(&'static [u8], u16)>,
    h2: Option<(Frames, Answer)>,
    upstream: Saw,
}

/// What goes out after the preface.
enum Frames {
    /// A request's head.
    Head(&'static [(&'static str, &'static [u8])]),
    /// A `GET` of `/open/a`, with further fields.
    Get(&'static [(&'static str, &'static [u8])]),
    /// Whatever this writes.
    Written(fn(&mut Wire)),
}

#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    /// The stream is reset, with this code.
    Reset(&'static str),
    /// The connection is closed, with this code.
    Gone(&'static str),
}

enum Saw {
    Nothing,
    /// One request, in which each of these headers has this value, or is not there.
    One(&'static [(&'static str, Option<&'static str>)]),
}

use Answer::{Gone, Reset, Status};
use Frames::{Get, Head, Written};
use Saw::{Nothing, One};

/// Codes of RFC 9113, 7.
const CODES: [(u32, &str); 5] = [
    (1, "PROTOCOL_ERROR"),
    (3, "FLOW_CONTROL_ERROR"),
    (6, "FRAME_SIZE_ERROR"),
    (9, "COMPRESSION_ERROR"),
    (11, "ENHANCE_YOUR_CALM"),
];

/// A head of `N` bytes: `filler` as often as it takes.
const fn padded<const N: usize>(start: &[u8], filler: &[u8], end: &[u8]) -> [u8; N] {
    let mut head = [0; N];
    let mut at = 0;
    while at < N {
        head[at] = if at < start.len() {
            start[at]
        } else if at < N - end.len() {
            filler[(at - start.len()) % filler.len()]
        } else {
            end[at + end.len() - N]
        };
        at += 1;
    }
    head
}

static OVERSIZE: [u8; 70_000] = padded(b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-large: ", b"x", b"\r\n\r\n");
static MANY: [u8; 31 + 5 * 110 + 2] = padded(b"GET /open/a HTTP/1.1\r\nhost: h\r\n", b"a:1\r\n", b"\r\n");

/// A head with so many short headers.
fn many(wire: &mut Wire) {
    let names: Vec<String> = (0..150).map(|number| format!("x-{number}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    wire.get(1, "/open/a", &more, true);
}

/// A head that needs CONTINUATION frames.
fn large(wire: &mut Wire) {
    let value = vec![b'x'; 70_000];
    let fields: [(&str, &[u8]); 5] = [
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"h"),
        (":path", b"/open/a"),
        ("x-large", &value),
    ];
    let block = block(&fields);
    let mut pieces = block.chunks(16_000).peekable();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let ends_headers = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let ends = if kind == HEADERS { END_STREAM } else { 0 };
        wire.frame(kind, ends | ends_headers, 1, piece);
        kind = CONTINUATION;
    }
}

const ROWS: &[Row] = &[
    Row { what: "nothing hostile", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[]), Status(200))), upstream: One(&[]) },
    Row { what: "two hosts, the same twice", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n", 400)), h2: Some((Get(&[("host", b"h"), ("host", b"h")]), Status(400))), upstream: Nothing },
    Row { what: "no host", h1: Some((b"GET /open/a HTTP/1.1\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":path", b"/open/a")]), Status(400))), upstream: Nothing },
    Row { what: "a host with a user", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: user@h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"user@h"), (":path", b"/open/a")]), Status(400))), upstream: Nothing },
    Row { what: "a host with a path", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h/evil\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h/evil"), (":path", b"/open/a")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "absolute form; `host` beside `:authority`, both the same", h1: Some((b"GET http://h/open/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("host", b"h")]), Status(200))), upstream: One(&[("host", Some("h"))]) },
    Row { what: "absolute form of another host; `:authority` and `host` that differ", h1: Some((b"GET http://evil/open/a HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Get(&[("host", b"evil")]), Status(400))), upstream: Nothing },
    Row { what: "`*` for a path", h1: Some((b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"OPTIONS"), (":scheme", b"http"), (":authority", b"h"), (":path", b"*")]), Status(400))), upstream: Nothing },
    Row { what: "CONNECT", h1: Some((b"CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"CONNECT"), (":authority", b"evil:443")]), Status(400))), upstream: Nothing },
    Row { what: "extended CONNECT", h1: None, h2: Some((Head(&[(":method", b"CONNECT"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a"), (":protocol", b"websocket")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a method in small letters", h1: Some((b"get /open/a HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"get"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a")]), Status(400))), upstream: Nothing },
    Row { what: "no path; a path without a slash", h1: Some((b"GET open/a HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"open/a")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a fragment in the path", h1: Some((b"GET /open/a#b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 200)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a#b")]), Status(200))), upstream: One(&[]) },
    Row { what: "a control byte in the path", h1: Some((b"GET /open/\x01 HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/\x01")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a space in the path", h1: Some((b"GET /open/a b HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a b")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "bytes in the path that are no UTF-8", h1: Some((b"GET /open/\xff HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/\xff")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "`%00` in the path", h1: Some((b"GET /open/%00 HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/%00")]), Status(400))), upstream: Nothing },
    Row { what: "a broken escape in the path", h1: Some((b"GET /open/%zz HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/%zz")]), Status(400))), upstream: Nothing },
    Row { what: "a way out by `..`", h1: Some((b"GET /open/../admin HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 404)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/../admin")]), Status(404))), upstream: Nothing },
    Row { what: "a way out by `%2e%2e`", h1: Some((b"GET /open/%2e%2e/admin HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 404)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/%2e%2e/admin")]), Status(404))), upstream: Nothing },
    Row { what: "a way out by `..%2f`", h1: Some((b"GET /open/..%2fadmin HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 404)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/..%2fadmin")]), Status(404))), upstream: Nothing },
    Row { what: "a way out by a backslash", h1: Some((b"GET /open/..\\admin HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 404)), h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/..\\admin")]), Status(404))), upstream: Nothing },
    Row { what: "`transfer-encoding` and `content-length`, and a request behind them", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: Some((Get(&[("transfer-encoding", b"chunked"), ("content-length", b"4")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "the same the other way round", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nhost: h\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "`transfer-encoding: identity, chunked`", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "`transfer-encoding: identity`", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: identity\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "`transfer-encoding: chunked, identity`", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "`transfer-encoding: xchunked`", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "two lengths that differ", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400)), h2: Some((Get(&[("content-length", b"3"), ("content-length", b"4")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "the same length twice", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400)), h2: None, upstream: Nothing },
    Row { what: "a length that is a list", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3, 3\r\n\r\nabc", 400)), h2: Some((Get(&[("content-length", b"3, 3")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a length with a sign", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: +3\r\n\r\nabc", 400)), h2: Some((Get(&[("content-length", b"+3")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a length and no body", h1: None, h2: Some((Get(&[("content-length", b"3")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "lines that end in LF alone", h1: Some((b"GET /open/a HTTP/1.1\nhost: h\n\n", 400)), h2: None, upstream: Nothing },
    Row { what: "one line that ends in LF alone", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\nx-a: b\r\n\r\n", 400)), h2: Some((Get(&[("x-a", b"b\nx-b: c")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a folded header", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-a: b\r\n c\r\n\r\n", 400)), h2: Some((Get(&[("x-a", b"b\r\n c")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a space before the colon", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-a : b\r\n\r\n", 400)), h2: Some((Get(&[("x-a ", b"b")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "NUL in a header", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-a: b\0c\r\n\r\n", 400)), h2: Some((Get(&[("x-a", b"b\0c")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a header name in capitals", h1: None, h2: Some((Get(&[("X-A", b"b")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "chunk extensions", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", 200)), h2: None, upstream: One(&[]) },
    Row { what: "a chunk size that is no number", h1: Some((b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "a head over `header_bytes`", h1: Some((&OVERSIZE, 431)), h2: Some((Written(large), Status(431))), upstream: Nothing },
    Row { what: "more than `headers` headers", h1: Some((&MANY, 431)), h2: Some((Written(many), Status(431))), upstream: Nothing },
    Row { what: "cookie crumbs", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\ncookie: a=b\r\ncookie: c=d\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("cookie", b"a=b"), ("cookie", b"c=d")]), Status(200))), upstream: One(&[("cookie", Some("a=b; c=d"))]) },
    Row { what: "a header that `connection` names", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: close, x-secret, x-forwarded-for\r\nx-secret: a\r\n\r\n", 200)), h2: None, upstream: One(&[("x-secret", None), ("connection", None), ("x-forwarded-for", Some("127.0.0.1"))]) },
    Row { what: "`connection` itself", h1: None, h2: Some((Get(&[("connection", b"x-secret"), ("x-secret", b"a")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row {
        what: "`te: gzip`",
        h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nte: gzip\r\nconnection: close\r\n\r\n", 200)),
        h2: None,
        upstream: One(&[("te", None)]),
    },
    Row {
        what: "the same",
        h1: None,
        h2: Some((Get(&[("te", b"gzip")]), Reset("PROTOCOL_ERROR"))),
        upstream: Nothing,
    },
    Row { what: "forged `x-forwarded-for`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 203.0.113.66\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-forwarded-for", b"203.0.113.66")]), Status(200))), upstream: One(&[("x-forwarded-for", Some("127.0.0.1"))]) },
    Row { what: "forged `x-forwarded-host`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-forwarded-host: evil\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-forwarded-host", b"evil")]), Status(200))), upstream: One(&[("x-forwarded-host", Some("h"))]) },
    Row { what: "forged `x-forwarded-proto`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: https\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-forwarded-proto", b"https")]), Status(200))), upstream: One(&[("x-forwarded-proto", Some("http"))]) },
    Row { what: "forged `forwarded`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nforwarded: for=203.0.113.66\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("forwarded", b"for=203.0.113.66")]), Status(200))), upstream: One(&[("forwarded", None)]) },
    Row { what: "forged `x-real-ip`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-real-ip: 203.0.113.66\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-real-ip", b"203.0.113.66")]), Status(200))), upstream: One(&[("x-real-ip", None)]) },
    Row { what: "forged `x-forwarded-client-cert`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-forwarded-client-cert: By=spiffe://d/x\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-forwarded-client-cert", b"By=spiffe://d/x")]), Status(200))), upstream: One(&[("x-forwarded-client-cert", None)]) },
    Row { what: "forged `x-tollgate-subject`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-tollgate-subject: root\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-tollgate-subject", b"root")]), Status(200))), upstream: One(&[("x-tollgate-subject", None)]) },
    Row { what: "forged `x-envoy-original-path`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-envoy-original-path: /admin\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x-envoy-original-path", b"/admin")]), Status(200))), upstream: One(&[("x-envoy-original-path", None)]) },
    Row { what: "`X_Forwarded_For` and `X_Tollgate_Subject`", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nX_Forwarded_For: 203.0.113.66\r\nX_Tollgate_Subject: root\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x_forwarded_for", b"203.0.113.66"), ("x_tollgate_subject", b"root")]), Status(200))), upstream: One(&[("x_forwarded_for", None), ("x_tollgate_subject", None), ("x-forwarded-for", Some("127.0.0.1"))]) },
    Row { what: "`X_User` and `X-User`, where the proxy says who the user is", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nX_User: root\r\nX-User: root\r\nconnection: close\r\n\r\n", 200)), h2: Some((Get(&[("x_user", b"root"), ("x-user", b"root")]), Status(200))), upstream: One(&[("x_user", None), ("x-user", Some("nobody"))]) },
    Row { what: "an upgrade that no route names, and bytes behind it", h1: Some((b"GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nGET /open/smuggled HTTP/1.1\r\nhost: h\r\n\r\n", 403)), h2: Some((Get(&[("upgrade", b"websocket")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "no HTTP at all", h1: Some((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400)), h2: Some((Written(|wire| wire.frame(DATA, 0, 0, b"abc")), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a version of its own", h1: Some((b"GET /open/a HTTP/3.7\r\nhost: h\r\n\r\n", 400)), h2: None, upstream: Nothing },
    Row { what: "a field of the head twice", h1: None, h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a"), (":path", b"/open/b")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a field of the head after the headers", h1: None, h2: Some((Head(&[(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), ("x-a", b"b"), (":path", b"/open/a")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a field of the head that nobody knows", h1: None, h2: Some((Get(&[(":admin", b"yes")]), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a field of an answer", h1: None, h2: Some((Get(&[(":status", b"200")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "no method, no scheme, no path", h1: None, h2: Some((Head(&[(":authority", b"h")]), Reset("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "data of a stream that was never opened", h1: None, h2: Some((Written(|wire| wire.frame(DATA, END_STREAM, 1, b"abc")), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a stream with an even number", h1: None, h2: Some((Written(|wire| wire.get(2, "/open/a", &[], true)), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a head within another", h1: None, h2: Some((Written(|wire| {
            wire.frame(HEADERS, END_STREAM, 1, &block(&[(":method", b"GET")]));
            wire.get(3, "/open/a", &[], true);
        }), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a header block that cannot be read", h1: None, h2: Some((Written(|wire| wire.frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 9])), Gone("PROTOCOL_ERROR"))), upstream: Nothing },
    Row { what: "a frame longer than it may be", h1: None, h2: Some((Written(|wire| wire.frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 20_000])), Gone("FRAME_SIZE_ERROR"))), upstream: Nothing },
];

/// What was answered, as the table says it.
fn said(outcome: &Outcome) -> String {
    let code = |code: &u32| {
        CODES
            .iter()
            .find(|(number, _)| number == code)
            .map_or_else(|| code.to_string(), |(_, name)| (*name).to_owned())
    };
    match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Reset(number) => format!("reset, `{}`", code(number)),
        Outcome::Gone(number) => format!("closed, `{}`", code(number)),
        Outcome::Closed => "closed".to_owned(),
        Outcome::Silence => "nothing".to_owned(),
    }
}

impl Answer {
    fn said(self) -> String {
        match self {
            Status(status) => status.to_string(),
            Reset(code) => format!("reset, `{code}`"),
            Gone(code) => format!("closed, `{code}`"),
        }
    }
}

impl Frames {
    fn write(&self) -> Wire {
        let mut wire = Wire::default().preface(&[]);
        match self {
            Head(fields) => wire.head(1, fields, true),
            Get(more) => {
                let get: [(&str, &[u8]); 4] =
                    [(":method", b"GET"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a")];
                wire.head(1, &[&get[..], more].concat(), true);
            }
            Written(write) => write(&mut wire),
        }
        wire
    }
}

impl Saw {
    /// What is wrong with what the upstream saw.
    fn wrong(&self, seen: &[tollgate_testkit::echo_app::Seen]) -> Option<String> {
        let expected = match self {
            Nothing if seen.is_empty() => return None,
            One(expected) if seen.len() == 1 => expected,
            _ => return Some(format!("the upstream saw {} requests", seen.len())),
        };
        expected.iter().find_map(|(name, value)| {
            let all: Vec<_> =
                seen[0].headers.get_all(*name).iter().map(|value| value.to_str().unwrap()).collect();
            let right = all == value.iter().copied().collect::<Vec<_>>();
            (!right).then(|| format!("the upstream saw `{name}: {}`", all.join(" | ")))
        })
    }

    fn said(&self) -> String {
        let One(expected) = self else { return "nothing".to_owned() };
        let headers = expected.iter().map(|(name, value)| match value {
            Some(value) => format!("`{name}: {value}`"),
            None => format!("no `{name}`"),
        });
        let headers: Vec<_> = headers.collect();
        if headers.is_empty() {
            "one request".to_owned()
        } else {
            format!("one request, {}", headers.join(", "))
        }
    }
}

#[tokio::test]
async fn hostile_requests_stop_here_or_arrive_harmless() {
    let unlimited = "limit_by_address: {per_second: 0}";
    let mesh = Setup { listener: unlimited, routes: Some(ROUTES), ..Setup::default() }.start().await;
    let mut wrong = Vec::new();
    for Row { what, h1, h2, upstream } in ROWS {
        let mut check = |version: &str, got: String, expected: String, before: usize| {
            let seen = &mesh.app.seen()[before..];
            if got != expected {
                wrong.push(format!("{what}, {version}: {got}, not {expected}"));
            }
            wrong.extend(upstream.wrong(seen).map(|problem| format!("{what}, {version}: {problem}")));
        };
        if let Some((bytes, expected)) = h1 {
            let before = mesh.app.seen().len();
            let heard = said_to(mesh.address, bytes).await;
            let status = heard.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("0");
            check("HTTP/1.1", status.to_owned(), expected.to_string(), before);
        }
        if let Some((frames, expected)) = h2 {
            let before = mesh.app.seen().len();
            let outcome = ask(mesh.address, &frames.write(), LONG).await;
            check("HTTP/2", said(&outcome), expected.said(), before);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All that comes back until the proxy closes, or has said something and nothing more for a while.
async fn said_to(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The proxy may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    let mut patience = LONG;
    while let Ok(Ok(1..)) = tokio::time::timeout(patience, stream.read_buf(&mut heard)).await {
        patience = PATIENCE;
    }
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn the_page_has_the_same_rows() {
    let mut table =
        "| sent | over HTTP/1.1 | over HTTP/2 | the upstream saw |\n|---|---|---|---|\n".to_owned();
    for Row { what, h1, h2, upstream } in ROWS {
        let h1 = h1.map_or_else(|| "—".to_owned(), |(_, status)| status.to_string());
        let h2 = h2.as_ref().map_or_else(|| "—".to_owned(), |(_, answer)| answer.said());
        table.push_str(&format!("| {what} | {h1} | {h2} | {} |\n", upstream.said()));
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/edge.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&table), "docs/edge.md should have this table:\n{table}");
}

#[tokio::test]
async fn paths_reach_the_upstream_in_normal_form() {
    let mesh = Setup::default().start().await;
    for (sent, seen) in [("/open//a/./b", "/open/a/b"), ("/open/%61%2Fb?q=%2F", "/open/a/b?q=%2F")] {
        assert_eq!(mesh.get(sent).send().await.status, 200);
        assert_eq!(mesh.app.seen().pop().unwrap().uri, seen);
    }
}

#[tokio::test]
async fn pipelined_requests_are_as_many_as_they_are() {
    let mesh = Setup::default().start().await;
    let two = b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabcGET /open/b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let heard = raw(mesh.address, two, LONG).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
    let paths: Vec<_> = mesh.app.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/open/a", "/open/b"]);
    // A hostile one behind an honest one is found all the same.
    let hidden = b"POST /open/c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /open/d HTTP/1.1\nhost: h\n\n";
    let heard = raw(mesh.address, hidden, LONG).await;
    assert!(heard.contains("HTTP/1.1 200") && heard.contains("HTTP/1.1 400"), "{heard}");
    assert_eq!(mesh.app.seen().len(), 3);
}

#[tokio::test]
async fn what_is_said_after_the_body_goes_nowhere() {
    let mesh = Setup { cluster: "protocol: h2", ..Setup::default() }.start().await;
    let request =
        b"POST /open/t HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntrailer: x-tollgate-subject\r\n\
        connection: close\r\n\r\n3\r\nabc\r\n0\r\nx-tollgate-subject: root\r\n\r\n";
    let heard = raw(mesh.address, request, LONG).await;
    assert!(heard.contains("HTTP/1.1 200"), "{heard}");
    let seen = mesh.app.seen().remove(0);
    assert_eq!(&seen.body[..], b"abc");
    assert!(seen.trailers.is_none(), "{:?}", seen.trailers);
}

/// What a flood came to: the code that its connection was closed with.
async fn flood(mesh: &Mesh, wire: Wire, more: impl Fn(&mut Wire, u32), times: u32) -> Outcome {
    let stream = TcpStream::connect(mesh.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut hearing = JoinSet::new();
    hearing.spawn(async move {
        let mut came = Vec::new();
        loop {
            let gone = frames(&mut came).into_iter().find(|frame| frame.kind == GOAWAY);
            if let Some(gone) = gone.map(|frame| code(&frame.payload[4..])).filter(|code| *code != 0) {
                return Outcome::Gone(gone);
            }
            if !matches!(read.read_buf(&mut came).await, Ok(1..)) {
                return Outcome::Closed;
            }
        }
    });
    write.write_all(wire.bytes()).await.unwrap();
    let mut wire = Wire::default();
    for number in 0..times {
        more(&mut wire, number);
        if wire.bytes().len() > 16_000 || number + 1 == times {
            // It is closed before all is written.
            if write.write_all(wire.bytes()).await.is_err() {
                break;
            }
            wire.clear();
        }
    }
    let heard = tokio::time::timeout(LONG, hearing.join_next()).await;
    heard.map_or(Outcome::Silence, |heard| heard.unwrap().unwrap())
}

/// How much of a flood there is: `make soak` has it whole.
const STREAMS: u32 = if cfg!(feature = "soak") { 100_000 } else { 5_000 };
const SLOW_CLIENTS: usize = if cfg!(feature = "soak") { 2_000 } else { 100 };
/// What the process may grow by in a flood, in KiB.
const GROWTH: usize = 64 << 10;

/// Memory of this process that is in use, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_and_nothing_else() {
    let unlimited = "limit_by_address: {per_second: 0}";
    let mesh = Setup { listener: unlimited, routes: Some(ROUTES), ..Setup::default() }.start().await;
    let before = resident();
    let hello = Wire::default().preface(&[]);

    // Rapid reset: streams are opened and taken back at once.
    let reset = |wire: &mut Wire, number: u32| {
        let stream = 2 * number + 1;
        wire.get(stream, "/open/a", &[("x-behave", "delay:2000")], true);
        wire.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    };
    let gone = flood(&mesh, hello.clone(), reset, STREAMS).await;
    assert_eq!(said(&gone), "closed, `ENHANCE_YOUR_CALM`", "rapid reset");
    let forwarded = mesh.app.seen().len();
    assert!(forwarded < 100, "{forwarded} of {STREAMS} went on to the upstream");

    // A head that goes on and on.
    let mut endless = hello.clone();
    endless.frame(HEADERS, END_STREAM, 1, &block(&[(":method", b"GET")]));
    let more = |wire: &mut Wire, number: u32| {
        wire.frame(CONTINUATION, 0, 1, &block(&[(&format!("x-{number}"), b"1")]));
    };
    let gone = flood(&mesh, endless, more, STREAMS).await;
    assert_eq!(said(&gone), "closed, `ENHANCE_YOUR_CALM`", "CONTINUATION");

    // A body of nothing.
    let mut open = hello.clone();
    open.head(
        1,
        &[(":method", b"POST"), (":scheme", b"http"), (":authority", b"h"), (":path", b"/open/a")],
        false,
    );
    let gone = flood(&mesh, open, |wire, _| wire.frame(DATA, 0, 1, &[]), STREAMS).await;
    assert_eq!(said(&gone), "closed, `ENHANCE_YOUR_CALM`", "empty DATA");

    assert_eq!(mesh.get("/open/b").send().await.status, 200);
    assert_eq!(mesh.get("/open/b").http2().send().await.status, 200);
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB");
}

#[tokio::test]
async fn slow_clients_are_told_so_and_hold_nobody_up() {
    let listener =
        "limit_by_address: {per_second: 0}, limits: {head_timeout: 3s, connections_per_address: 5000}";
    let mesh = Setup { listener, routes: Some(ROUTES), ..Setup::default() }.start().await;
    let before = resident();
    let mut slow = JoinSet::new();
    for _ in 0..SLOW_CLIENTS {
        let mut stream = TcpStream::connect(mesh.address).await.unwrap();
        slow.spawn(async move {
            let head = b"GET /open/slow HTTP/1.1\r\nhost: h\r\nx-slow: ";
            // A byte a second, for as long as anybody listens.
            for byte in head.iter().chain(std::iter::repeat(&b'x')) {
                let said = async {
                    let mut heard = vec![0; 1024];
                    stream.readable().await.unwrap();
                    let count = stream.read(&mut heard).await.unwrap_or(0);
                    heard.truncate(count);
                    heard
                };
                if let Ok(heard) = tokio::time::timeout(Duration::from_secs(1), said).await {
                    return heard;
                }
                let _ = stream.write_all(&[*byte]).await;
            }
            Vec::new()
        });
    }
    // The others are served meanwhile.
    for _ in 0..20 {
        assert_eq!(mesh.get("/open/a").send().await.status, 200);
    }
    while let Some(heard) = slow.join_next().await {
        let heard = String::from_utf8(heard.unwrap()).unwrap();
        assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    }
    assert_eq!(mesh.app.seen().len(), 20);
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB");
}
