//! Calls as proxies send them, many at once. They are encoded beforehand and sent by h2 itself: the load generator has
//! one core, which must not be the busier one.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::try_join_all;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Server;
use crate::process::{cpu, rss_mib};

const CONNECTIONS: usize = 4;
/// Calls in flight on each connection, where the scenario does not say.
const STREAMS: usize = 16;
/// One call in so many is traced.
const TRACED: usize = 10;
/// A message's head: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// What a round gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU of the server for each call.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p99_us: f64,
    pub(crate) rss_mib: f64,
}

impl Sample {
    /// The median of each figure.
    pub(crate) fn median(samples: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            cpu_us: middle(|s| s.cpu_us),
            per_second: middle(|s| s.per_second),
            p99_us: middle(|s| s.p99_us),
            rss_mib: middle(|s| s.rss_mib),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.1} us CPU a call  {:>7.0} calls/s  p99 {:>6.0} us  {:>5.0} MiB",
            self.cpu_us, self.per_second, self.p99_us, self.rss_mib
        )
    }
}

/// Calls of one method, in turn.
pub(crate) struct Calls {
    method: &'static str,
    messages: Vec<Bytes>,
    next: AtomicUsize,
    streams: usize,
    in_traces: bool,
}

impl Calls {
    /// These messages, over and over.
    pub(crate) fn new(method: &'static str, messages: impl IntoIterator<Item = impl prost::Message>) -> Self {
        let messages = messages.into_iter().map(|message| framed(&message)).collect();
        Self { method, messages, next: AtomicUsize::new(0), streams: STREAMS, in_traces: true }
    }

    /// With so many in flight on each connection.
    pub(crate) fn with_streams(self, streams: usize) -> Self {
        Self { streams, ..self }
    }

    /// From proxies that trace nothing.
    pub(crate) fn without_traces(self) -> Self {
        Self { in_traces: false, ..self }
    }

    fn next(&self, heads: &Heads) -> (usize, Request<()>, Bytes) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = heads.uri.clone();
        *request.headers_mut() = heads.headers.clone();
        if self.in_traces {
            let sampled = u8::from(number.is_multiple_of(TRACED));
            let parent = format!("00-{:032x}-00f067aa0ba902b7-0{sampled}", number + 1);
            request.headers_mut().insert("traceparent", parent.parse().expect("hexadecimal digits"));
        }
        (number, request, self.messages[number % self.messages.len()].clone())
    }
}

fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are small"));
    message.encode(&mut frame).expect("there is room for it");
    frame.freeze()
}

/// What is the same for all calls of a method to a server.
struct Heads {
    uri: Uri,
    headers: HeaderMap,
}

impl Heads {
    fn new(server: &Server<'_>, calls: &Calls) -> anyhow::Result<Self> {
        let uri = format!("http://{}{}", server.address, calls.method).parse()?;
        let mut headers = HeaderMap::new();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("user-agent", HeaderValue::from_static("tollgate-bench"));
        Ok(Self { uri, headers })
    }
}

/// To one server.
pub(super) struct Connections {
    senders: Vec<SendRequest<Bytes>>,
    /// What reads and writes them, for as long as this value lives.
    _tasks: JoinSet<Result<(), h2::Error>>,
}

impl Connections {
    pub(super) async fn to(server: &Server<'_>) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(server.address).await;
            let stream = stream.with_context(|| format!("no connection to {}", server.name))?;
            stream.set_nodelay(true)?;
            let (sender, connection) = h2::client::handshake(stream).await?;
            tasks.spawn(connection);
            senders.push(sender);
        }
        Ok(Self { senders, _tasks: tasks })
    }

    /// Loads the server for a while.
    pub(super) async fn run(
        &self,
        server: &Server<'_>,
        calls: &Calls,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let heads = Heads::new(server, calls)?;
        let (started, before) = (Instant::now(), cpu(server.pid)?);
        let workers = self.senders.iter().flat_map(|sender| {
            let heads = &heads;
            (0..calls.streams).map(move |_| worker(sender.clone(), server, calls, heads, started + time))
        });
        let mut latencies = try_join_all(workers).await?.concat();
        let (spent, elapsed) = (cpu(server.pid)? - before, started.elapsed());
        latencies.sort_unstable();
        let count = latencies.len();
        ensure!(count > 0, "{} answered nothing", server.name);
        Ok(Sample {
            cpu_us: spent.as_secs_f64() * 1e6 / count as f64,
            per_second: count as f64 / elapsed.as_secs_f64(),
            p99_us: latencies[count * 99 / 100].as_secs_f64() * 1e6,
            rss_mib: rss_mib(server.pid)?,
        })
    }
}

async fn worker(
    mut sender: SendRequest<Bytes>,
    server: &Server<'_>,
    calls: &Calls,
    heads: &Heads,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(latencies);
        }
        let (number, request, message) = calls.next(heads);
        let answer = ask(&mut sender, request, message).await;
        let answer = answer.with_context(|| format!("{} failed call {number}", server.name))?;
        latencies.push(began.elapsed());
        ensure!((server.is_right)(&answer), "{} gave another answer to call {number}", server.name);
    }
}

/// One call; the message of its answer.
async fn ask(sender: &mut SendRequest<Bytes>, request: Request<()>, message: Bytes) -> anyhow::Result<Bytes> {
    poll_fn(|context| sender.poll_ready(context)).await?;
    let (answer, mut body) = sender.send_request(request, false)?;
    body.send_data(message, true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut frame = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        frame = if frame.is_empty() { chunk } else { [frame, chunk].concat().into() };
    }
    let trailers = body.trailers().await?;
    let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
    ensure!(status.is_some_and(|status| status == "0"), "status {status:?}");
    ensure!(frame.len() >= HEAD_BYTES, "no message");
    Ok(frame.slice(HEAD_BYTES..))
}
