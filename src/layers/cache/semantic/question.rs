//! What a call asks: the last user's message, and all that is beside it.

use serde_json::{Map, Value};

use crate::call::Call;
use crate::catalogue::Task;

/// See the [module](self).
#[derive(Debug, PartialEq)]
pub(in crate::layers::cache) struct Question {
    pub(in crate::layers::cache) text: Box<str>,
    /// The body without that text, as JSON with its keys in order.
    pub(in crate::layers::cache) rest: Vec<u8>,
}

/// A longer message has more in it than one vector can tell.
const MAX_TEXT_BYTES: usize = 8 * 1024;
/// A longer body is not taken apart.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// With any of these the answer is no plain text's, or the caller wants just this one.
const NEVER: [&str; 12] = [
    "tools",
    "functions",
    "tool_choice",
    "function_call",
    "image",
    "images",
    "audio",
    "modalities",
    "seed",
    "requests",
    "previous_response_id",
    "conversation",
];

impl Question {
    /// `None` where it has none that may be answered as another one was.
    pub(super) fn of(call: &Call) -> Option<Self> {
        let (ask, options, body) = (&call.ask, &call.options, call.plain_body());
        let is_plain = call.model.task == Task::TextGeneration
            && call.socket.is_none()
            && call.elsewhere.is_none()
            && call.named_beside.is_none()
            && call.ceiling.is_none();
        let is_by_name = options.skip_cache || options.cache_key.is_some();
        let is_more = ask.batch || ask.seeded || !ask.input_images.is_empty();
        if !is_plain || is_by_name || is_more || body.len() > MAX_BODY_BYTES {
            return None;
        }
        let mut rest: Map<String, Value> = serde_json::from_slice(body).ok()?;
        if NEVER.iter().any(|name| rest.get(*name).is_some_and(|value| !value.is_null())) {
            return None;
        }
        let text = match (rest.contains_key("messages"), rest.contains_key("prompt"), rest.contains_key("input")) {
            (true, false, false) => last_message(rest.get_mut("messages")?)?,
            (false, true, false) => taken(rest.get_mut("prompt")?)?,
            (false, false, true) => taken(rest.get_mut("input")?)?,
            _ => return None,
        };
        let is_short = text.len() <= MAX_TEXT_BYTES && !text.trim().is_empty();
        let rest = serde_json::to_vec(&rest).ok()?;
        is_short.then(|| Self { text: text.into(), rest })
    }
}

/// Takes out the text of the last message, where that is a user's and there is nothing but text in any of them.
fn last_message(messages: &mut Value) -> Option<String> {
    let messages = messages.as_array_mut()?;
    if !messages.iter().all(is_text) {
        return None;
    }
    let last = messages.last_mut()?;
    if last.get("role")?.as_str()? != "user" {
        return None;
    }
    match last.get_mut("content")? {
        Value::Array(parts) => match parts.as_mut_slice() {
            [part] => taken(part.get_mut("text")?),
            _ => None,
        },
        content => taken(content),
    }
}

fn is_text(message: &Value) -> bool {
    let Some(fields) = message.as_object() else { return false };
    let is_tools = fields.get("role").and_then(Value::as_str).is_none_or(|role| matches!(role, "tool" | "function"))
        || ["tool_calls", "tool_call_id", "function_call"].iter().any(|name| fields.contains_key(*name));
    let is_text_part = |part: &Value| {
        part.get("type")
            .and_then(Value::as_str)
            .is_some_and(|kind| matches!(kind, "text" | "input_text" | "output_text"))
    };
    !is_tools
        && match fields.get("content") {
            Some(Value::String(_)) => true,
            Some(Value::Array(parts)) => parts.iter().all(is_text_part),
            _ => false,
        }
}

fn taken(value: &mut Value) -> Option<String> {
    match value.take() {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::call::{Endpoint, Options};
    use crate::layers::testing::{LLAMA, call};

    fn question(body: &str) -> Option<Question> {
        Question::of(&call(LLAMA, body))
    }

    #[test]
    fn the_last_message_is_the_question_and_all_else_is_the_rest() {
        let asked = |text: &str, rest: &str| {
            question(&format!(
                r#"{{"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{text}"}}]{rest}}}"#
            ))
            .unwrap()
        };
        let one = asked("Why is the sky blue?", "");
        assert_eq!(&*one.text, "Why is the sky blue?");
        assert_eq!(asked("What makes the sky blue?", "").rest, one.rest);
        assert_ne!(asked("Why is the sky blue?", r#","max_tokens":5"#).rest, one.rest);
        let spaced = question(
            r#"{ "messages": [{"content": "Be brief.", "role":"system"}, {"role":"user","content":"Why?"}] }"#,
        );
        assert_eq!(spaced.unwrap().rest, one.rest, "the order of keys and white space say nothing");
        assert_eq!(&*question(r#"{"prompt":"Why?"}"#).unwrap().text, "Why?");
        let part = question(r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Why?"}]}]}"#);
        assert_eq!(&*part.unwrap().text, "Why?");
    }

    #[test]
    fn nothing_is_asked_where_the_answer_is_no_plain_text_s_or_is_to_be_this_one() {
        let user = r#"{"role":"user","content":"Why?"}"#;
        for body in [
            format!(r#"{{"messages":[{user}],"tools":[{{}}]}}"#),
            format!(r#"{{"messages":[{user}],"functions":[]}}"#),
            format!(r#"{{"messages":[{user}],"seed":1}}"#),
            format!(r#"{{"messages":[{user}],"prompt":"Why?"}}"#),
            format!(r#"{{"messages":[{user},{{"role":"assistant","content":"So"}}]}}"#),
            format!(r#"{{"messages":[{{"role":"tool","content":"7"}},{user}]}}"#),
            format!(r#"{{"messages":[{{"role":"assistant","tool_calls":[],"content":""}},{user}]}}"#),
            format!(r#"{{"messages":[{user}],"image":"x"}}"#),
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}"#.into(),
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#
                .into(),
            r#"{"messages":[]}"#.into(),
            r#"{"messages":[{"role":"user","content":"  "}]}"#.into(),
            format!(r#"{{"prompt":"{}"}}"#, "x".repeat(MAX_TEXT_BYTES + 1)),
            r#"{"prompt":7}"#.into(),
            r#"{"requests":[{"prompt":"a"}]}"#.into(),
            "[]".into(),
            "{".into(),
            String::new(),
        ] {
            assert_eq!(question(&body), None, "{body}");
        }
        let mut named = call(LLAMA, r#"{"prompt":"Why?"}"#);
        named.options = Arc::new(Options { cache_key: Some("n".into()), ..Options::default() });
        assert_eq!(Question::of(&named), None);
        let embeds = Call::new("acc", call("@cf/baai/bge-m3", "{}").model, Endpoint::Run, r#"{"prompt":"Why?"}"#);
        assert_eq!(Question::of(&embeds.unwrap()), None);
    }
}
