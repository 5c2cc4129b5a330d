//! The stream of a `response`: OpenAI's events alone.

use super::errors;
use super::events::{DONE, Verdict, data, event_of};
use crate::openai::object::Object;

/// What becomes of an event. The vendor's own, which have no `type`, are left out; an error is told in OpenAI's form.
pub(super) fn judge(event: &[u8]) -> Verdict {
    let Some(data) = data(event).filter(|data| **data != *DONE) else { return Verdict::Same };
    let Some(told) = Object::read(&data) else { return Verdict::Same };
    if told.get("type").is_some() {
        return Verdict::Same;
    }
    match errors::in_event(&data) {
        Some(error) => Verdict::Bytes(event_of(&error)),
        None => Verdict::Left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openais_events_pass_and_the_vendors_own_do_not() {
        assert_eq!(judge(b"event: e\ndata: {\"type\":\"response.created\"}\n\n"), Verdict::Same);
        assert_eq!(judge(b"data: {\"response\":\"\",\"usage\":{}}\n\n"), Verdict::Left);
        assert_eq!(judge(b"data: [DONE]\n\n"), Verdict::Same);
        assert!(matches!(judge(b"data: {\"error\":\"3040: full\"}\n\n"), Verdict::Bytes(_)));
    }
}
