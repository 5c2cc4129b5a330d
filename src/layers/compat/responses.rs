//! OpenAI's `response`, whole or as a stream: its own events alone, each with all that is promised.

use std::borrow::Cow;

use super::errors;
use super::events::{DONE, Verdict, event_of, named_event_of};
use crate::endpoint::ErrorForm;
use crate::openai::object::Object;
use crate::sse::Event;

/// Counts that a `response` has beside its sums; what is not told of them is none.
const DETAILS: [(&str, &[&str]); 2] = [
    ("input_tokens_details", &["cached_tokens", "cache_write_tokens"]),
    ("output_tokens_details", &["reasoning_tokens"]),
];

/// What becomes of an event. The vendor's own, which have no `type`, are left out; an error is told in OpenAI's form; and
/// what OpenAI promises in an event and the vendor leaves out is added.
pub(super) fn judge(event: &Event) -> Verdict {
    let Some(data) = event.data().filter(|data| **data != *DONE) else { return Verdict::Same };
    let Some(mut told) = Object::read(&data) else { return Verdict::Same };
    let Some(kind) = told.get("type").map(|kind| kind.trim_matches('"').to_owned()) else {
        return match errors::in_event(&data, ErrorForm::OpenAi) {
            Some(error) => Verdict::Bytes(event_of(&error)),
            None => Verdict::Left,
        };
    };
    if matches!(&*kind, "response.output_text.delta" | "response.output_text.done") && told.get("logprobs").is_none() {
        told.set("logprobs", "[]");
    } else if let Some(response) = told.object("response").and_then(with_details) {
        told.set("response", response);
    } else {
        return Verdict::Same;
    }
    Verdict::Bytes(named_event_of(&kind, &told.json()))
}

/// A whole response out of the vendor's envelope, and with its usage's details; `None` where it may stay as it came.
pub(super) fn mend(body: &[u8]) -> Option<String> {
    let inner = super::unwrapped(body);
    Object::read(&inner).and_then(with_details).or_else(|| match &inner {
        Cow::Borrowed(_) => None,
        Cow::Owned(inner) => String::from_utf8(inner.clone()).ok(),
    })
}

/// The response with the details of its usage; `None` where it has them, or no usage.
fn with_details(mut response: Object<'_>) -> Option<String> {
    let told = response.get("usage")?.to_owned();
    let mut usage = Object::read(told.as_bytes())?;
    let mut is_mended = false;
    for (name, counts) in DETAILS {
        let told = usage.get(name).unwrap_or("{}").to_owned();
        let mut details = Object::read(told.as_bytes())?;
        for count in counts {
            if details.get(count).is_none() {
                details.set(count, "0");
                is_mended = true;
            }
        }
        usage.set(name, details.json());
    }
    if !is_mended {
        return None;
    }
    response.set("usage", usage.json());
    Some(response.json())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn verdict(text: &str) -> Verdict {
        let mut events = crate::sse::Events::default();
        events.push(text.as_bytes());
        judge(&events.next().unwrap())
    }

    #[test]
    fn openais_events_pass_and_the_vendors_own_do_not() {
        assert_eq!(verdict("event: e\ndata: {\"type\":\"response.created\"}\n\n"), Verdict::Same);
        assert_eq!(verdict("data: {\"response\":\"\",\"usage\":{}}\n\n"), Verdict::Left);
        assert_eq!(verdict("data: [DONE]\n\n"), Verdict::Same);
        assert!(matches!(verdict("data: {\"error\":\"3040: full\"}\n\n"), Verdict::Bytes(_)));
    }

    #[test]
    fn an_event_has_what_openai_promises_in_it() {
        let told = |data: Value| match verdict(&format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()))
        {
            Verdict::Bytes(event) => String::from_utf8(event.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        let delta = told(json!({"delta": "a", "type": "response.output_text.delta"}));
        let wanted = "event: response.output_text.delta\ndata: {\"delta\":\"a\",\"type\":\"response.output_text.delta\",\"logprobs\":[]}\n\n";
        assert_eq!(delta, wanted);
        let usage = json!({"input_tokens": 1, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2});
        let end = told(json!({"type": "response.completed", "response": {"id": "r", "usage": usage}}));
        let end: Value = serde_json::from_str(end.split_once("data: ").unwrap().1).unwrap();
        let details = json!({"cached_tokens": 4, "cache_write_tokens": 0});
        assert_eq!(end["response"]["usage"]["input_tokens_details"], details);
        assert_eq!(end["response"]["usage"]["output_tokens_details"], json!({"reasoning_tokens": 0}));
        let whole = end["response"].clone();
        assert_eq!(mend(whole.to_string().as_bytes()), None);
        let mended =
            mend(json!({"result": {"id": "r", "usage": usage}, "success": true}).to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&mended).unwrap(), whole);
    }
}
