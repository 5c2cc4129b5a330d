//! Anthropic's form, `/v1/messages`: whole replies, and streams of its events.

use serde_json::{Value, json};

use super::answer::Answer;
use super::event::Event;
use super::streamed::Streamed;
use super::usage::{UsageStyle, Words};
use super::writer::{Written, pieces};
use crate::catalogue::Model;
use crate::usage::Usage;

/// A whole message.
pub(super) fn reply(model: &Model, id: &str, answer: &Answer, words: Words) -> Value {
    json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": &*model.id,
        "content": blocks(id, &answer.written), "stop_reason": stop_reason(&answer.written), "stop_sequence": null,
        "usage": usage(&answer.usage, words)
    })
}

/// The events of a stream. Where usage is told everywhere, the last `message_delta` tells what was read once more; where it is
/// told nowhere, no event has any.
pub(super) fn events(told: &Streamed<'_>) -> Vec<Event> {
    let (answer, words) = (told.answer, told.words);
    let mut begun = reply(told.model, told.id, answer, words);
    (begun["content"], begun["stop_reason"]) = (json!([]), Value::Null);
    let is_silent = told.style == UsageStyle::Nowhere;
    let opening = Usage { output_tokens: 1, ..answer.usage.clone() };
    begun["usage"] = if is_silent { Value::Null } else { usage(&opening, words) };
    let mut events = vec![named("message_start", json!({ "message": begun })), named("ping", json!({}))];
    for (index, block) in blocks(told.id, &answer.written).iter().enumerate() {
        let (opened, deltas) = opened(block, &answer.written);
        events.push(named("content_block_start", json!({"index": index, "content_block": opened})));
        let delta = |delta| named("content_block_delta", json!({"index": index, "delta": delta}));
        events.extend(deltas.into_iter().map(delta));
        events.push(named("content_block_stop", json!({ "index": index })));
    }
    let stop = json!({"stop_reason": stop_reason(&answer.written), "stop_sequence": null});
    let total = match told.style {
        UsageStyle::Nowhere => Value::Null,
        UsageStyle::Running => usage(&answer.usage, words),
        _ => json!({"output_tokens": answer.usage.output_tokens}),
    };
    events.push(named("message_delta", json!({"delta": stop, "usage": total})));
    events.push(named("message_stop", json!({})));
    events
}

fn named(name: &'static str, mut data: Value) -> Event {
    data["type"] = json!(name);
    Event::Named(name, data)
}

/// What was read from the cache stands beside `input_tokens`, not within.
fn usage(usage: &Usage, words: Words) -> Value {
    let (read, cached) = (usage.input_tokens, usage.cached_input_tokens);
    match words {
        Words::Chat | Words::InChoice => json!({
            "input_tokens": read - cached, "output_tokens": usage.output_tokens, "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0
        }),
        _ => words.tell(usage, None),
    }
}

fn stop_reason(written: &Written) -> &'static str {
    match written.finish_reason() {
        "tool_calls" => "tool_use",
        "length" => "max_tokens",
        _ => "end_turn",
    }
}

fn blocks(id: &str, written: &Written) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !written.reasoning.is_empty() {
        blocks.push(json!({"type": "thinking", "thinking": written.reasoning.concat(), "signature": ""}));
    }
    blocks.push(match &written.tool {
        Some((name, arguments)) => {
            let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": format!("toolu_{id}"), "name": name, "input": input})
        }
        None => json!({"type": "text", "text": written.text()}),
    });
    blocks
}

/// A block as it begins, and what is added to it.
fn opened(block: &Value, written: &Written) -> (Value, Vec<Value>) {
    let mut opened = block.clone();
    match block["type"].as_str() {
        Some("thinking") => {
            opened["thinking"] = json!("");
            (opened, written.reasoning.iter().map(|text| json!({"type": "thinking_delta", "thinking": text})).collect())
        }
        Some("tool_use") => {
            opened["input"] = json!({});
            let arguments = written.tool.as_ref().map_or("", |(_, arguments)| arguments.as_str());
            let delta = |piece: &String| json!({"type": "input_json_delta", "partial_json": piece});
            (opened, pieces(arguments).iter().map(delta).collect())
        }
        _ => {
            opened["text"] = json!("");
            (opened, written.answer.iter().map(|text| json!({"type": "text_delta", "text": text})).collect())
        }
    }
}
