//! Checks as an ingress sends them, many at once.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tonic::Request;
use tonic::transport::Channel;

use crate::server::{ISSUER, Server};
use crate::signer::Signer;

const CONNECTIONS: usize = 4;
/// Checks in flight on each connection.
const STREAMS: usize = 16;
/// One request in so many is traced.
const TRACED: usize = 10;

/// What a round gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU of the server for each request.
    pub(crate) micros: f64,
    per_second: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} us CPU, {:.0}/s", self.micros, self.per_second)
    }
}

/// Tokens that requests carry, in turn.
pub(crate) struct Tokens {
    requests: Vec<CheckRequest>,
    next: AtomicUsize,
}

impl Tokens {
    /// Few, over and over.
    pub(crate) fn seen(signer: &Signer) -> Self {
        Self::new(signer, 100)
    }

    /// So many that none comes twice.
    pub(crate) fn fresh(signer: &Signer, count: usize) -> Self {
        Self::new(signer, count)
    }

    fn new(signer: &Signer, count: usize) -> Self {
        let requests = (0..count).map(|number| request(&token(signer, number))).collect();
        Self { requests, next: AtomicUsize::new(0) }
    }

    fn next(&self) -> (usize, &CheckRequest) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, &self.requests[number % self.requests.len()])
    }
}

fn token(signer: &Signer, number: usize) -> String {
    signer.token(&json!({
        "iss": ISSUER, "sub": "reader", "aud": "insurance", "scope": "openid profile policies:read", "client_id": "web",
        "iat": 1_700_000_000, "exp": 9_999_999_999_u64, "jti": format!("token-{number}"), "groups": ["staff", "claims"],
        "name": "Rea Der", "email": "reader@insurance.example",
    }))
}

/// With what a browser and an ingress say: eighteen headers, peers, the route.
fn request(token: &str) -> CheckRequest {
    let mut request = CheckRequest::default();
    let attributes = request.attributes.get_or_insert_default();
    attributes.context_extensions = [
        ("tollgate.service", "insurance/policies"),
        ("tollgate.point", "ingress"),
        ("tollgate.route", "policies"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    attributes.destination.get_or_insert_default().principal =
        "spiffe://tollgate.demo/ns/insurance/sa/policies".to_owned();
    let http = attributes.request.get_or_insert_default().http.get_or_insert_default();
    http.id = "1234567890123456789".to_owned();
    http.method = "GET".to_owned();
    http.path = "/policies/POL-1042?expand=claims".to_owned();
    http.host = "policies.insurance.example".to_owned();
    http.scheme = "https".to_owned();
    http.protocol = "HTTP/2".to_owned();
    http.headers = [
        (":method", "GET"),
        (":path", "/policies/POL-1042?expand=claims"),
        (":authority", "policies.insurance.example"),
        (":scheme", "https"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
        ("cache-control", "no-cache"),
        ("cookie", "theme=dark; consent=2026-01-01; visitor=4f7c1f6a9d0b4b6e"),
        ("origin", "https://portal.insurance.example"),
        ("referer", "https://portal.insurance.example/policies"),
        ("sec-fetch-mode", "cors"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "0198c1f2-7a5e-7c31-9d2e-2f6d0a3c1b4e"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    http.headers.insert("authorization".to_owned(), format!("Bearer {token}"));
    request
}

/// Connections to one server.
pub(crate) struct Load {
    clients: Vec<AuthorizationClient<Channel>>,
}

impl Load {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let channel = || async move {
            let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address is a URL");
            AuthorizationClient::new(endpoint.tcp_nodelay(true).connect().await.expect("it listens"))
        };
        Self { clients: join_all((0..CONNECTIONS).map(|_| channel())).await }
    }

    /// Loads the server for a while.
    pub(crate) async fn run(&self, server: &Server, tokens: &Tokens, time: Duration) -> Sample {
        let (started, before) = (Instant::now(), server.cpu());
        let workers = self.clients.iter().flat_map(|client| {
            (0..STREAMS).map(|_| worker(client.clone(), tokens, server.must_allow, started + time))
        });
        let answered: u64 = join_all(workers).await.into_iter().sum();
        let cpu = server.cpu() - before;
        Sample {
            micros: cpu.as_secs_f64() * 1e6 / answered as f64,
            per_second: answered as f64 / started.elapsed().as_secs_f64(),
        }
    }
}

async fn worker(
    mut client: AuthorizationClient<Channel>,
    tokens: &Tokens,
    must_allow: bool,
    until: Instant,
) -> u64 {
    let mut answered = 0;
    while Instant::now() < until {
        let (number, message) = tokens.next();
        let mut request = Request::new(message.clone());
        let sampled = u8::from(number.is_multiple_of(TRACED));
        let parent = format!("00-{:032x}-00f067aa0ba902b7-0{sampled}", number + 1);
        request.metadata_mut().insert("traceparent", parent.parse().expect("hexadecimal digits"));
        let answer = client.check(request).await.expect("an answer").into_inner();
        let allowed = matches!(answer.http_response, Some(HttpResponse::OkResponse(_)));
        assert!(allowed == must_allow, "{answer:?}");
        answered += 1;
    }
    answered
}
