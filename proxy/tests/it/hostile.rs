//! Requests that no honest client sends. What is refused never reaches the upstream, and one request never
//! becomes two: both are counted there.

use std::time::Duration;

use crate::harness::{Setup, raw};

const PATIENCE: Duration = Duration::from_millis(700);

/// What was sent, the first line of what came back, and how many requests the upstream saw.
const CASES: &[(&str, &[u8], &str, usize)] = &[
    ("honest", b"GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", "HTTP/1.1 200", 1),
    ("two hosts", b"GET /open/a HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("no host", b"GET /open/a HTTP/1.1\r\n\r\n", "HTTP/1.1 400", 0),
    ("absolute form", b"GET http://h/open/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", "HTTP/1.1 200", 1),
    ("absolute form of another host", b"GET http://evil/open/a HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("two lengths", b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", "HTTP/1.1 400", 0),
    ("the same length twice", b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.1 400", 0),
    ("a length that is a list", b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 3, 3\r\n\r\nabc", "HTTP/1.1 400", 0),
    ("a length with a sign", b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: +3\r\n\r\nabc", "HTTP/1.1 400", 0),
    ("te and cl", b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("cl and te", b"POST /open/a HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("a coding that is not chunked", b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: identity\r\n\r\n", "HTTP/1.1 400", 0),
    ("chunked and something after it", b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", "HTTP/1.1 400", 0),
    ("a coding in disguise", b"POST /open/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400", 0),
    ("a space before the colon", b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-a : b\r\n\r\n", "HTTP/1.1 400", 0),
    ("a folded header", b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-a: b\r\n c\r\n\r\n", "HTTP/1.1 400", 0),
    ("bare line feeds", b"GET /open/a HTTP/1.1\nhost: h\n\n", "HTTP/1.1 400", 0),
    ("one bare line feed", b"GET /open/a HTTP/1.1\r\nhost: h\nx-a: b\r\n\r\n", "HTTP/1.1 400", 0),
    ("a nul in a header", b"GET /open/a HTTP/1.1\r\nhost: h\r\nx-a: b\0c\r\n\r\n", "HTTP/1.1 400", 0),
    ("no http at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1 400", 0),
    ("a version of its own", b"GET /open/a HTTP/3.7\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("connect", b"CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\n\r\n", "HTTP/1.1 400", 0),
    ("asterisk", b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("an upgrade", b"GET /open/a HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "HTTP/1.1 403", 0),
    ("a nul in the path", b"GET /open/%00 HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("a broken escape", b"GET /open/%zz HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 400", 0),
    ("a way out by dots", b"GET /open/../admin HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 404", 0),
    ("a way out by escaped dots", b"GET /open/%2e%2e/admin HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 404", 0),
    ("a way out by an escaped slash", b"GET /open/..%2fadmin HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 404", 0),
    ("a way out by a backslash", b"GET /open/..\\admin HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 404", 0),
    ("a host with a user", b"GET /open/a HTTP/1.1\r\nhost: user@h\r\n\r\n", "HTTP/1.1 400", 0),
    ("a host with a path", b"GET /open/a HTTP/1.1\r\nhost: h/evil\r\n\r\n", "HTTP/1.1 400", 0),
];

#[tokio::test]
async fn hostile_heads_stop_here() {
    let mesh = Setup { listener: "limit_by_address: {per_second: 0}", ..Setup::default() }.start().await;
    let mut wrong = Vec::new();
    for (name, bytes, expected, forwarded) in CASES {
        let before = mesh.app.seen().len();
        let heard = raw(mesh.address, bytes, PATIENCE).await;
        let line = heard.lines().next().unwrap_or("nothing");
        let seen = mesh.app.seen().len() - before;
        if !line.starts_with(expected) || seen != *forwarded {
            wrong.push(format!("{name}: `{line}`, and the upstream saw {seen}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
    let heard = raw(mesh.address, two, PATIENCE).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
    let paths: Vec<_> = mesh.app.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/open/a", "/open/b"]);
    // A hostile one behind an honest one is found all the same.
    let hidden = b"POST /open/c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /open/d HTTP/1.1\nhost: h\n\n";
    let heard = raw(mesh.address, hidden, PATIENCE).await;
    assert!(heard.contains("HTTP/1.1 200") && heard.contains("HTTP/1.1 400"), "{heard}");
    assert_eq!(mesh.app.seen().len(), 3);
}

#[tokio::test]
async fn what_is_said_after_the_body_goes_nowhere() {
    let mesh = Setup { cluster: "protocol: h2", ..Setup::default() }.start().await;
    let request =
        b"POST /open/t HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntrailer: x-tollgate-subject\r\n\
        connection: close\r\n\r\n3\r\nabc\r\n0\r\nx-tollgate-subject: root\r\n\r\n";
    let heard = raw(mesh.address, request, PATIENCE).await;
    assert!(heard.contains("HTTP/1.1 200"), "{heard}");
    let seen = mesh.app.seen().remove(0);
    assert_eq!(&seen.body[..], b"abc");
    assert!(seen.trailers.is_none(), "{:?}", seen.trailers);
}

#[tokio::test]
async fn http2_with_two_hosts_is_refused() {
    let mesh = Setup::default().start().await;
    let answer = mesh.get("/open/a").header("host", "evil").http2().send().await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "request_malformed"));
    assert!(mesh.app.seen().is_empty());
}
