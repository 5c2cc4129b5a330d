//! Anthropic's form: its own events alone, and the usage that it promises.

use std::borrow::Cow;

use super::chunks::Stamp;
use super::errors;
use super::events::{DONE, Verdict, named_event_of};
use crate::endpoint::ErrorForm;
use crate::openai::object::{Object, count, items};
use crate::sse::Event;

/// One stream.
#[derive(Debug)]
pub(super) struct Messages {
    stamp: Stamp,
    /// Bytes of text that were told.
    text_bytes: u64,
}

impl Messages {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self { stamp, text_bytes: 0 }
    }

    /// What becomes of an event. The vendor's own, which have no `type`, are left out; an error is told in Anthropic's form;
    /// and where usage is to be told, counts that are missing are reckoned.
    pub(super) fn judge(&mut self, event: &Event) -> Verdict {
        let Some(data) = event.data() else { return Verdict::Same };
        if *data == *DONE {
            return Verdict::Left;
        }
        let Some(told) = Object::read(&data) else { return Verdict::Same };
        match told.get("type") {
            Some("\"content_block_delta\"") => {
                self.text_bytes +=
                    told.get("delta").map_or(0, |delta| text_bytes(delta, &["text", "thinking", "partial_json"]));
                Verdict::Same
            }
            Some("\"message_start\"") => {
                let message = told.object("message").and_then(|message| self.with_usage(message, &COUNTS));
                message.map_or(Verdict::Same, |message| with(told.clone(), "message", message, "message_start"))
            }
            Some("\"message_delta\"") => {
                // What was read stands in the first event; behind it the count of what was written is a must.
                let mended = self.with_usage(told.clone(), &COUNTS[1..]);
                mended.map_or(Verdict::Same, |mended| named("message_delta", &mended))
            }
            Some(_) => Verdict::Same,
            None => match errors::in_event(&data, ErrorForm::Anthropic) {
                Some(error) => named("error", &error),
                None => Verdict::Left,
            },
        }
    }

    /// The object with these counts in its usage; `None` where it has them.
    fn with_usage(&self, mut told: Object<'_>, counts: &[&'static str]) -> Option<String> {
        let usage = told.get("usage").map_or_else(|| "{}".to_owned(), str::to_owned);
        let mut usage = Object::read(usage.as_bytes()).unwrap_or_default();
        if counts.iter().all(|name| usage.get(name).is_some_and(|json| count(json).is_some())) {
            return None;
        }
        for name in counts.iter().filter(|name| usage.get(name).and_then(count).is_none()).copied().collect::<Vec<_>>()
        {
            let tokens = &self.stamp.model.tokens;
            let reckoned = match name {
                "input_tokens" => tokens.input_tokens(&self.stamp.read),
                _ => tokens.output_tokens(self.text_bytes),
            };
            usage.set(name, reckoned.to_string());
        }
        let usage = usage.json();
        told.set("usage", usage);
        Some(told.json())
    }
}

const COUNTS: [&str; 2] = ["input_tokens", "output_tokens"];

/// A whole message out of the vendor's envelope, and with its usage; `None` where it may stay as it came.
pub(super) fn mend(body: &[u8], stamp: &Stamp) -> Option<String> {
    let inner = super::unwrapped(body);
    let message = Object::read(&inner).filter(|message| message.get("type") == Some("\"message\""));
    let blocks = message.as_ref().and_then(|message| items(message.get("content")?));
    let bytes = blocks.iter().flatten().map(|block| text_bytes(block, &["text", "thinking", "input"])).sum();
    let reader = Messages { stamp: stamp.clone(), text_bytes: bytes };
    message.and_then(|message| reader.with_usage(message, &COUNTS)).or_else(|| match &inner {
        Cow::Borrowed(_) => None,
        Cow::Owned(inner) => String::from_utf8(inner.clone()).ok(),
    })
}

