//! A whole chat reply in OpenAI's form, and as a stream where one was asked for and the model does not stream.

use std::fmt::Write;

use super::chunks::Stamp;
use super::message::{content, finish_reason, promise_null, reasoning};
use super::usage::{self, ESTIMATED, Usage};
use super::{tool_calls, unwrapped};
use crate::openai::Reasoning;
use crate::openai::object::{Object, array, count, items, quoted};

/// The reply in OpenAI's form; `None` where this is no reply of a text model.
pub(super) fn mend(body: &[u8], stamp: &Stamp, names: Reasoning) -> Option<String> {
    let body = unwrapped(body);
    let mut reply = Object::read(&body)?;
    let told = reply.get("choices").and_then(items).filter(|choices| !choices.is_empty());
    let told = told.map(|choices| choices.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let told = match told {
        Some(told) => told,
        None => vec![native(&mut reply)?],
    };
    let mut text_bytes = 0;
    let choices = told.iter().zip(0..).map(|(json, place)| choice(json, place, stamp, names, &mut text_bytes));
    let choices = array(choices.collect::<Vec<_>>());
    if reply.get("id").is_none() {
        reply.set_text("id", &stamp.id);
    }
    reply.set("object", "\"chat.completion\"");
    if reply.get("created").and_then(count).is_none() {
        reply.set("created", stamp.created.to_string());
    }
    if reply.get("model").is_none() {
        reply.set_text("model", &stamp.model.id);
    }
    reply.set("choices", choices);
    reply.remove("p");
    let usage = reply.get("usage").and_then(|told| Some(usage::whole(told)?.into_owned()));
    match usage {
        Some(usage) => reply.set("usage", usage),
        None => {
            let tokens = &stamp.model.tokens;
            let usage = Usage::estimated(tokens.input_tokens(&stamp.read), tokens.output_tokens(text_bytes));
            reply.set("usage", usage.json());
            reply.set("x_tollgate", ESTIMATED_MARK);
        }
    }
    Some(reply.json())
}

/// The value of [`ESTIMATED`].
const ESTIMATED_MARK: &str = r#"{"usage":"estimated"}"#;

fn choice(json: &str, place: u64, stamp: &Stamp, names: Reasoning, text_bytes: &mut u64) -> String {
    let Some(mut choice) = Object::read(json.as_bytes()) else { return json.to_owned() };
    if choice.get("index").and_then(count).is_none() {
        choice.set("index", place.to_string());
    }
    let raw = choice.get("message").unwrap_or("{}").to_owned();
    let mut message = Object::read(raw.as_bytes()).unwrap_or_default();
    if message.get("role").is_none() {
        message.set("role", "\"assistant\"");
    }
    let calls = message.get("tool_calls").and_then(|calls| tool_calls::whole(calls, &stamp.id));
    let told = message.get("content").map(|told| content(told).into_owned());
    *text_bytes += told.as_ref().map_or(0, String::len) as u64 + calls.as_ref().map_or(0, String::len) as u64;
    let empty = if calls.is_some() { "null" } else { "\"\"" };
    message.set("content", told.unwrap_or_else(|| empty.to_owned()));
    reasoning(&mut message, names);
    *text_bytes += names.names().first().and_then(|name| message.get(name)).map_or(0, str::len) as u64;
    promise_null(&mut message, "refusal");
    let end = finish_reason(choice.get("finish_reason"), calls.is_some());
    let end = end.unwrap_or(if calls.is_some() { "tool_calls" } else { "stop" });
    match calls {
        Some(calls) => message.set("tool_calls", calls),
        None => drop(message.remove("tool_calls")),
    }
    if message.get("function_call").is_none() {
        message.remove("function_call");
    }
    choice.set("message", message.json());
    choice.set("finish_reason", quoted(end));
    promise_null(&mut choice, "logprobs");
    choice.json()
}

/// The vendor's own reply, `{"response":…,"tool_calls":[…]}`, as a choice.
fn native(reply: &mut Object<'_>) -> Option<String> {
    let (response, calls) = (reply.remove("response"), reply.remove("tool_calls"));
    if response.is_none() && calls.is_none() {
        return None;
    }
    let mut message = Object::default();
    message.set("role", "\"assistant\"");
    if let Some(response) = &response {
        message.set("content", &**response);
    }
    if let Some(calls) = &calls {
        message.set("tool_calls", &**calls);
    }
    let end = reply.remove("finish_reason");
    let end = end.as_deref().unwrap_or("null");
    Some(format!(r#"{{"index":0,"message":{},"finish_reason":{end}}}"#, message.json()))
}

/// A whole reply, already mended, as the stream that was asked for.
pub(super) fn as_stream(reply: &str, usage_asked: bool) -> Option<String> {
    let reply = Object::read(reply.as_bytes())?;
    let head = ["id", "created", "model"].map(|name| format!("\"{name}\":{}", reply.get(name).unwrap_or("null")));
    let head = format!(r#"{},"object":"chat.completion.chunk""#, head.join(","));
    let no_usage = if usage_asked { r#","usage":null"# } else { "" };
    let mut events = String::new();
    for choice in items(reply.get("choices")?)? {
        let choice = Object::read(choice.as_bytes())?;
        let index = choice.get("index")?;
        let mut delta = choice.object("message")?;
        delta.remove("refusal");
        if delta.get("content").is_none() {
            delta.set("content", "\"\"");
        }
        let calls = delta.get("tool_calls").and_then(items).map(|calls| array(calls.iter().zip(0..).map(indexed)));
        if let Some(calls) = calls {
            delta.set("tool_calls", calls);
        }
        let end = choice.get("finish_reason")?;
        for (delta, end) in [(&*delta.json(), "null"), ("{}", end)] {
            let choice = format!(r#"{{"index":{index},"delta":{delta},"finish_reason":{end}}}"#);
            // Writing to a string does not fail.
            let _ = write!(events, "data: {{{head},\"choices\":[{choice}]{no_usage}}}\n\n");
        }
    }
    if usage_asked {
        let mark = if reply.has("x_tollgate") { ESTIMATED } else { "" };
        let _ = write!(events, "data: {{{head},\"choices\":[],\"usage\":{}{mark}}}\n\n", reply.get("usage")?);
    }
    events.push_str("data: [DONE]\n\n");
    Some(events)
}

fn indexed((call, index): (&&str, usize)) -> String {
    let Some(mut call) = Object::read(call.as_bytes()) else { return (*call).to_owned() };
    call.set("index", index.to_string());
    call.json()
}
