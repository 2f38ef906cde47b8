//! The process's own log lines: to stderr, and as OTLP log records of the part that wrote them.
//!
//! Several parts may share the process, so the part is not global: each of its tasks runs
//! [`within`] its telemetry, and a line goes to the part whose task wrote it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Once;

use opentelemetry::trace::TraceContextExt as _;
use tollgate_proto::opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::Telemetry;
use super::sparing::{self, Sparing};
use crate::clock::Clock;

tokio::task_local! {
    static CURRENT: Telemetry;
}

/// Libraries of which an operator hears no more than this, unless the filter names them.
///
/// Of those that read what a peer sends, warnings too are the peer's to cause, one for each frame of a flood: what the peer
/// does is in the access log.
const QUIET: &[(&str, LevelFilter)] = &[
    ("h2", LevelFilter::ERROR),
    ("hyper", LevelFilter::ERROR),
    ("rustls", LevelFilter::ERROR),
    ("hyper_util", LevelFilter::WARN),
    ("tower", LevelFilter::WARN),
    ("tonic", LevelFilter::WARN),
    ("sqlx", LevelFilter::WARN),
    ("opentelemetry", LevelFilter::WARN),
    ("opentelemetry_sdk", LevelFilter::WARN),
    ("reqwest", LevelFilter::WARN),
];

/// How lines look on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets up the process's log once; later calls do nothing.
pub fn init(filter: &str, format: Format) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let stderr: Box<dyn Layer<_> + Send + Sync> = match format {
            Format::Text => stderr.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
            Format::Json => stderr.json().flatten_event(true).boxed(),
        };
        let heard = tracing_subscriber::registry().with(targets(filter)).with(Sparing::default());
        let subscriber = heard.with(stderr).with(OtlpLayer);
        // Somebody else's subscriber (a test's) may be there already; then it is the one that counts.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

/// What is heard of whom.
fn targets(filter: &str) -> Targets {
    let targets = filter.parse::<Targets>().unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let default = targets.default_level().unwrap_or(LevelFilter::OFF);
    let named = |library: &str| {
        filter.split(',').any(|directive| directive.split(['=', '[']).next().map(str::trim) == Some(library))
    };
    let quiet = QUIET.iter().filter(|(library, _)| !named(library));
    let targets =
        quiet.fold(targets, |targets, (library, most)| targets.with_target(*library, default.min(*most)));
    // Who hears lines hears that some are left out.
    targets.with_target(sparing::TARGET, Level::INFO)
}

/// Runs `future` as a task of the part that `telemetry` belongs to.
pub(crate) fn within<F: Future>(telemetry: Telemetry, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(telemetry, future)
}

/// Bytes of one text in a log record.
const MAX_TEXT: usize = 8192;

struct OtlpLayer;

impl<S: Subscriber> Layer<S> for OtlpLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Outside of any part there is nobody to send it as; stderr has it.
        let _ = CURRENT.try_with(|telemetry| {
            if telemetry.logs().is_open() {
                telemetry.logs().offer(to_record(event));
            }
        });
    }
}

fn to_record(event: &Event<'_>) -> LogRecord {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let now = Clock::system().unix_nanos();
    let (number, text) = match *event.metadata().level() {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    };
    fields.attributes.push(string("code.namespace", event.metadata().target().to_owned()));
    let mut record = LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: number.into(),
        severity_text: text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(cut(fields.message))) }),
        attributes: fields.attributes,
        ..Default::default()
    };
    let context = opentelemetry::Context::current();
    let span = context.span().span_context().clone();
    if span.is_valid() {
        record.trace_id = span.trace_id().to_bytes().to_vec();
        record.span_id = span.span_id().to_bytes().to_vec();
    }
    record
}

/// Cuts a text that an error has made long, between characters.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

fn string(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

#[derive(Default)]
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        let value = match value {
            Value::StringValue(text) => Value::StringValue(cut(text)),
            other => other,
        };
        let value = Some(AnyValue { value: Some(value) });
        self.attributes.push(KeyValue { key: field.name().to_owned(), value, ..Default::default() });
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.push(field, Value::StringValue(format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, Value::StringValue(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, i64::try_from(value).map_or(Value::StringValue(value.to_string()), Value::IntValue));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::BoolValue(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_peer_makes_a_library_write_lines() {
        for filter in ["info", "warn", "debug", "tollgate_proxy=debug,info"] {
            let targets = targets(filter);
            assert!(!targets.would_enable("h2::proto::streams::recv", &Level::WARN), "{filter}");
            assert!(!targets.would_enable("rustls::conn", &Level::WARN), "{filter}");
            assert!(targets.would_enable("h2::proto", &Level::ERROR), "{filter}");
            assert!(targets.would_enable("sqlx::query", &Level::WARN), "{filter}");
            assert!(!targets.would_enable("sqlx::query", &Level::INFO), "{filter}");
            assert!(targets.would_enable("tollgate_proxy", &Level::WARN), "{filter}");
        }
        assert!(targets("h2=debug").would_enable("h2::proto", &Level::DEBUG), "who asks for it hears it");
        let other = targets("info,hyper_util=debug,h2::codec=debug");
        assert!(
            !other.would_enable("hyper::proto", &Level::WARN)
                && !other.would_enable("h2::proto", &Level::WARN)
        );
        assert!(other.would_enable("hyper_util::client", &Level::DEBUG));
        let errors = targets("error");
        assert!(!errors.would_enable("sqlx::query", &Level::WARN), "nobody says more than was asked for");
        assert!(!targets("off").would_enable("h2::proto", &Level::ERROR));
    }
}
