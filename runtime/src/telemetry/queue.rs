//! Bounded queues between the request path and the exporter: they never wait, they drop and count.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tokio::sync::mpsc;

use super::otlp::Encoded;

/// Why something was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full.
    QueueFull,
    /// The collector said that it will never take this.
    Refused,
    /// The process ended before the collector answered.
    Shutdown,
}

impl DropReason {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Counts what was not delivered: `tollgate.telemetry.dropped{signal,reason}`.
#[derive(Debug, Clone)]
pub(crate) struct Dropped {
    counter: Counter<u64>,
    signal: &'static str,
}

impl Dropped {
    fn new(meter: &Meter, signal: &'static str) -> Self {
        let counter = meter
            .u64_counter("tollgate.telemetry.dropped")
            .with_description("Telemetry items that did not reach the collector")
            .with_unit("{item}")
            .build();
        Self { counter, signal }
    }

    pub(crate) fn count(&self, items: usize, reason: DropReason) {
        let labels = [KeyValue::new("signal", self.signal), KeyValue::new("reason", reason.as_str())];
        self.counter.add(items as u64, &labels);
    }
}

/// The receiving end, drained by the exporter.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) receiver: mpsc::Receiver<Encoded>,
    pub(crate) dropped: Dropped,
}

#[derive(Debug)]
struct Queue {
    // Absent when telemetry goes nowhere: offering is then free and is not a drop.
    sender: Option<mpsc::Sender<Encoded>>,
    dropped: Dropped,
}

impl Queue {
    fn new(sends: bool, capacity: usize, dropped: Dropped) -> (Self, Option<Source>) {
        if !sends {
            return (Self { sender: None, dropped }, None);
        }
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self { sender: Some(sender), dropped: dropped.clone() }, Some(Source { receiver, dropped }))
    }

    fn offer(&self, item: Encoded) {
        let Some(sender) = &self.sender else { return };
        if let Err(error) = sender.try_send(item) {
            let reason = match error {
                mpsc::error::TrySendError::Full(_) => DropReason::QueueFull,
                mpsc::error::TrySendError::Closed(_) => DropReason::Shutdown,
            };
            self.dropped.count(1, reason);
        }
    }
}

/// Takes log records on their way to the collector.
#[derive(Debug)]
pub struct LogQueue(Queue);

impl LogQueue {
    /// Whether anybody will receive what is offered; where not, callers need not build records.
    pub fn is_open(&self) -> bool {
        self.0.sender.is_some()
    }

    /// Hands over one record. Never waits: when the queue is full the record is dropped and counted.
    pub fn offer(&self, record: impl Into<Encoded>) {
        self.0.offer(record.into());
    }
}

#[derive(Debug)]
pub(crate) struct SpanQueue(Queue);

impl SpanQueue {
    pub(crate) fn offer(&self, span: Encoded) {
        self.0.offer(span);
    }
}

pub(crate) fn logs(sends: bool, capacity: usize, meter: &Meter) -> (LogQueue, Option<Source>) {
    let (queue, source) = Queue::new(sends, capacity, Dropped::new(meter, "logs"));
    (LogQueue(queue), source)
}

pub(crate) fn spans(sends: bool, capacity: usize, meter: &Meter) -> (SpanQueue, Option<Source>) {
    let (queue, source) = Queue::new(sends, capacity, Dropped::new(meter, "traces"));
    (SpanQueue(queue), source)
}
