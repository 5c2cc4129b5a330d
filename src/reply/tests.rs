use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::*;
use crate::call::{Call, Endpoint};
use crate::layers::testing::{LLAMA, call};

fn form(call: &Call, content_type: &'static str) -> Form {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    Asked::by(call).form(&headers)
}

fn native() -> Form {
    form(&call(LLAMA, "{}"), "application/json")
}

pub(super) fn stream(endpoint: Endpoint) -> Form {
    form(&Call { endpoint, stream: true, ..call(LLAMA, "{}") }, "text/event-stream")
}

pub(super) fn read<'a>(form: Form, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Tally, Ending) {
    let mut reader = Reader::new(form);
    pieces.into_iter().for_each(|piece| reader.push(piece));
    reader.finish();
    (reader.tally().clone(), reader.ending())
}

const DOCUMENT: &str = r#"{"result":{"shape":[2,2],"data":[[0.1,-2e5],[true,null]],"response":"a\"b\\","metrics":{"input_tokens":5},
    "usage":{"prompt_tokens":3,"neurons":0.5,"x":"}\"{"},"description":"née"},"success":true,"errors":[]}"#;

#[test]
fn generated_text_is_counted_as_it_is_written() {
    assert_eq!(read(native(), [DOCUMENT.as_bytes()]).0.text_bytes, 6 + 4);
    let chunk =
        br#"data: {"choices":[{"delta":{"role":"assistant","content":"four","reasoning_content":"ten \"bytes"}}]}"#;
    assert_eq!(read(stream(Endpoint::ChatCompletions), [&chunk[..]]).0.text_bytes, 4 + 11);
    let told_again = b"event: response.output_text.delta\ndata: {\"delta\":\"four\"}\n\nevent: response.output_text.done\ndata: {\"text\":\"four\"}\n\n";
    assert_eq!(read(stream(Endpoint::Responses), [&told_again[..]]).0.text_bytes, 4);
}

#[test]
fn a_long_speech_is_as_long_as_its_bytes() {
    let mut wav =
        b"RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\xff\xff\xff\xff".to_vec();
    wav.resize(44 + 80_000, 128);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &wav);
    let json = format!(r#"{{"result":{{"audio":"{base64}"}}}}"#);
    let seconds = read(native(), json.as_bytes().chunks(1000)).0.audio_ms.unwrap() / 1000;
    assert!((9..=10).contains(&seconds), "{seconds}");
}

