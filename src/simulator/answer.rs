//! What a text model answers, and what sets its family apart.

use serde_json::Value;

use super::limits;
use super::prompt::{Prompt, first_tool};
use super::route::Wants;
use super::settings::Writes;
use super::usage::UsageStyle;
use super::writer::Written;
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
    if let (Some(tool), false) = (first_tool(prompt), prompt.has_tool_result()) {
        return Written::tool_call(&tool);
    }
    match schema(prompt) {
        Some(schema) => Written::object(&schema, room),
        None => Written::prose(prompt.seed(&model.id), room, Family::of(model).reasons),
    }
}

/// The schema of the JSON mode; an empty one where any object will do.
fn schema(prompt: &Prompt<'_>) -> Option<Value> {
    let of_responses = || prompt.field("text")?.get("format");
    let format = prompt.field("response_format").or_else(|| prompt.field("guided_json")).or_else(of_responses)?.tree();
    match format["type"].as_str() {
        Some("text") => None,
        Some("json_schema") if format.get("json_schema").is_none() => format.get("schema").cloned(),
        // OpenAI wraps the schema once more than the vendor does.
        Some("json_schema") => format["json_schema"].get("schema").or_else(|| format.get("json_schema")).cloned(),
        _ => Some(format),
    }
}

/// Where the model tells them.
pub(super) fn neurons(model: &Model, usage: &Usage) -> Option<Neurons> {
    Family::of(model).tells_neurons.then(|| model.prices.cost(usage))
}
