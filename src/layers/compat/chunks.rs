//! A chat's stream of chunks, chunk by chunk, in OpenAI's form.
//!
//! What OpenAI promises of a stream: each event is a chunk with `id`, `object`, `created`, `model` and `choices`; the first
//! delta of a choice has its `role`; each choice ends with a `finish_reason`; usage is told in one chunk of its own before
//! `[DONE]`, and only where `stream_options.include_usage` asks for it, in which case it is null in all others.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::errors;
use super::events::{DONE, FIELD, Verdict, event_of, place};
use super::frame::{Frame, Value};
use super::message::{content, finish_reason, reasoning};
use super::tool_calls::ToolCalls;
use super::usage::{ESTIMATED, Usage};
use crate::catalogue::{Model, Text};
use crate::endpoint::ErrorForm;
use crate::openai::Reasoning;
use crate::openai::object::{Object, array, count, items, quoted};
use crate::sse::Event;

/// What each chunk repeats, where the vendor does not say it.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: Arc<Model>,
    /// The text that was to be read, for usage that nobody tells.
    pub(super) read: Text,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Chunks {
    stamp: Stamp,
    usage_asked: bool,
    reasoning: Reasoning,
    /// `id`, `created` and `model`, as JSON.
    repeated: [String; 3],
    /// A chunk has been told.
    has_begun: bool,
    choices: Vec<Choice>,
    usage: Usage,
    /// Bytes of text that were told.
    text_bytes: u64,
    frame: Option<Frame>,
    end: End,
}

/// One of the answers that a stream tells side by side.
#[derive(Debug, Default)]
struct Choice {
    has_role: bool,
    has_ended: bool,
    tool_calls: ToolCalls,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Open,
    /// With an error, behind which no end is made up.
    Failed,
    Done,
}

/// A choice or a chunk as it is told.
struct Told<'a> {
    json: String,
    /// The content's JSON string as it came, and where it stands in `json`, if nothing else in it will change.
    content: Option<(&'a str, usize)>,
}

const OBJECT: &str = "\"chat.completion.chunk\"";
/// The names of what each chunk repeats, in the order of [`Chunks::repeated`].
const REPEATED: [&str; 3] = ["id", "created", "model"];
/// As many answers as a request may ask for (`n`).
const MAX_CHOICES: u64 = 128;

impl Chunks {
    pub(super) fn new(stamp: Stamp, usage_asked: bool, reasoning: Reasoning) -> Self {
        let repeated = [quoted(&stamp.id), stamp.created.to_string(), quoted(&stamp.model.id)];
        Self {
            stamp,
            usage_asked,
            reasoning,
            repeated,
            has_begun: false,
            choices: Vec::new(),
            usage: Usage::default(),
            text_bytes: 0,
            frame: None,
            end: End::Open,
        }
    }

    /// What becomes of an event.
    pub(super) fn judge(&mut self, event: &Event) -> Verdict {
        let raw = &event.raw[..];
        if let Some(fit) = self.frame.as_ref().and_then(|frame| frame.fit(raw)) {
            if let Some(usage) = fit.usage {
                self.usage.take_in(usage);
            }
            self.text_bytes += fit.content_bytes as u64;
            return fit.verdict;
        }
        let Some(data) = event.data() else { return Verdict::Same };
        if *data == *DONE {
            return self.close();
        }
        let Some(chunk) = Object::read(&data) else { return Verdict::Same };
        if let Some(error) = errors::in_event(&data, ErrorForm::OpenAi) {
            self.end = End::Failed;
            return Verdict::Bytes(event_of(&error));
        }
        let untold = untold(&chunk, raw);
        match self.chunk(chunk) {
            None => Verdict::Left,
            Some(told) if told.json.as_bytes() == &*data => {
                self.frame = told.content.and_then(|(content, _)| {
                    let from = place(raw, content)?;
                    Frame::of((raw, from.clone()), (raw, from), Vec::new())
                });
                Verdict::Same
            }
            Some(told) => {
                let out = event_of(&told.json);
                self.frame = told.content.and_then(|(content, at)| {
                    let at = FIELD.len() + at;
                    Frame::of((raw, place(raw, content)?), (&out, at..at + content.len()), untold)
                });
                Verdict::Bytes(out)
            }
        }
    }

    /// The next chunk is read whole.
    #[cfg(test)]
    pub(super) fn forget_frame(&mut self) {
        self.frame = None;
    }

