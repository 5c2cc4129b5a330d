//! Replies as server-sent events, token by token.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use super::fault::{Fault, Trouble};
use super::route::Wants;
use super::text::{self, Family, tool_call, usage_json};
use super::writer::{Written, pieces};
use crate::body::{Body, BoxError};
use crate::catalogue::Model;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// How a stream tells its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageStyle {
    /// In a chunk of its own at the end.
    End,
    /// In each chunk, the sum so far.
    Running,
    /// The prompt's in the first, one token in each, and a native chunk with the sum to close.
    Increments,
    Nowhere,
}

/// Everything that is told in a stream.
pub(super) struct Told<'a> {
    pub(super) wants: Wants,
    pub(super) model: &'a Model,
    pub(super) id: &'a str,
    pub(super) written: &'a Written,
    pub(super) usage: &'a Usage,
    pub(super) style: UsageStyle,
    /// `stream_options.include_usage`, or nothing said.
    pub(super) may_tell_usage: bool,
}

const LAST_BREATH: Duration = Duration::from_millis(20);

impl FromStr for UsageStyle {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "end" => Ok(Self::End),
            "running" => Ok(Self::Running),
            "increments" => Ok(Self::Increments),
            "none" => Ok(Self::Nowhere),
            _ => Err(()),
        }
    }
}

/// The events of a stream, each as its bytes.
pub(super) fn events(told: &Told<'_>) -> Vec<Bytes> {
    let lines = match told.wants {
        Wants::Responses => responses(told),
        _ => chunks(told),
    };
    lines.into_iter().map(Bytes::from).collect()
}

/// Sends events one by one, `pace` apart, and ends as the fault wants it.
pub(super) fn body(events: Vec<Bytes>, pace: Duration, fault: Option<Fault>) -> Body {
    let trouble = fault.map(|fault| fault.trouble);
    let half = match trouble {
        Some(Trouble::DieMid | Trouble::StallMid) => (events.len() / 2).max(1),
        _ => events.len(),
    };
    let sent = stream::iter(events.into_iter().take(half)).then(move |event| async move {
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        Ok(Frame::data(event))
    });
    let end = stream::once(async move {
        match trouble {
            Some(Trouble::StallMid) => std::future::pending().await,
            Some(Trouble::DieMid) => {
                // What was sent before leaves first.
                tokio::time::sleep(LAST_BREATH).await;
                Some(Err(BoxError::from("the simulated upstream died")))
            }
            _ => None,
        }
    });
    Body::stream(StreamBody::new(sent.chain(end.filter_map(std::future::ready))))
}

/// `{"response":"…"}` or OpenAI's chunks.
fn chunks(told: &Told<'_>) -> Vec<String> {
    let is_openai = told.wants == Wants::Chat || Family::of(told.model).is_openai_inside;
    let pieces = deltas(told, is_openai);
    let count = pieces.len() as u64;
    let mut lines = Vec::new();
    if told.style == UsageStyle::Increments {
        let first = json!({"role": "assistant", "content": "", "reasoning_content": null});
        lines.push(line(with_usage(openai(told, first, None), increment(told, told.usage.input_tokens, 0))));
    }
    for (index, piece) in pieces.into_iter().enumerate() {
        let written = told.usage.output_tokens * (index as u64 + 1) / count.max(1);
        let before = told.usage.output_tokens * index as u64 / count.max(1);
        let chunk = if is_openai { openai(told, piece, None) } else { piece };
        lines.push(line(match told.style {
            UsageStyle::Running => with_usage(chunk, so_far(told, written)),
            UsageStyle::Increments => with_usage(chunk, increment(told, 0, written - before)),
            UsageStyle::End | UsageStyle::Nowhere => chunk,
        }));
    }
    lines.extend(closing(told, is_openai).map(line));
    lines.push("data: [DONE]\n\n".to_owned());
    lines
}

fn closing(told: &Told<'_>, is_openai: bool) -> impl Iterator<Item = Value> {
    let neurons = Family::of(told.model).tells_neurons.then(|| told.model.prices.cost(told.usage));
    let usage = usage_json(told.usage, neurons);
    let stop = is_openai.then(|| openai(told, json!({}), Some(told.written.finish_reason())));
    let stop = match told.style {
        UsageStyle::Running => stop.map(|stop| with_usage(stop, usage.clone())),
        _ => stop,
    };
    let native = json!({"response": "", "usage": usage, "p": "abcdefghijk"});
    let total = match told.style {
        UsageStyle::Increments => Some(native),
        UsageStyle::End if is_openai && told.may_tell_usage => Some(with_usage(
            json!({"choices": [], "object": "chat.completion.chunk", "id": chunk_id(told), "created": 1_791_402_526, "model": &*told.model.id}),
            usage,
        )),
        UsageStyle::End if !is_openai => Some(native),
        UsageStyle::Running if !is_openai => Some(native),
        _ => None,
    };
    stop.into_iter().chain(total)
}

