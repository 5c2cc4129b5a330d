//! The stream of a `response`: OpenAI's events alone.

use super::errors;
use super::events::{DONE, Verdict, event_of};
use crate::endpoint::ErrorForm;
use crate::openai::object::Object;
use crate::sse::Event;

/// What becomes of an event. The vendor's own, which have no `type`, are left out; an error is told in OpenAI's form.
pub(super) fn judge(event: &Event) -> Verdict {
    let Some(data) = event.data().filter(|data| **data != *DONE) else { return Verdict::Same };
    let Some(told) = Object::read(&data) else { return Verdict::Same };
    if told.get("type").is_some() {
        return Verdict::Same;
    }
    match errors::in_event(&data, ErrorForm::OpenAi) {
        Some(error) => Verdict::Bytes(event_of(&error)),
        None => Verdict::Left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openais_events_pass_and_the_vendors_own_do_not() {
        let verdict = |text: &str| {
            let mut events = crate::sse::Events::default();
            events.push(text.as_bytes());
            judge(&events.next().unwrap())
        };
        assert_eq!(verdict("event: e\ndata: {\"type\":\"response.created\"}\n\n"), Verdict::Same);
        assert_eq!(verdict("data: {\"response\":\"\",\"usage\":{}}\n\n"), Verdict::Left);
        assert_eq!(verdict("data: [DONE]\n\n"), Verdict::Same);
        assert!(matches!(verdict("data: {\"error\":\"3040: full\"}\n\n"), Verdict::Bytes(_)));
    }
}