/// How long the texts of these fields are, quotes not counted.
fn text_bytes(json: &str, fields: &[&str]) -> u64 {
    let Some(object) = Object::read(json.as_bytes()) else { return 0 };
    fields.iter().filter_map(|field| object.get(field)).map(|text| text.len().saturating_sub(2) as u64).sum()
}

/// An event whose field has become another.
fn with(mut told: Object<'_>, field: &'static str, json: String, name: &str) -> Verdict {
    told.set(field, json);
    named(name, &told.json())
}

fn named(name: &str, data: &str) -> Verdict {
    Verdict::Bytes(named_event_of(name, data))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::stamp;
    use super::*;

    fn told(verdict: Verdict) -> Value {
        let Verdict::Bytes(told) = verdict else { panic!("{verdict:?}") };
        let told = std::str::from_utf8(&told).unwrap();
        let data = told.split_once("\ndata: ").and_then(|(_, data)| data.strip_suffix("\n\n")).unwrap();
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn usage_that_nobody_tells_is_reckoned_where_clients_look_for_it() {
        let mut stream = Messages::new(stamp());
        let mut judge = |data: Value| {
            let mut events = crate::sse::Events::default();
            events.push(format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()).as_bytes());
            stream.judge(&events.next().unwrap())
        };
        for usage in [json!(null), json!({}), json!({"input_tokens": null, "output_tokens": 0})] {
            let start = told(judge(json!({"type": "message_start", "message": {"id": "a", "usage": usage}})));
            assert!(
                start["message"]["usage"]["input_tokens"].is_u64() && start["message"]["usage"]["output_tokens"] == 0
            );
            assert_eq!(start["message"]["id"], "a");
        }
        let text = json!({"type": "text_delta", "text": "a text of some words, so that it has tokens"});
        assert_eq!(judge(json!({"type": "content_block_delta", "index": 0, "delta": text})), Verdict::Same);
        let end = told(judge(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": null})));
        assert!(end["usage"]["output_tokens"].as_u64() > Some(3), "{end}");
        assert_eq!(end["delta"]["stop_reason"], "end_turn");
        let good = json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}});
        assert_eq!(judge(good), Verdict::Same);
    }

    #[test]
    fn a_whole_message_has_usage_and_no_envelope() {
        let message = json!({"type": "message", "content": [{"type": "text", "text": "some words of an answer"}]});
        let mut good = message.clone();
        good["usage"] = json!({"input_tokens": 1, "output_tokens": 2});
        assert_eq!(mend(good.to_string().as_bytes(), &stamp()), None);
        let mend =
            |body: Value| serde_json::from_str::<Value>(&mend(body.to_string().as_bytes(), &stamp()).unwrap()).unwrap();
        assert_eq!(mend(json!({"result": good, "success": true})), good);
        for body in [message.clone(), json!({"result": message})] {
            assert!(mend(body)["usage"]["output_tokens"].as_u64() > Some(1));
        }
    }

    #[test]
    fn anthropics_events_pass_and_an_error_is_told_as_one_of_them() {
        let verdict = |text: &str| {
            let mut events = crate::sse::Events::default();
            events.push(text.as_bytes());
            Messages::new(stamp()).judge(&events.next().unwrap())
        };
        for same in ["event: ping\ndata: {\"type\":\"ping\"}\n\n", ": comment\n\n"] {
            assert_eq!(verdict(same), Verdict::Same);
        }
        for left in ["data: {\"response\":\"\",\"usage\":{}}\n\n", "data: [DONE]\n\n"] {
            assert_eq!(verdict(left), Verdict::Left);
        }
        let Verdict::Bytes(told) = verdict("data: {\"errors\":[{\"code\":3040,\"message\":\"full\"}]}\n\n") else {
            panic!("the error is not told");
        };
        let told = std::str::from_utf8(&told).unwrap();
        let data = told.strip_prefix("event: error\ndata: ").and_then(|data| data.strip_suffix("\n\n")).unwrap();
        let wanted = json!({"type": "error", "error": {"type": "overloaded_error", "message": "full", "code": "3040"}});
        assert_eq!(serde_json::from_str::<Value>(data).unwrap(), wanted);
    }
}
