//! Spans of calls, with the names of OpenTelemetry's conventions for HTTP and for GenAI (1.41).
//!
//! A call is a span of kind SERVER, part of the client's trace where it told one. What it used and cost is on that span alone,
//! so that sums over spans count nothing twice. Each attempt upstream is a CLIENT span below it, and upstream is told its name.
//! The conventions have no name for a cost: it is `tollgate.cost_usd` and `tollgate.neurons`.

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::calls::CallSummary;
use crate::endpoint::Endpoint;
use crate::layers::identify::{PROVIDER, operation};
use crate::receipt::Attempt;
use crate::trace::TraceContext;

/// The call's span and those of its attempts, which went to `host`; none where nobody wants to keep it.
pub(super) fn spans(seen: &CallSummary, host: &str) -> Vec<Span> {
    let Some(trace) = seen.trace.filter(|trace| trace.is_sampled) else { return Vec::new() };
    let attempts = seen.attempts.iter().enumerate();
    let attempts = attempts.map(|(number, attempt)| attempt_span(seen, trace.attempt(number), number, attempt, host));
    std::iter::once(call_span(seen, trace)).chain(attempts).collect()
}

fn call_span(seen: &CallSummary, trace: TraceContext) -> Span {
    let operation = operation(seen.asked.task);
    let usage = &seen.usage;
    let mut attributes = vec![
        text("gen_ai.operation.name", operation),
        text("gen_ai.provider.name", PROVIDER),
        text("gen_ai.request.model", &seen.asked.id),
        text("gen_ai.response.model", &seen.model.id),
        text("http.request.method", method(seen)),
        text("tollgate.id", &seen.id.to_string()),
        text("tollgate.outcome", seen.outcome.label()),
        number("tollgate.attempts", seen.attempts.len() as u64),
        float("tollgate.waited_ms", seen.waited.as_secs_f64() * 1e3),
        flag("tollgate.stream", seen.stream),
    ];
    let mut add = |attribute: Option<KeyValue>| attributes.extend(attribute);
    add(seen.endpoint.map(|endpoint| text("tollgate.endpoint", endpoint.label())));
    add(seen.key.as_deref().map(|key| text("tollgate.key", key)));
    add(seen.cache.label().map(|status| text("tollgate.cache", status)));
    add(seen.vendor_id.as_deref().map(|id| text("gen_ai.response.id", id)));
    add(seen.status.map(|status| number("http.response.status_code", status.into())));
    add(seen.first_byte.map(|first| float("tollgate.first_byte_ms", first.as_secs_f64() * 1e3)));
    if usage.input_tokens > 0 || usage.output_tokens > 0 {
        add(Some(number("gen_ai.usage.input_tokens", usage.input_tokens)));
        add(Some(number("gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens)));
        add(Some(number("gen_ai.usage.output_tokens", usage.output_tokens)));
    }
    if let Some(source) = seen.cost.source.label() {
        add(Some(float("tollgate.neurons", seen.cost.neurons.as_f64())));
        add(Some(float("tollgate.cost_usd", seen.cost.usd())));
        add(Some(text("tollgate.cost_source", source)));
    }
    let error = seen.error();
    add(error.map(|error| text("error.type", error)));
    // A server's span is an error where the server failed: what the client did wrong is not.
    let failed = error.filter(|_| seen.status.is_none_or(|status| !(400..500).contains(&status)));
    let mut span = span(trace, SpanKind::Server, seen.received_at, seen.duration, attributes, failed);
    span.name = format!("{operation} {}", seen.asked.id);
    span
}

fn attempt_span(seen: &CallSummary, trace: TraceContext, number_of: usize, attempt: &Attempt, host: &str) -> Span {
    let mut attributes = vec![
        text("http.request.method", method(seen)),
        text("server.address", host),
        text("tollgate.model", &attempt.model),
    ];
    let mut add = |attribute: Option<KeyValue>| attributes.extend(attribute);
    add((number_of > 0).then(|| number("http.request.resend_count", number_of as u64)));
    add(attempt.status.map(|status| number("http.response.status_code", status.as_u16().into())));
    add(attempt.code.map(|code| number("tollgate.vendor_code", code.into())));
    add(attempt.retried.map(|why| text("tollgate.retried", why)));
    let code = attempt.status.map(|status| status.as_str().to_owned());
    let error = match &code {
        None => Some("no_answer"),
        Some(code) if code.as_str() >= "400" => Some(code.as_str()),
        Some(_) => None,
    };
    add(error.map(|error| text("error.type", error)));
    let mut span = span(trace, SpanKind::Client, seen.received_at + attempt.began, attempt.took, attributes, error);
    span.name = method(seen).into();
    span
}

/// A socket begins with a GET.
fn method(seen: &CallSummary) -> &'static str {
    if seen.endpoint == Some(Endpoint::Socket) { "GET" } else { "POST" }
}

fn span(
    trace: TraceContext,
    kind: SpanKind,
    begins: SystemTime,
    took: Duration,
    attributes: Vec<KeyValue>,
    error: Option<&str>,
) -> Span {
    let code = if error.is_some() { StatusCode::Error } else { StatusCode::Unset };
    Span {
        trace_id: trace.trace.to_be_bytes().to_vec(),
        span_id: trace.span.to_be_bytes().to_vec(),
        parent_span_id: trace.parent.map_or_else(Vec::new, |parent| parent.to_be_bytes().to_vec()),
        flags: trace.is_sampled.into(),
        kind: kind.into(),
        start_time_unix_nano: nanos(begins),
        end_time_unix_nano: nanos(begins + took),
        attributes,
        status: Some(Status { message: error.unwrap_or_default().into(), code: code.into() }),
        ..Span::default()
    }
}

/// Since 1970.
pub(super) fn nanos(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

pub(super) fn resource(attributes: &[(String, String)]) -> Option<Resource> {
    let attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
    Some(Resource { attributes, ..Resource::default() })
}

pub(super) fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("tollgate".into(), env!("CARGO_PKG_VERSION").into());
    Some(InstrumentationScope { name, version, ..InstrumentationScope::default() })
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

pub(super) fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

pub(super) fn float(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

pub(super) fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