/// What each event adds: native objects, or the `delta` of OpenAI's chunks.
fn deltas(told: &Told<'_>, is_openai: bool) -> Vec<Value> {
    let written = told.written;
    if let Some((name, arguments)) = &written.tool {
        return if is_openai { tool_deltas(told.id, name, arguments) } else { vec![native_tool(name, arguments)] };
    }
    if !is_openai {
        return written.answer.iter().map(|token| json!({"response": token, "p": "abcdefghij"})).collect();
    }
    let thoughts = written.reasoning.iter().map(|token| json!({"reasoning_content": token, "content": null}));
    thoughts.chain(written.answer.iter().map(|token| json!({"role": "assistant", "content": token}))).collect()
}

fn native_tool(name: &str, arguments: &str) -> Value {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or(Value::Null);
    json!({"response": null, "tool_calls": [{"name": name, "arguments": arguments}]})
}

fn tool_deltas(id: &str, name: &str, arguments: &str) -> Vec<Value> {
    let mut first = tool_call(id, name, "");
    first["index"] = json!(0);
    let rest = pieces(arguments)
        .into_iter()
        .map(|piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
    std::iter::once(json!({"role": "assistant", "content": null, "tool_calls": [first]})).chain(rest).collect()
}

fn openai(told: &Told<'_>, delta: Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": chunk_id(told), "object": "chat.completion.chunk", "created": 1_791_402_526, "model": &*told.model.id,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": null}]
    })
}

fn chunk_id(told: &Told<'_>) -> String {
    format!("chatcmpl-{}", told.id)
}

fn so_far(told: &Told<'_>, written: u64) -> Value {
    let usage = Usage { output_tokens: written, ..told.usage.clone() };
    usage_json(&usage, neurons(told, &usage))
}

fn increment(told: &Told<'_>, read: u64, written: u64) -> Value {
    let cached = if read > 0 { told.usage.cached_input_tokens } else { 0 };
    let usage = Usage::tokens(read, cached, written);
    usage_json(&usage, neurons(told, &usage))
}

fn neurons(told: &Told<'_>, usage: &Usage) -> Option<Neurons> {
    Family::of(told.model).tells_neurons.then(|| told.model.prices.cost(usage))
}

fn with_usage(mut chunk: Value, usage: Value) -> Value {
    chunk["usage"] = usage;
    chunk
}

fn line(chunk: Value) -> String {
    format!("data: {chunk}\n\n")
}

/// OpenAI's events of `/v1/responses`.
fn responses(told: &Told<'_>) -> Vec<String> {
    let whole = text::response(told.model, told.id, told.written, usage_json(told.usage, None));
    let mut begun = whole.clone();
    (begun["status"], begun["output"], begun["usage"]) = (json!("in_progress"), json!([]), Value::Null);
    let item = whole["output"][0].clone();
    let mut opened = item.clone();
    (opened["status"], opened["content"]) = (json!("in_progress"), json!([]));
    let place = json!({"item_id": item["id"], "output_index": 0, "content_index": 0});
    let at = |field: &str, value: Value| {
        let mut event = place.clone();
        event[field] = value;
        event
    };
    let part = &item["content"][0];
    let empty = json!({"type": "output_text", "text": "", "annotations": []});
    let mut events = vec![
        ("response.created", json!({ "response": begun })),
        ("response.output_item.added", json!({"output_index": 0, "item": opened})),
        ("response.content_part.added", at("part", empty)),
    ];
    events.extend(told.written.answer.iter().map(|token| ("response.output_text.delta", at("delta", json!(token)))));
    events.extend([
        ("response.output_text.done", at("text", part["text"].clone())),
        ("response.content_part.done", at("part", part.clone())),
        ("response.output_item.done", json!({"output_index": 0, "item": item})),
        ("response.completed", json!({ "response": whole })),
    ]);
    events.into_iter().enumerate().map(|(number, (name, data))| event(name, number, data)).collect()
}

fn event(name: &str, number: usize, mut data: Value) -> String {
    data["type"] = json!(name);
    data["sequence_number"] = json!(number);
    format!("event: {name}\ndata: {data}\n\n")
}
