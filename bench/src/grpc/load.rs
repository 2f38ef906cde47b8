//! Calls as proxies send them, many at once. Messages are encoded beforehand: the load generator has one core.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::future::try_join_all;
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::Server;
use crate::process::{cpu, rss_mib};

const CONNECTIONS: usize = 4;
/// Calls in flight on each connection.
const STREAMS: usize = 16;
/// One call in so many is traced.
const TRACED: usize = 10;

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
    method: PathAndQuery,
    messages: Vec<Bytes>,
    next: AtomicUsize,
}

impl Calls {
    /// These messages, over and over.
    pub(crate) fn new(method: &'static str, messages: impl IntoIterator<Item = impl prost::Message>) -> Self {
        let messages = messages.into_iter().map(|message| message.encode_to_vec().into()).collect();
        Self { method: PathAndQuery::from_static(method), messages, next: AtomicUsize::new(0) }
    }

    fn next(&self) -> (usize, Request<Bytes>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::new(self.messages[number % self.messages.len()].clone());
        let sampled = u8::from(number.is_multiple_of(TRACED));
        let parent = format!("00-{:032x}-00f067aa0ba902b7-0{sampled}", number + 1);
        request.metadata_mut().insert("traceparent", parent.parse().expect("hexadecimal digits"));
        (number, request)
    }
}

/// To one server.
pub(super) struct Connections(Vec<tonic::client::Grpc<Channel>>);

impl Connections {
    pub(super) async fn to(server: &Server<'_>) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address))?.tcp_nodelay(true);
        let channels = try_join_all((0..CONNECTIONS).map(|_| endpoint.connect())).await;
        let channels = channels.with_context(|| format!("no connection to {}", server.name))?;
        Ok(Self(channels.into_iter().map(tonic::client::Grpc::new).collect()))
    }

    /// Loads the server for a while.
    pub(super) async fn run(
        &self,
        server: &Server<'_>,
        calls: &Calls,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let (started, before) = (Instant::now(), cpu(server.pid)?);
        let workers = self
            .0
            .iter()
            .flat_map(|client| (0..STREAMS).map(|_| worker(client.clone(), server, calls, started + time)));
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
    mut client: tonic::client::Grpc<Channel>,
    server: &Server<'_>,
    calls: &Calls,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(latencies);
        }
        let (number, request) = calls.next();
        client.ready().await?;
        let answer = client.unary(request, calls.method.clone(), Raw).await?.into_inner();
        latencies.push(began.elapsed());
        ensure!((server.is_right)(&answer), "{} gave another answer to call {number}", server.name);
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
