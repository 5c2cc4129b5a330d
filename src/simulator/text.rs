//! Replies in words: native and OpenAI's form, and what each model family adds.

use serde_json::{Value, json};

use super::Writes;
use super::prompt::{Prompt, first_tool};
use super::route::Wants;
use super::told::{UsageStyle, Words};
use super::writer::Written;
use super::{limits, messages};
use crate::catalogue::{Model, Task, Unit};
use crate::neurons::Neurons;
use crate::usage::Usage;

/// What sets a model family's replies apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Native replies hold OpenAI's `choices`.
    pub(super) is_openai_inside: bool,
    /// It thinks before it answers.
    pub(super) reasons: bool,
    /// `usage.neurons` is told.
    pub(super) tells_neurons: bool,
    /// How its streams tell their usage.
    pub(super) style: UsageStyle,
}

impl Family {
    pub(super) fn of(model: &Model) -> Self {
        let named = |part: &str| model.id.contains(part);
        let is_new = named("gemma-4") || named("glm-5") || named("gpt-oss") || named("kimi") || named("nemotron");
        Self {
            is_openai_inside: is_new || named("qwen3-30b"),
            reasons: named("glm-5") || named("gpt-oss") || named("qwq") || named("deepseek-r1"),
            tells_neurons: is_new || named("reranker") || named("moondream"),
            style: match () {
                () if named("gemma-4") || named("glm-5.3") => UsageStyle::Increments,
                () if named("moondream") || named("qwen3") || named("llama-4") => UsageStyle::Running,
                () => UsageStyle::End,
            },
        }
    }
}

/// What a text model answers, how often, and what it used.
#[derive(Debug)]
pub(super) struct Answer {
    /// Each of the choices.
    pub(super) written: Written,
    /// How many there are: `n`.
    pub(super) choices: u64,
    pub(super) usage: Usage,
}

impl Answer {
    /// `None` where the input is longer than the model's window. `cached` tokens of it are in the prefix cache.
    pub(super) fn new(prompt: &Prompt<'_>, model: &Model, wants: Wants, cached: u64, writes: Writes) -> Option<Self> {
        let read = prompt.tokens(model);
        if limits::window(model).is_some_and(|window| read > window) {
            return None;
        }
        let room = room(prompt, model, wants, read);
        let mut written = write(prompt, model, room);
        if writes == Writes::ToTheLimit {
            written.think_on(if model.task == Task::Translation { 4 * read + 1_000 } else { room });
        }
        let takes_n = limits::is_template(model) || model.id.contains("gpt-oss") || prompt.is_dear();
        let choices = if takes_n { prompt.limit(&["n"], Some(1), limits::MAX_ANSWERS) } else { 1 };
        let cached = if model.prices.get(Unit::CachedInputToken).is_some() { cached.min(read) } else { 0 };
        let output = written.tokens() * choices + prompt.predicted(model);
        Some(Self { written, choices, usage: Usage::tokens(read, cached, output) })
    }
}

/// The most tokens that one choice may have.
fn room(prompt: &Prompt<'_>, model: &Model, wants: Wants, read: u64) -> u64 {
    let is_responses = wants == Wants::Responses || (wants == Wants::Run && prompt.is_responses());
    let default = limits::default_output(model, is_responses);
    let names = ["max_completion_tokens", "max_tokens", "max_output_tokens", "max_length"];
    let names = if model.task == Task::Summarization { &names[..] } else { &names[..3] };
    prompt.limit(names, default, limits::most_output(model, read))
}

fn write(prompt: &Prompt<'_>, model: &Model, room: u64) -> Written {
    let last_role = prompt.field("messages").and_then(|all| all.items()?.next_back()?.get("role")?.text());
    if let (Some(tool), false) = (first_tool(prompt), last_role == Some("tool") || prompt.has_tool_result()) {
        return Written::tool_call(&tool);
    }
    match schema(prompt) {
        Some(schema) => Written::object(&schema, room),
        None => Written::prose(prompt.seed(&model.id), room, Family::of(model).reasons),
    }
}

/// The schema of the JSON mode; an empty one where any object will do.
fn schema(prompt: &Prompt<'_>) -> Option<Value> {
    let format = prompt.field("response_format").or_else(|| prompt.field("guided_json"))?.tree();
    match format["type"].as_str() {
        Some("text") => None,
        // OpenAI wraps the schema once more than the vendor does.
        Some("json_schema") => format["json_schema"].get("schema").or_else(|| format.get("json_schema")).cloned(),
        _ => Some(format),
    }
}

/// A whole reply in the form of the route.
pub(super) fn reply(wants: Wants, model: &Model, id: &str, answer: &Answer, words: Words) -> Value {
    match wants {
        Wants::Chat => chat(model, id, answer, words, true),
        Wants::Responses => response(model, id, answer, words),
        Wants::Messages => messages::reply(model, id, answer, words),
        _ => envelope(native(model, id, answer, words)),
    }
}

/// Cloudflare's envelope.
pub(super) fn envelope(result: Value) -> Value {
    json!({"result": result, "success": true, "errors": [], "messages": []})
}

fn told(model: &Model, answer: &Answer, words: Words) -> Value {
    words.tell(&answer.usage, neurons(model, &answer.usage))
}

/// Where the model tells them.
pub(super) fn neurons(model: &Model, usage: &Usage) -> Option<Neurons> {
    Family::of(model).tells_neurons.then(|| model.prices.cost(usage))
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
