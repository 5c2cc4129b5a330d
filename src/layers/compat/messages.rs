//! The stream of Anthropic's form: its own events alone.

use bytes::BytesMut;

use super::errors;
use super::events::{DONE, Verdict};
use crate::endpoint::ErrorForm;
use crate::openai::object::Object;
use crate::sse::Event;

/// What becomes of an event. The vendor's own, which have no `type`, are left out; an error is told in Anthropic's form.
pub(super) fn judge(event: &Event) -> Verdict {
    let Some(data) = event.data() else { return Verdict::Same };
    if *data == *DONE {
        return Verdict::Left;
    }
    let Some(told) = Object::read(&data) else { return Verdict::Same };
    if told.get("type").is_some() {
        return Verdict::Same;
    }
    match errors::in_event(&data, ErrorForm::Anthropic) {
        Some(error) => {
            let mut named = BytesMut::from(&b"event: error\ndata: "[..]);
            named.extend_from_slice(error.as_bytes());
            named.extend_from_slice(b"\n\n");
            Verdict::Bytes(named)
        }
        None => Verdict::Left,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn anthropics_events_pass_and_an_error_is_told_as_one_of_them() {
        let verdict = |text: &str| {
            let mut events = crate::sse::Events::default();
            events.push(text.as_bytes());
            judge(&events.next().unwrap())
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
