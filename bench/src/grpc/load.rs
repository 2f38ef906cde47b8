//! Calls as proxies send them, many at once. They are encoded beforehand: the load generator has one core, which must
//! not be the busier one.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::try_join_all;

use super::Server;
use super::wire::{Connection, MESSAGE_HEAD, Outgoing};
use crate::process::{cpu, rss_mib};

const CONNECTIONS: usize = 4;
/// Calls in flight on each connection, where the scenario does not say.
const STREAMS: usize = 16;
/// One call in so many is traced.
const TRACED: usize = 10;

/// What a round gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU of the server for each call.
    pub(crate) cpu_us: f64,
    /// How much of its core the server used, and how much of the other one we did: a count of calls says something
    /// about the server only where its core was the busier one.
    pub(crate) busy: f64,
    pub(crate) load_busy: f64,
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
            busy: middle(|s| s.busy),
            load_busy: middle(|s| s.load_busy),
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
            "{:>7.1} us CPU a call  {:>7.0} calls/s  p99 {:>6.0} us  {:>5.0} MiB  busy {:.2} (load {:.2})",
            self.cpu_us, self.per_second, self.p99_us, self.rss_mib, self.busy, self.load_busy
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

    fn next(&self) -> Outgoing {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let traceparent = self.in_traces.then(|| {
            let sampled = u8::from(number.is_multiple_of(TRACED));
            format!("00-{:032x}-00f067aa0ba902b7-0{sampled}", number + 1)
        });
        Outgoing { number, traceparent, message: self.messages[number % self.messages.len()].clone() }
    }
}

fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(MESSAGE_HEAD + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are small"));
    message.encode(&mut frame).expect("there is room for it");
    frame.freeze()
}

/// To one server.
pub(super) struct Connections(Vec<Connection>);

impl Connections {
    pub(super) async fn to(server: &Server<'_>, calls: &Calls) -> anyhow::Result<Self> {
        let connections = (0..CONNECTIONS).map(|_| Connection::to(server.address, calls.method));
        let connections = try_join_all(connections).await;
        Ok(Self(connections.with_context(|| format!("no connection to {}", server.name))?))
    }

    /// Loads the server for a while.
    pub(super) async fn run(
        &mut self,
        server: &Server<'_>,
        calls: &Calls,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let (started, before, own) = (Instant::now(), cpu(server.pid)?, cpu(std::process::id())?);
        let loading = self.0.iter_mut().map(|connection| load(connection, server, calls, started + time));
        let latencies = try_join_all(loading).await.with_context(|| format!("calls to {}", server.name))?;
        let (spent, own) = (cpu(server.pid)? - before, cpu(std::process::id())? - own);
        let elapsed = started.elapsed().as_secs_f64();
        let mut latencies = latencies.concat();
        latencies.sort_unstable();
        let count = latencies.len();
        ensure!(count > 0, "{} answered nothing", server.name);
        Ok(Sample {
            cpu_us: spent.as_secs_f64() * 1e6 / count as f64,
            busy: spent.as_secs_f64() / elapsed,
            load_busy: own.as_secs_f64() / elapsed,
            per_second: count as f64 / elapsed,
            p99_us: latencies[count * 99 / 100].as_secs_f64() * 1e6,
            rss_mib: rss_mib(server.pid)?,
        })
    }
}

/// Keeps as many calls in flight as there may be, until the time has come and all are answered.
async fn load(
    connection: &mut Connection,
    server: &Server<'_>,
    calls: &Calls,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let (mut latencies, mut answered) = (Vec::new(), Vec::new());
    let mut waiting_for_room = None;
    loop {
        let now = Instant::now();
        while now < until && connection.in_flight() < calls.streams {
            let call = waiting_for_room.take().unwrap_or_else(|| calls.next());
            if !connection.has_room(call.message.len()) {
                waiting_for_room = Some(call);
                break;
            }
            connection.call(call, now)?;
        }
        if connection.in_flight() == 0 && now >= until {
            return Ok(latencies);
        }
        connection.exchange(&mut answered).await?;
        for call in answered.drain(..) {
            ensure!((server.is_right)(&call.message), "call {} was answered otherwise", call.number);
            latencies.push(call.took);
        }
    }
}
