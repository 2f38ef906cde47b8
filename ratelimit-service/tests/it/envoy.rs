//! A real Envoy with limits as the reference's documentation writes them: what its clients get.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_testkit::envoy::Envoy;
use tollgate_testkit::envoy_limits;

use crate::support::Served;

/// With what its examples show: nested keys, a replaced rule, shadow mode, unlimited, a key without a value.
const LIMITS: &str = r#"
domain: rl
descriptors:
  - key: category
    value: account
    rate_limit:
      replaces:
        - name: bkthomps
      unit: minute
      requests_per_unit: 4
  - key: source_cluster
    value: proxy
    descriptors:
      - key: destination_cluster
        value: mock
        rate_limit: {unit: minute, requests_per_unit: 1}
  - key: foo
    rate_limit: {name: bkthomps, unit: minute, requests_per_unit: 2}
    descriptors:
      - key: bar
        rate_limit: {unit: minute, requests_per_unit: 3}
      - key: bar
        value: banned
        rate_limit: {unit: day, requests_per_unit: 0}
      - key: baz
        value: not-so-shady
        rate_limit: {unit: minute, requests_per_unit: 3}
      - key: baz
        value: shady
        rate_limit: {unit: minute, requests_per_unit: 3}
        shadow_mode: true
      - key: bay
        rate_limit: {unlimited: true}
  - key: qux
    rate_limit: {unlimited: true}
"#;

const DESCRIPTORS: &[&[(&str, &str)]] = &[
    &[("foo", "foo")],
    &[("within", "foo"), ("bar", "bar")],
    &[("within", "foo"), ("baz", "baz")],
    &[("within", "foo"), ("bay", "bay")],
    &[("category", "category")],
    &[("source", "source_cluster"), ("destination", "destination_cluster")],
    &[("qux", "qux")],
];

/// The status, and `x-ratelimit-limit`, `-remaining` and `-reset` as one line.
async fn ask(envoy: &Envoy, headers: &[(&str, &str)]) -> (u16, String) {
    let mut stream = TcpStream::connect(envoy.address()).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let of = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("x-ratelimit-{name}: ")));
        line.unwrap_or("-").to_owned()
    };
    (status, format!("{} | {} | {}", of("limit"), of("remaining"), of("reset")))
}

async fn statuses(envoy: &Envoy, headers: &[(&str, &str)], times: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..times {
        all.push(ask(envoy, headers).await.0);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_clients_get_what_the_reference_would_give_them() {
    let served = Served::with_limits(LIMITS).await;
    let envoy = envoy_limits::start(served.address(), "rl", DESCRIPTORS);

    assert_eq!(ask(&envoy, &[("foo", "a")]).await, (200, "2, 2;w=60;name=\"bkthomps\" | 1 | 60".to_owned()));
    assert_eq!(ask(&envoy, &[("foo", "a")]).await, (200, "2, 2;w=60;name=\"bkthomps\" | 0 | 60".to_owned()));
    assert_eq!(ask(&envoy, &[("foo", "a")]).await.0, 429);
    assert_eq!(ask(&envoy, &[("foo", "b")]).await.0, 200, "each value has a counter of its own");

    type Row = (&'static [(&'static str, &'static str)], &'static [u16]);
    let table: &[Row] = &[
        (&[("within", "x"), ("bar", "any")], &[200, 200, 200, 429]),
        (&[("within", "x"), ("bar", "banned")], &[429]),
        (&[("within", "x"), ("baz", "not-so-shady")], &[200, 200, 200, 429]),
        (&[("within", "x"), ("baz", "shady")], &[200, 200, 200, 200, 200]),
        (&[("within", "x"), ("bay", "any")], &[200, 200, 200, 200]),
        (&[("category", "account")], &[200, 200, 200, 200, 429]),
        (&[("category", "other")], &[200, 200, 200]),
        (&[("source", "proxy"), ("destination", "mock")], &[200, 429]),
        (&[("source", "proxy"), ("destination", "other")], &[200, 200]),
        (&[("qux", "any")], &[200, 200, 200]),
        (&[("unrelated", "any")], &[200, 200]),
    ];
    for (headers, expected) in table {
        assert_eq!(statuses(&envoy, headers, expected.len()).await, *expected, "{headers:?}");
    }

    // In the next window `category` replaces `foo`'s limit by its name: only the former refuses.
    served.clock.advance(Duration::from_secs(60));
    let both = [("foo", "c"), ("category", "account")];
    assert_eq!(statuses(&envoy, &both, 5).await, [200, 200, 200, 200, 429]);
    // What has no limit shows none.
    assert_eq!(ask(&envoy, &[("qux", "any")]).await.1, "- | - | -");
}
