//! What a whole message and a stream's delta have in common: content, reasoning, and how a choice ends.

use std::borrow::Cow;

use crate::openai::Reasoning;
use crate::openai::object::{Object, items, quoted, text};

/// Content as JSON text that is a string, also where the vendor has an object of JSON mode or a list of parts there.
pub(super) fn content(json: &str) -> Cow<'_, str> {
    if json.starts_with('"') {
        return json.into();
    }
    let parts = items(json).filter(|parts| !parts.is_empty());
    let texts = parts.and_then(|parts| parts.into_iter().map(part_text).collect::<Option<String>>());
    quoted(texts.as_deref().unwrap_or(json)).into()
}

/// The text of `{"type":"text","text":"…"}`.
fn part_text(part: &str) -> Option<String> {
    let part = Object::read(part.as_bytes())?;
    part.get("type").is_some_and(|kind| kind.contains("text")).then(|| part.text("text"))?
}

/// Tells the reasoning under the wanted names alone, and not at all where there is none.
pub(super) fn reasoning(message: &mut Object<'_>, wanted: Reasoning) {
    let both = Reasoning::Both.names();
    let told = both.iter().find_map(|name| message.get(name)).map(str::to_owned);
    for name in both {
        match &told {
            Some(told) if wanted.names().contains(name) => message.set(name, told.clone()),
            _ if message.has(name) => drop(message.remove(name)),
            _ => {}
        }
    }
}

/// Why a choice ended, in OpenAI's words; `None` where it has not.
pub(super) fn finish_reason(told: Option<&str>, has_tool_calls: bool) -> Option<&'static str> {
    let told = text(told?)?.to_ascii_lowercase();
    Some(match told.as_str() {
        "length" | "max_tokens" | "max_output_tokens" | "model_length" => "length",
        "tool_calls" | "tool_use" => "tool_calls",
        "function_call" => "function_call",
        "content_filter" | "safety" => "content_filter",
        "" => return None,
        _ if has_tool_calls => "tool_calls",
        _ => "stop",
    })
}

/// Sets the field to null where it is absent, for it is promised.
pub(super) fn promise_null(object: &mut Object<'_>, name: &'static str) {
    if !object.has(name) {
        object.set(name, "null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_a_string_whatever_the_vendor_has_there() {
        for (told, wanted) in [
            (r#""as \u00e9 is""#, r#""as \u00e9 is""#),
            (r#"{"b": 1.50, "a": [2]}"#, r#""{\"b\": 1.50, \"a\": [2]}""#),
            (r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#, r#""ab""#),
            (r#"[1,2]"#, r#""[1,2]""#),
            ("[]", r#""[]""#),
            ("7", r#""7""#),
        ] {
            assert_eq!(content(told), wanted);
        }
    }

    #[test]
    fn reasoning_has_the_wanted_names_alone() {
        let mended = |json: &'static str, wanted| {
            let mut message = Object::read(json.as_bytes()).unwrap();
            reasoning(&mut message, wanted);
            message.json()
        };
        let told = r#"{"content":"","reasoning_content":"so"}"#;
        assert_eq!(mended(told, Reasoning::Both), r#"{"content":"","reasoning_content":"so","reasoning":"so"}"#);
        assert_eq!(mended(told, Reasoning::Reasoning), r#"{"content":"","reasoning":"so"}"#);
        assert_eq!(mended(r#"{"reasoning":"so"}"#, Reasoning::ReasoningContent), r#"{"reasoning_content":"so"}"#);
        assert_eq!(mended(r#"{"reasoning_content":null}"#, Reasoning::Both), "{}");
    }

    #[test]
    fn an_end_has_one_of_openais_words() {
        let end = |told: &str| finish_reason(Some(told), false);
        assert_eq!([end("\"stop\""), end("\"eos\""), end("\"length\"")], [Some("stop"), Some("stop"), Some("length")]);
        assert_eq!((end("\"\""), end("7"), finish_reason(None, true)), (None, None, None));
        assert_eq!(finish_reason(Some("\"stop\""), true), Some("tool_calls"));
    }
}
