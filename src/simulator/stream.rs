//! Replies as server-sent events, token by token.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use super::answer::{self, Family};
use super::event::Event;
use super::fault::{Fault, Trouble};
use super::route::Wants;
use super::streamed::Streamed;
use super::text::{self, tool_call};
use super::usage::{UsageStyle, Words};
use super::writer::pieces;
use super::{messages, moondream};
use crate::body::{Body, BoxError};
use crate::usage::Usage;

const LAST_BREATH: Duration = Duration::from_millis(20);

/// The events of a stream.
pub(super) fn events(told: &Streamed<'_>) -> Vec<Event> {
    match told.wants {
        Wants::Responses => responses(told),
        Wants::Messages => messages::events(told),
        Wants::Run if told.model.id.contains("moondream") => moondream::events(told.model, told.id, told.answer),
        _ => chunks(told),
    }
}

/// Sends pieces one by one, `pace` apart, and ends as the fault wants it.
pub(super) fn body(pieces: Vec<Bytes>, pace: Duration, fault: Option<Fault>) -> Body {
    let trouble = fault.map(|fault| fault.trouble);
    let sent = match trouble {
        Some(Trouble::DieMid | Trouble::StallMid) => {
            let middle = (pieces.len() / 2).max(1);
            fault.and_then(|fault| fault.at).unwrap_or(middle)
        }
        _ => pieces.len(),
    };
    let sent = stream::iter(pieces.into_iter().take(sent)).then(move |piece| async move {
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        Ok(Frame::data(piece))
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
fn chunks(told: &Streamed<'_>) -> Vec<Event> {
    let is_openai = told.wants == Wants::Chat || Family::of(told.model).is_openai_inside;
    let (usage, deltas) = (&told.answer.usage, deltas(told, is_openai));
    let choices = if is_openai { told.answer.choices } else { 1 };
    let count = deltas.len() as u64 * choices;
    let mut events = Vec::new();
    if told.style == UsageStyle::Increments {
        let first = json!({"role": "assistant", "content": "", "reasoning_content": null});
        events.push(with_usage(told, openai(told, 0, first, None), &Usage { output_tokens: 0, ..usage.clone() }));
    }
    let all = (0..choices).flat_map(|choice| deltas.iter().map(move |delta| (choice, delta.clone())));
    for (index, (choice, delta)) in all.enumerate() {
        let so_far = |index| usage.output_tokens * index / count.max(1);
        let (before, written) = (so_far(index as u64), so_far(index as u64 + 1));
        let chunk = if is_openai { openai(told, choice, delta, None) } else { delta };
        events.push(match told.style {
            UsageStyle::Running => with_usage(told, chunk, &Usage { output_tokens: written, ..usage.clone() }),
            UsageStyle::Increments => with_usage(told, chunk, &Usage::tokens(0, 0, written - before)),
            UsageStyle::End | UsageStyle::Nowhere => Event::Data(chunk),
        });
    }
    events.extend(closing(told, is_openai));
    events.push(Event::Done);
    events
}

/// The end of each choice, and the total.
fn closing(told: &Streamed<'_>, is_openai: bool) -> Vec<Event> {
    let usage = &told.answer.usage;
    let choices = if is_openai { told.answer.choices } else { 0 };
    let stop = |choice| openai(told, choice, json!({}), Some(told.answer.written.finish_reason()));
    let mut events: Vec<_> = (0..choices)
        .map(|choice| match told.style {
            UsageStyle::Running => with_usage(told, stop(choice), usage),
            UsageStyle::End if told.words == Words::InChoice => with_usage(told, stop(choice), usage),
            _ => Event::Data(stop(choice)),
        })
        .collect();
    let native = || with_usage(told, json!({"response": "", "p": "abcdefghijk"}), usage);
    match told.style {
        UsageStyle::Increments => events.push(native()),
        UsageStyle::End if is_openai && told.words == Words::InChoice => {}
        UsageStyle::End if is_openai && told.may_tell_usage => {
            let mut last = openai(told, 0, json!({}), None);
            last["choices"] = json!([]);
            events.push(with_usage(told, last, usage));
        }
        UsageStyle::End | UsageStyle::Running if !is_openai => events.push(native()),
        _ => {}
    }
    events
}

/// What each event adds: native objects, or the `delta` of OpenAI's chunks.
fn deltas(told: &Streamed<'_>, is_openai: bool) -> Vec<Value> {
    let written = &told.answer.written;
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

fn openai(told: &Streamed<'_>, choice: u64, delta: Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": format!("chatcmpl-{}", told.id), "object": "chat.completion.chunk", "created": 1_791_402_526,
        "model": &*told.model.id,
        "choices": [{"index": choice, "delta": delta, "finish_reason": finish_reason, "logprobs": null}]
    })
}

fn with_usage(told: &Streamed<'_>, mut chunk: Value, usage: &Usage) -> Event {
    told.words.put(&mut chunk, told.words.tell(usage, answer::neurons(told.model, usage)));
    Event::Data(chunk)
}

/// OpenAI's events of `/v1/responses`.
fn responses(told: &Streamed<'_>) -> Vec<Event> {
    let whole = text::response(told.model, told.id, told.answer, told.words);
    let mut begun = whole.clone();
    (begun["status"], begun["output"], begun["usage"]) = (json!("in_progress"), json!([]), Value::Null);
    let item = whole["output"][0].clone();
    let mut opened = item.clone();
    opened["status"] = json!("in_progress");
    let mut events = vec![
        ("response.created", json!({ "response": begun })),
        ("response.output_item.added", json!({"output_index": 0, "item": null})),
    ];
    let said = match &told.answer.written.tool {
        Some((_, arguments)) => {
            opened["arguments"] = json!("");
            call_events(&item, arguments)
        }
        None => {
            opened["content"] = json!([]);
            message_events(&item, &told.answer.written.answer)
        }
    };
    events[1].1["item"] = opened;
    events.extend(said);
    events.extend([
        ("response.output_item.done", json!({"output_index": 0, "item": item})),
        ("response.completed", json!({ "response": whole })),
    ]);
    events.into_iter().enumerate().map(|(number, (name, data))| named(name, number, data)).collect()
}

fn message_events(item: &Value, tokens: &[String]) -> Vec<(&'static str, Value)> {
    let at = |field: &str, value: Value| {
        let mut event = json!({"item_id": item["id"], "output_index": 0, "content_index": 0});
        event[field] = value;
        event
    };
    let part = &item["content"][0];
    let empty = json!({"type": "output_text", "text": "", "annotations": []});
    let mut events = vec![("response.content_part.added", at("part", empty))];
    events.extend(tokens.iter().map(|token| ("response.output_text.delta", at("delta", json!(token)))));
    events.extend([
        ("response.output_text.done", at("text", part["text"].clone())),
        ("response.content_part.done", at("part", part.clone())),
    ]);
    events
}

fn call_events(item: &Value, arguments: &str) -> Vec<(&'static str, Value)> {
    let at = |field: &str, value: &str| {
        let mut event = json!({"item_id": item["id"], "output_index": 0});
        event[field] = json!(value);
        event
    };
    let mut events: Vec<_> =
        pieces(arguments).iter().map(|piece| ("response.function_call_arguments.delta", at("delta", piece))).collect();
    events.push(("response.function_call_arguments.done", at("arguments", arguments)));
    events
}

fn named(name: &'static str, number: usize, mut data: Value) -> Event {
    data["type"] = json!(name);
    data["sequence_number"] = json!(number);
    Event::Named(name, data)
}
