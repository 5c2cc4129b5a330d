//! Replies in words: native and OpenAI's form, and what each model family adds.

use serde_json::{Value, json};

use super::answer::{Answer, Family, neurons};
use super::envelope::envelope;
use super::messages;
use super::route::Wants;
use super::usage::Words;
use super::writer::Written;
use crate::catalogue::{Model, Task};

/// A whole reply in the form of the route.
pub(super) fn reply(wants: Wants, model: &Model, id: &str, answer: &Answer, words: Words) -> Value {
    match wants {
        Wants::Chat => chat(model, id, answer, words, true),
        Wants::Responses => response(model, id, answer, words),
        Wants::Messages => messages::reply(model, id, answer, words),
        _ => envelope(native(model, id, answer, words)),
    }
}

fn told(model: &Model, answer: &Answer, words: Words) -> Value {
    words.tell(&answer.usage, neurons(model, &answer.usage))
}

pub(super) fn native(model: &Model, id: &str, answer: &Answer, words: Words) -> Value {
    let (written, usage) = (&answer.written, told(model, answer, words));
    let text = written.text();
    match model.task {
        Task::Translation => return json!({"translated_text": text, "usage": usage}),
        Task::Summarization => return json!({"summary": text, "usage": usage}),
        Task::ImageToText if model.id.contains("llava") => return json!({ "description": text }),
        _ if model.id.contains("moondream") => {
            let metrics =
                json!({"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens});
            return json!({"answer": text, "metrics": metrics});
        }
        _ if Family::of(model).is_openai_inside => return chat(model, id, answer, words, false),
        _ => {}
    }
    let response = if written.is_object { serde_json::from_str(&text).unwrap_or(Value::Null) } else { json!(text) };
    let mut reply = json!({"response": response, "usage": usage});
    if let Some((name, arguments)) = &written.tool {
        let arguments: Value = serde_json::from_str(arguments).unwrap_or(Value::Null);
        reply["response"] = Value::Null;
        reply["tool_calls"] = json!([{"name": name, "arguments": arguments}]);
    }
    reply
}

/// On the route `/v1/chat/completions` the older models answer an object where JSON was asked for, which is no OpenAI.
fn chat(model: &Model, id: &str, answer: &Answer, words: Words, is_route: bool) -> Value {
    let written = &answer.written;
    let text = written.text();
    let is_object = is_route && written.is_object && !Family::of(model).is_openai_inside;
    let content = if is_object { serde_json::from_str(&text).unwrap_or(Value::Null) } else { json!(text) };
    let mut message = json!({"role": "assistant", "content": content});
    if !written.reasoning.is_empty() {
        message["reasoning_content"] = json!(written.reasoning.concat());
    }
    if let Some((name, arguments)) = &written.tool {
        message["content"] = Value::Null;
        message["tool_calls"] = json!([tool_call(id, name, arguments)]);
    }
    let choice =
        |index| json!({"index": index, "message": message, "finish_reason": written.finish_reason(), "logprobs": null});
    let mut reply = json!({
        "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": 1_791_402_526, "model": &*model.id,
        "choices": (0..answer.choices).map(choice).collect::<Vec<_>>()
    });
    words.put(&mut reply, told(model, answer, words));
    reply
}

pub(super) fn tool_call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": format!("call_{id}"), "type": "function", "function": {"name": name, "arguments": arguments}})
}

pub(super) fn response(model: &Model, id: &str, answer: &Answer, words: Words) -> Value {
    let (written, usage) = (&answer.written, &answer.usage);
    // This route has its own words for usage.
    let words = if words == Words::Chat || words == Words::InChoice { Words::Responses } else { words };
    let mut told = words.tell(usage, None);
    told["output_tokens_details"] = json!({"reasoning_tokens": written.reasoning_tokens()});
    json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": 1_791_402_526, "status": "completed",
        "model": &*model.id, "output": [output_item(id, written)], "parallel_tool_calls": true, "tool_choice": "auto",
        "tools": [], "usage": told
    })
}

/// A message, or the tool that is to be called.
fn output_item(id: &str, written: &Written) -> Value {
    if let Some((name, arguments)) = &written.tool {
        return json!({
            "type": "function_call", "id": format!("fc_{id}"), "call_id": format!("call_{id}"), "status": "completed",
            "name": name, "arguments": arguments
        });
    }
    let text = json!({"type": "output_text", "text": written.text(), "annotations": []});
    json!({"type": "message", "id": format!("msg_{id}"), "status": "completed", "role": "assistant", "content": [text]})
}
