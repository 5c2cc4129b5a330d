//! Replies in words: native and OpenAI's form, and what each model family adds.

use serde_json::{Value, json};

use super::prompt::Prompt;
use super::route::Wants;
use super::stream::UsageStyle;
use super::tokenizer::Tokenizer;
use super::writer::Written;
use crate::catalogue::{Model, Task};
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

/// What a text model answers.
pub(super) fn write(prompt: &Prompt, model: &Model) -> Written {
    let (seed, room) = (prompt.seed(&model.id), prompt.max_tokens());
    let last_role = prompt.json["messages"].as_array().and_then(|all| all.last()?["role"].as_str());
    if let (Some(tool), false) = (first_tool(&prompt.json), last_role == Some("tool")) {
        return Written::tool_call(tool);
    }
    match schema(&prompt.json) {
        Some(schema) => Written::object(schema, room),
        None => Written::prose(seed, room, Family::of(model).reasons),
    }
}

fn first_tool(json: &Value) -> Option<&Value> {
    let tools = json.get("tools").or_else(|| json.get("functions"))?.as_array()?;
    tools.first().filter(|_| json["tool_choice"] != "none")
}

/// The schema of the JSON mode; an empty one where any object will do.
fn schema(json: &Value) -> Option<&Value> {
    let format = json.get("response_format").or_else(|| json.get("guided_json"))?;
    match format["type"].as_str() {
        Some("text") => None,
        // OpenAI wraps the schema once more than the vendor does.
        Some("json_schema") => format["json_schema"].get("schema").or_else(|| format.get("json_schema")),
        _ => Some(format),
    }
}

/// Tokens of a text model's call.
pub(super) fn usage(prompt: &Prompt, model: &Model, cached: u64, written: &Written) -> Usage {
    let read = prompt.tokens(Tokenizer::of(&model.id));
    let cached =
        if model.prices.get(crate::catalogue::Unit::CachedInputToken).is_some() { cached.min(read) } else { 0 };
    Usage::tokens(read, cached, written.tokens())
}

/// As the vendor tells it.
pub(super) fn usage_json(usage: &Usage, neurons: Option<Neurons>) -> Value {
    let (read, written) = (usage.input_tokens, usage.output_tokens);
    let mut json = json!({
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens}
    });
    if let Some(neurons) = neurons {
        json["neurons"] = json!(neurons.as_f64());
    }
    json
}

/// A whole reply in the form of the route.
pub(super) fn reply(wants: Wants, model: &Model, id: &str, written: &Written, usage: Value) -> Value {
    match wants {
        Wants::Chat => chat(model, id, written, usage),
        Wants::Responses => response(model, id, written, usage),
        _ => envelope(native(model, id, written, usage)),
    }
}

/// Cloudflare's envelope.
pub(super) fn envelope(result: Value) -> Value {
    json!({"result": result, "success": true, "errors": [], "messages": []})
}

fn native(model: &Model, id: &str, written: &Written, usage: Value) -> Value {
    let text = written.text();
    match model.task {
        Task::Translation => return json!({"translated_text": text, "usage": usage}),
        Task::Summarization => return json!({"summary": text, "usage": usage}),
        Task::ImageToText if model.id.contains("llava") => return json!({ "description": text }),
        _ if model.id.contains("moondream") => {
            let metrics = json!({"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]});
            return json!({"answer": text, "metrics": metrics});
        }
        _ if Family::of(model).is_openai_inside => return chat(model, id, written, usage),
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

fn chat(model: &Model, id: &str, written: &Written, usage: Value) -> Value {
    let mut message = json!({"role": "assistant", "content": written.text()});
    if !written.reasoning.is_empty() {
        message["reasoning_content"] = json!(written.reasoning.concat());
    }
    if let Some((name, arguments)) = &written.tool {
        message["content"] = Value::Null;
        message["tool_calls"] = json!([tool_call(id, name, arguments)]);
    }
    let choice = json!({"index": 0, "message": message, "finish_reason": written.finish_reason(), "logprobs": null});
    json!({
        "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": 1_791_402_526, "model": &*model.id,
        "choices": [choice], "usage": usage
    })
}

pub(super) fn tool_call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": format!("call_{id}"), "type": "function", "function": {"name": name, "arguments": arguments}})
}

pub(super) fn response(model: &Model, id: &str, written: &Written, usage: Value) -> Value {
    let text = json!({"type": "output_text", "text": written.text(), "annotations": []});
    let message = json!({"type": "message", "id": format!("msg_{id}"), "status": "completed", "role": "assistant", "content": [text]});
    json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": 1_791_402_526, "status": "completed",
        "model": &*model.id, "output": [message], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "usage": {
            "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"], "output_tokens_details": {"reasoning_tokens": written.reasoning.len()}
        }
    })
}