#[test]
fn a_batch_tells_its_usage_once() {
    let batch =
        Call { ask: std::sync::Arc::new(crate::call::Ask { batch: true, ..Default::default() }), ..call(LLAMA, "{}") };
    let item = |usage: &str| {
        format!(r#"{{"id":0,"result":{{"response":"x","usage":{usage}}},"usage":{usage},"success":true}}"#)
    };
    let one = item(r#"{"prompt_tokens":5,"input_tokens":5,"completion_tokens":2}"#);
    let other = item(r#"{"input_tokens":7,"output_tokens":1}"#);
    for (name, total, wanted) in [
        ("responses", "", (12, 3)),
        ("results", "", (12, 3)),
        ("responses", r#","usage":{"prompt_tokens":12,"completion_tokens":3}"#, (12, 3)),
        ("responses", r#","usage":{"prompt_tokens":1,"completion_tokens":1}"#, (12, 3)),
        ("responses", r#","usage":{"prompt_tokens":20,"completion_tokens":3}"#, (20, 3)),
    ] {
        let json = format!(r#"{{"result":{{"{name}":[{one},{other}]{total}}},"success":true}}"#);
        let (tally, ending) = read(form(&batch, "application/json"), [json.as_bytes()]);
        assert_eq!(((tally.input_tokens, tally.output_tokens), ending), (wanted, Ending::Answer), "{json}");
    }
    let (tally, _) = read(native(), [format!(r#"{{"result":{{"responses":[{one}]}}}}"#).as_bytes()]);
    assert!(!tally.has_tokens, "no batch was asked for: it is what a model wrote");
}

#[test]
fn an_anthropic_stream_has_its_own_end() {
    let piece = b"event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: content_block_delta\ndata: {\"delta\":{\"text\":\"Hi\"}}\n\n";
    let end = b"event: message_delta\ndata: {\"usage\":{\"output_tokens\":3}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let form = stream(Endpoint::ChatCompletions);
    assert_eq!(read(form, [&piece[..]]).1, Ending::CUT_OFF);
    assert_eq!(read(form, [&piece[..], b"data: [DONE]\n\n"]).1, Ending::CUT_OFF);
    assert_eq!(read(form, [&piece[..], end]).1, Ending::Answer);
}

#[test]
fn a_message_tells_what_it_read_when_it_opens_and_what_it_wrote_when_it_ends() {
    let start = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","content":[],"usage":{"input_tokens":20,"cache_read_input_tokens":5,"cache_creation_input_tokens":2,"output_tokens":1}}}

"#;
    let delta = |text: &str| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    };
    let end = |usage: &str| {
        format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{usage}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        )
    };
    let form = || stream(Endpoint::Messages);
    let begun = format!("{start}{}{}", delta("four"), delta("five5"));
    let (cut, ending) = read(form(), [begun.as_bytes()]);
    assert_eq!((cut.input_tokens, cut.cached_tokens, cut.output_tokens, cut.text_bytes), (27, 5, 1, 9));
    assert!(cut.is_opening && ending == Ending::CUT_OFF);
    for usage in [
        r#"{"output_tokens":9}"#,
        r#"{"input_tokens":20,"cache_read_input_tokens":5,"cache_creation_input_tokens":2,"output_tokens":9}"#,
    ] {
        let whole = format!("{begun}{}", end(usage));
        for size in 1..whole.len() {
            let (tally, ending) = read(form(), whole.as_bytes().chunks(size));
            assert_eq!((tally.input_tokens, tally.cached_tokens, tally.output_tokens), (27, 5, 9), "{usage} by {size}");
            assert!(!tally.is_opening && ending == Ending::Answer);
        }
    }
}

#[test]
fn what_has_told_nothing_is_known_and_what_has_is_too() {
    let told = |endpoint, text: &str| {
        let mut reader = Reader::new(stream(endpoint));
        reader.push(text.as_bytes());
        reader.has_told()
    };
    for (text, has_told) in [
        (": comment\n\n", false),
        ("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", false),
        ("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\n", false),
        ("data: {\"response\":\"\",\"p\":\"x\"}\n\n", false),
        ("data: {\"id\":\"x\",\"status\":\"processing\"}\n\n", false),
        ("data: {\"type\":\"response.created\",\"response\":{\"instructions\":\"be kind\"}}\n\n", false),
        ("event: response.output_item.added\ndata: {\"item\":{\"type\":\"message\"}}\n\n", false),
        ("data: {\"response\":\"Hi\"}\n\n", true),
        ("data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n", true),
        ("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"t\"}]}}]}\n\n", true),
        ("data: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n", true),
        ("data: anything else\n\n", true),
        ("data: {\"partial_image\":\"aGk=\"}\n\n", true),
    ] {
        assert_eq!(
            told(if text.contains("response.") { Endpoint::Responses } else { Endpoint::Run }, text),
            has_told,
            "{text}"
        );
    }
}

const PARTS: [&str; 24] = [
    "data:",
    "event: response.completed",
    "event: error",
    " ",
    "\n",
    "\r\n",
    "\r",
    "[DONE]",
    "{",
    "}",
    "[",
    "]",
    "\"usage\":",
    "{\"prompt_tokens\":1e30,\"input_tokens\":1e30}",
    "{\"prompt_tokens\":0,\"completion_tokens\":1,\"neurons\":-1e300}",
    "\"response\":\"é\"",
    "\"error\":",
    "\"choices\":",
    "\"a\\\"b\"",
    ": x",
    ",",
    ":",
    "null",
    "-1.5",
];

proptest::proptest! {
    #[test]
    fn no_reply_breaks_it_and_every_cut_of_it_reads_the_same(
        parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..40),
        size in 1usize..9, is_stream in proptest::bool::ANY, is_response in proptest::bool::ANY,
    ) {
        let endpoint = if is_response { Endpoint::Responses } else { Endpoint::Run };
        let form = if is_stream { stream(endpoint) } else { native() };
        let text = parts.concat();
        proptest::prop_assert_eq!(read(form, [text.as_bytes()]), read(form, text.as_bytes().chunks(size)));
    }

    #[test]
    fn every_split_finds_the_same(at in 0..DOCUMENT.len()) {
        let (begun, rest) = DOCUMENT.as_bytes().split_at(at);
        proptest::prop_assert_eq!(read(native(), [begun, rest]), read(native(), [DOCUMENT.as_bytes()]));
    }
}
