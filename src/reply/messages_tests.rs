//! Anthropic's streams, written in every way, cut anywhere: what the reader makes of them beside what was written.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{read, stream};
use super::*;
use crate::call::Endpoint;

/// What a model may write: plain, and what looks like something of the stream's.
const TEXTS: [&str; 9] = [
    "four",
    "",
    "née \"quoted\" \\ 🙂",
    "message_stop",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    "\",\"usage\":{\"input_tokens\":999999,\"output_tokens\":999999}",
    "{\"error\":{\"type\":\"overloaded_error\"}}",
    "data: [DONE]",
    "}]}",
];
const DELTAS: [(&str, &str); 3] =
    [("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json")];

/// Tokens read, written to the cache of the vendor, read from it, and written.
#[derive(Clone, Copy, Debug)]
struct Counts {
    input: u64,
    created: u64,
    cached: u64,
    output: u64,
}

impl Counts {
    fn usage(self, output: u64, as_text: bool) -> Value {
        let count = |count: u64| if as_text { json!(count.to_string()) } else { json!(count) };
        json!({"input_tokens": count(self.input), "cache_creation_input_tokens": count(self.created),
            "cache_read_input_tokens": count(self.cached), "output_tokens": count(output)})
    }
}

/// How its events stand on the wire.
#[derive(Clone, Copy, Debug)]
struct Writing {
    line_end: &'static str,
    has_names: bool,
    has_comments: bool,
    is_spread: bool,
}

impl Writing {
    fn event(self, mut data: Value, name: &str) -> String {
        data["type"] = json!(name);
        let end = self.line_end;
        let comment = if self.has_comments { format!(": \"usage\"{end}") } else { String::new() };
        let named = if self.has_names { format!("event: {name}{end}") } else { String::new() };
        let text = if self.is_spread { serde_json::to_string_pretty(&data) } else { serde_json::to_string(&data) };
        let lines: String = text.unwrap().split('\n').map(|line| format!("data: {line}{end}")).collect();
        format!("{comment}{named}{lines}{end}")
    }
}

prop_compose! {
    fn counts()(input in 1u64..100_000, created in 0u64..500, cached in 0u64..5_000, output in 2u64..9_000) -> Counts {
        Counts { input, created, cached, output }
    }
}

prop_compose! {
    fn writing()(
        line_end in prop::sample::select(&["\n", "\r\n", "\r"][..]), has_names in any::<bool>(),
        has_comments in any::<bool>(), is_spread in any::<bool>(),
    ) -> Writing {
        Writing { line_end, has_names, has_comments, is_spread }
    }
}

proptest! {
    #[test]
    fn a_messages_stream_is_counted_as_it_was_written_wherever_it_is_cut(
        counts in counts(), writing in writing(), as_text in any::<bool>(), tells_again in any::<bool>(),
        blocks in prop::collection::vec((0usize..3, prop::collection::vec(prop::sample::select(&TEXTS[..]), 0..4)), 0..4),
        end in 0usize..4, size in 1usize..60,
    ) {
        let begun = json!({"message": {"id": "m", "role": "assistant", "content": [], "usage": counts.usage(1, as_text)}});
        let mut text = writing.event(begun, "message_start") + &writing.event(json!({}), "ping");
        for (index, (kind, pieces)) in blocks.iter().enumerate() {
            let (delta, field) = DELTAS[*kind];
            text += &writing.event(json!({"index": index, "content_block": {"type": "text", "text": ""}}), "content_block_start");
            for piece in pieces {
                let delta = json!({"index": index, "delta": {"type": delta, field: piece}});
                text += &writing.event(delta, "content_block_delta");
            }
            text += &writing.event(json!({ "index": index }), "content_block_stop");
        }
        // It breaks off, tells its usage and breaks off, fails, or ends.
        let usage = if tells_again { counts.usage(counts.output, as_text) } else { json!({"output_tokens": counts.output}) };
        if end != 0 {
            text += &writing.event(json!({"delta": {"stop_reason": "end_turn"}, "usage": usage}), "message_delta");
        }
        match end {
            2 => text += &writing.event(json!({"error": {"type": "overloaded_error", "message": "Overloaded"}}), "error"),
            3 => text += &writing.event(json!({}), "message_stop"),
            _ => {}
        }
        let (tally, ending) = read(stream(Endpoint::Messages), text.as_bytes().chunks(size));
        let read_tokens = counts.input + counts.created + counts.cached;
        let written = if end == 0 { 1 } else { counts.output };
        prop_assert_eq!(
            (tally.input_tokens, tally.cached_tokens, tally.output_tokens, tally.is_opening),
            (read_tokens, counts.cached, written, end == 0),
            "{}", text
        );
        let said = blocks.iter().any(|(kind, pieces)| *kind != 1 && pieces.iter().any(|piece| !piece.is_empty()));
        match end {
            3 if said => prop_assert_eq!(ending, Ending::Answer, "{}", text),
            // Thoughts alone may be an answer, or none.
            3 => prop_assert!(matches!(ending, Ending::Answer | Ending::Empty), "{:?} {}", ending, text),
            2 => prop_assert!(matches!(ending, Ending::Failed(meaning) if Ending::Failed(meaning) != Ending::CUT_OFF), "{:?} {}", ending, text),
            _ => prop_assert_eq!(ending, Ending::CUT_OFF, "{}", text),
        }
    }
}
