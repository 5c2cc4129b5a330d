//! The log's lines, on their way to the collector.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::spans::{attribute, nanos};

/// Keeps the gate's log lines until they are sent: a layer for a [`tracing`] subscriber, to be given to
/// [`Sidecar::send_log`](crate::sidecar::Sidecar::send_log). Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct LogLines(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<VecDeque<LogRecord>>,
    dropped: AtomicU64,
}

/// Lines that wait; what comes beyond is lost and counted.
const WAITING: usize = 2048;
/// A field's longest value, in bytes.
const LONGEST: usize = 4096;

/// Reads an event's fields.
#[derive(Default)]
struct Fields(LogRecord);

// === impl LogLines ===

impl LogLines {
    #[allow(clippy::unnecessary_wraps)]
    pub(in crate::sidecar::otel) fn waiting() -> Option<Self> {
        Some(Self::default())
    }

    pub(super) fn take(&self, most: usize) -> Vec<LogRecord> {
        let mut lines = self.0.lines.lock();
        let count = lines.len().min(most);
        lines.drain(..count).collect()
    }

    /// How many were lost since it was last asked.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.swap(0, Ordering::Relaxed)
    }
}

impl<S: Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // What sends the lines has lines of its own, which would never end.
        if !event.metadata().target().starts_with("tollgate") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut record = fields.0;
        let level = *event.metadata().level();
        record.time_unix_nano = nanos(SystemTime::now());
        record.observed_time_unix_nano = record.time_unix_nano;
        record.severity_text = level.as_str().into();
        record.severity_number = severity(level).into();
        record.attributes.push(attribute("tollgate.target", Value::StringValue(event.metadata().target().into())));
        let mut lines = self.0.lines.lock();
        if lines.len() < WAITING {
            lines.push_back(record);
        } else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    }
}

// === impl Fields ===

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), &value) {
            ("message", _) => self.0.body = Some(AnyValue { value: Some(value) }),
            // Which call a line is about is told as OTLP tells it.
            ("trace_id", Value::StringValue(digits)) => {
                self.0.trace_id =
                    u128::from_str_radix(digits, 16).map_or_else(|_| Vec::new(), |id| id.to_be_bytes().to_vec());
            }
            ("span_id", Value::StringValue(digits)) => {
                self.0.span_id =
                    u64::from_str_radix(digits, 16).map_or_else(|_| Vec::new(), |id| id.to_be_bytes().to_vec());
            }
            (name, _) => self.0.attributes.push(attribute(name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::DoubleValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, i64::try_from(value).map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::BoolValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::StringValue(short(value.to_owned())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.put(field, Value::StringValue(short(text)));
    }
}

fn short(mut text: String) -> String {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST).last().unwrap_or_default();
    if text.len() > LONGEST {
        text.truncate(end);
    }
    text
}
