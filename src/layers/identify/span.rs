//! A span a call, for tracing: from here until its receipt is sealed.
//!
//! Its attributes have the names of OpenTelemetry's GenAI conventions (1.41), so that a bridge such as `tracing-opentelemetry`
//! shows a call as any other model's; what those do not have is called `tollgate.…`. It is of level `debug` and target
//! `tollgate::call`: where no subscriber wants it, it costs a look at a flag. No prompt, answer, key or token is in it.

use http::StatusCode;
use tracing::Span;
use tracing::field::Empty;

use crate::call::Call;
use crate::catalogue::Task;
use crate::receipt::{Facts, Outcome};

/// The vendor's name where conventions ask for one; they list none of their own for it.
pub(crate) const PROVIDER: &str = "cloudflare.workers_ai";

/// The call's span, which closes itself.
pub(super) fn open(call: &Call) -> Span {
    if !tracing::span_enabled!(target: "tollgate::call", tracing::Level::DEBUG) {
        return Span::none();
    }
    let (operation, model) = (operation(call.model.task), &*call.model.id);
    let span = tracing::debug_span!(
        target: "tollgate::call",
        "call",
        otel.name = format!("{operation} {model}"),
        otel.kind = "client",
        otel.status_code = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = PROVIDER,
        gen_ai.request.model = model,
        gen_ai.request.max_tokens = call.ask.max_tokens,
        gen_ai.request.temperature = call.ask.temperature,
        gen_ai.response.model = Empty,
        gen_ai.response.id = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
        tollgate.id = Empty,
        tollgate.neurons = Empty,
        tollgate.cost_usd = Empty,
        tollgate.cost_source = Empty,
        tollgate.cache = Empty,
        tollgate.attempts = Empty,
        tollgate.waited_ms = Empty,
    );
    let closing = span.clone();
    call.receipt.on_seal(move |facts| record(&closing, facts));
    span
}

pub(crate) fn operation(task: Task) -> &'static str {
    match task {
        Task::TextGeneration => "chat",
        Task::TextEmbeddings => "embeddings",
        _ => "generate_content",
    }
}

fn record(span: &Span, facts: &Facts) {
    let usage = &facts.usage;
    span.record("gen_ai.response.model", &*facts.model.id);
    if let Some(id) = &facts.vendor_id {
        span.record("gen_ai.response.id", id.as_str());
    }
    if usage.input_tokens > 0 || usage.output_tokens > 0 {
        span.record("gen_ai.usage.input_tokens", usage.input_tokens);
        span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens);
        span.record("gen_ai.usage.output_tokens", usage.output_tokens);
    }
    if let Some(status) = facts.status {
        span.record("http.response.status_code", status.as_u16());
    }
    if !matches!(facts.outcome, Outcome::Ok | Outcome::CacheHit) {
        span.record("error.type", facts.refused.unwrap_or(facts.outcome.label()));
        if facts.status.is_none_or(|status| status >= StatusCode::BAD_REQUEST) || facts.outcome != Outcome::Aborted {
            span.record("otel.status_code", "ERROR");
        }
    }
    span.record("tollgate.id", tracing::field::display(facts.id));
    span.record("tollgate.neurons", facts.cost.neurons.as_f64());
    span.record("tollgate.cost_usd", facts.cost.usd());
    span.record("tollgate.cost_source", facts.cost.source.label());
    span.record("tollgate.cache", facts.cache.label());
    span.record("tollgate.attempts", facts.attempts.len());
    span.record("tollgate.waited_ms", facts.waited.as_secs_f64() * 1e3);
}