    /// A chunk in OpenAI's form; `None` where nothing is left of it.
    fn chunk<'a>(&mut self, mut chunk: Object<'a>) -> Option<Told<'a>> {
        if let Some(usage) = chunk.get("usage") {
            self.usage.add(usage.as_bytes());
        }
        let mut told = match chunk.get_borrowed("choices") {
            Some(choices) => self.choices(&items(choices)?)?,
            None => {
                let choice = native(&mut chunk)?;
                Told { json: self.choices(&[&choice])?.json, content: None }
            }
        };
        for padding in ["p", "response", "tool_calls"] {
            chunk.remove(padding);
        }
        if self.usage_asked {
            chunk.set("usage", "null");
        } else {
            chunk.remove("usage");
        }
        self.stamp(&mut chunk);
        chunk.set("choices", told.json);
        let (json, at) = chunk.json_marking("choices");
        let content = told.content.take().zip(at);
        Some(Told { json, content: content.map(|((content, place), at)| (content, at + place)) })
    }

    /// The `choices` of a chunk; `None` where there are none.
    fn choices<'a>(&mut self, choices: &[&'a str]) -> Option<Told<'a>> {
        let mut told: Vec<Told<'a>> = choices.iter().zip(0..).map(|(json, place)| self.choice(json, place)).collect();
        let json = array(told.iter().map(|choice| &choice.json));
        let only = told.pop().filter(|_| told.is_empty());
        let content = only.and_then(|choice| choice.content).map(|(content, at)| (content, at + "[".len()));
        (!choices.is_empty()).then_some(Told { json, content })
    }

    fn choice<'a>(&mut self, json: &'a str, place: u64) -> Told<'a> {
        let Some(mut choice) = Object::read(json.as_bytes()) else {
            return Told { json: json.to_owned(), content: None };
        };
        let usage = choice.remove("usage");
        if let Some(usage) = &usage {
            self.usage.add(usage.as_bytes());
        }
        let index = choice.get("index").and_then(count).unwrap_or(place).min(MAX_CHOICES);
        let delta = choice.get_borrowed("delta").or_else(|| choice.get_borrowed("message")).unwrap_or("{}");
        choice.remove("message");
        let state = choice_state(&mut self.choices, index);
        let told = state.delta(delta, self.reasoning, &self.stamp.id, &mut self.text_bytes);
        let end = finish_reason(choice.get("finish_reason"), !state.tool_calls.is_empty());
        state.has_ended |= end.is_some();
        choice.set("index", index.to_string());
        choice.set("delta", told.json);
        choice.set("finish_reason", end.map_or_else(|| "null".to_owned(), quoted));
        let (json, at) = choice.json_marking("delta");
        // What a choice says of its usage must be read in the next chunk, too.
        let content = told.content.zip(at).filter(|_| end.is_none() && usage.is_none());
        Told { json, content: content.map(|((content, place), at)| (content, at + place)) }
    }

    /// Gives a chunk what every chunk repeats: the words of the vendor's first chunk.
    fn stamp(&mut self, chunk: &mut Object<'_>) {
        for (name, repeated) in REPEATED.into_iter().zip(&mut self.repeated) {
            match chunk.get(name) {
                Some(told) if !self.has_begun => told.clone_into(repeated),
                _ => chunk.set(name, repeated.clone()),
            }
        }
        self.has_begun = true;
        chunk.set("object", OBJECT);
    }

    /// `[DONE]`, and before it what was promised and has not come.
    fn close(&mut self) -> Verdict {
        let end = std::mem::replace(&mut self.end, End::Done);
        if end != End::Open {
            return if end == End::Done { Verdict::Left } else { Verdict::Same };
        }
        let mut out = BytesMut::new();
        choice_state(&mut self.choices, 0);
        for (index, choice) in self.choices.iter().enumerate().filter(|(_, choice)| !choice.has_ended) {
            let delta = if choice.has_role { "{}" } else { r#"{"role":"assistant","content":""}"# };
            let end = if choice.tool_calls.is_empty() { "stop" } else { "tool_calls" };
            let choice = format!(r#"{{"index":{index},"delta":{delta},"finish_reason":"{end}"}}"#);
            out.extend_from_slice(&event_of(&self.made(&format!("[{choice}]"), "null", "")));
        }
        if self.usage_asked {
            let (usage, mark) = self.total();
            out.extend_from_slice(&event_of(&self.made("[]", &usage, mark)));
        }
        if out.is_empty() {
            return Verdict::Same;
        }
        out.put_slice(b"data: [DONE]\n\n");
        Verdict::Bytes(out)
    }

    /// The usage of the whole stream, and a mark where the gate has reckoned it.
    fn total(&self) -> (String, &'static str) {
        if self.usage.is_known {
            return (self.usage.json(), "");
        }
        let (tokens, read) = (&self.stamp.model.tokens, &self.stamp.read);
        let usage = Usage::estimated(tokens.input_tokens(read), tokens.output_tokens(self.text_bytes));
        (usage.json(), ESTIMATED)
    }

    /// A chunk that the vendor has not sent.
    fn made(&self, choices: &str, usage: &str, mark: &str) -> String {
        let [id, created, model] = &self.repeated;
        let usage = if self.usage_asked { format!(r#","usage":{usage}"#) } else { String::new() };
        format!(
            r#"{{"id":{id},"object":{OBJECT},"created":{created},"model":{model},"choices":{choices}{usage}{mark}}}"#
        )
    }
}

/// Where in its event a chunk has what is not told, and may be another in each chunk.
fn untold(chunk: &Object<'_>, event: &[u8]) -> Vec<(Range<usize>, Value)> {
    let usage = chunk.get_borrowed("usage").filter(|usage| usage.starts_with('{')).map(|usage| (usage, Value::Usage));
    let padding = chunk.get_borrowed("p").filter(|padding| padding.starts_with('"')).map(|text| (text, Value::Padding));
    usage.into_iter().chain(padding).filter_map(|(json, value)| Some((place(event, json)?, value))).collect()
}

/// Makes the places of all choices up to this one.
fn choice_state(choices: &mut Vec<Choice>, index: u64) -> &mut Choice {
    let index = index.min(MAX_CHOICES) as usize;
    if choices.len() <= index {
        choices.resize_with(index + 1, Choice::default);
    }
    &mut choices[index]
}

impl Choice {
    fn delta<'a>(&mut self, json: &'a str, names: Reasoning, id: &str, text_bytes: &mut u64) -> Told<'a> {
        let Some(mut delta) = Object::read(json.as_bytes()) else {
            return Told { json: json.to_owned(), content: None };
        };
        let had_role = std::mem::replace(&mut self.has_role, true);
        if had_role {
            delta.remove("role");
        } else if delta.get("role").is_none() {
            delta.set("role", "\"assistant\"");
        }
        let plain = delta.get_borrowed("content").filter(|content| content.starts_with('"'));
        if delta.has("content") {
            let told = delta.get_borrowed("content").map_or("\"\"".into(), content);
            *text_bytes += told.len() as u64 - 2;
            delta.set("content", told);
        }
        reasoning(&mut delta, names);
        *text_bytes += names.names().first().and_then(|name| delta.get(name)).map_or(0, str::len) as u64;
        let calls = delta.get("tool_calls").and_then(|calls| self.tool_calls.delta(calls, id));
        let is_plain = calls.is_none() && names.names().iter().all(|name| !delta.has(name));
        match calls {
            Some(calls) => delta.set("tool_calls", calls),
            None => drop(delta.remove("tool_calls")),
        }
        if delta.get("function_call").is_none() {
            delta.remove("function_call");
        }
        let (json, at) = delta.json_marking("content");
        Told { json, content: plain.zip(at).filter(|_| is_plain && had_role) }
    }
}

/// The vendor's own chunk as a choice; `None` where it says nothing but its usage.
fn native(chunk: &mut Object<'_>) -> Option<String> {
    let mut delta = Object::default();
    let response = chunk.remove("response").filter(|response| response != "\"\"");
    let calls = chunk.remove("tool_calls").filter(|calls| items(calls).is_some_and(|calls| !calls.is_empty()));
    let end = chunk.remove("finish_reason").filter(|end| end != "\"\"");
    if response.is_none() && calls.is_none() && end.is_none() {
        return None;
    }
    if let Some(response) = &response {
        delta.set("content", content(response));
    }
    if let Some(calls) = &calls {
        delta.set("tool_calls", &**calls);
    }
    let end = end.as_deref().unwrap_or("null");
    Some(format!(r#"{{"index":0,"delta":{},"finish_reason":{end}}}"#, delta.json()))
}
