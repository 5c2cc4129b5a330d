//! The vendor's streams and replies, each kind of them, as OpenAI promises them.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::body::Judge;
use super::chunks::{Chunks, Stamp};
use super::events::Events;
use super::{chat, embeddings};
use crate::catalogue::{Catalogue, Text};
use crate::openai::Reasoning;

const GEMMA: &str = "@cf/google/gemma-4-26b-a4b-it";

pub(super) fn stamp() -> Stamp {
    let model = Catalogue::default().get(GEMMA).unwrap();
    Stamp { id: "chatcmpl-7".into(), created: 7, model, read: Text::of("Why is the sky blue?") }
}

fn mend_in(pieces: &[&[u8]], usage_asked: bool) -> String {
    let mut judge = Judge::Chat(Box::new(Chunks::new(stamp(), usage_asked, Reasoning::Both)));
    let (mut events, mut out) = (Events::default(), Vec::new());
    for piece in pieces {
        out.extend_from_slice(&events.push(Bytes::copy_from_slice(piece), |event| judge.judge(event)));
    }
    out.extend_from_slice(&events.finish(|event| judge.judge(event)));
    String::from_utf8(out).unwrap()
}

fn mend(stream: &str, usage_asked: bool) -> Vec<Value> {
    let out = mend_in(&[stream.as_bytes()], usage_asked);
    let events: Vec<_> = out.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    holds(&chunks, usage_asked);
    chunks
}

/// What OpenAI's documentation promises of every stream that ends well.
fn holds(chunks: &[Value], usage_asked: bool) {
    let mut roles = 0;
    for (place, chunk) in chunks.iter().enumerate() {
        let told = chunk.to_string();
        assert!(chunk["id"].is_string() && chunk["id"] == chunks[0]["id"], "{told}");
        assert_eq!(chunk["object"], "chat.completion.chunk", "{told}");
        assert!(chunk["created"].is_u64() && chunk["model"].is_string(), "{told}");
        assert!(chunk.get("p").is_none() && chunk.get("response").is_none(), "{told}");
        let is_usage = usage_asked && place == chunks.len() - 1;
        assert_eq!(chunk.get("usage").is_some(), usage_asked, "{told}");
        assert_eq!(chunk["usage"].is_object(), is_usage, "{told}");
        let choices = chunk["choices"].as_array().unwrap();
        assert_eq!(choices.is_empty(), is_usage, "{told}");
        for choice in choices {
            assert!(choice["index"].is_u64() && choice.get("finish_reason").is_some(), "{told}");
            let delta = choice["delta"].as_object().unwrap();
            assert!(delta.get("content").is_none_or(Value::is_string), "{told}");
            roles += usize::from(delta.contains_key("role"));
        }
    }
    assert_eq!(roles, 1, "one role, in the first delta");
    assert!(chunks[0]["choices"][0]["delta"]["role"] == "assistant", "{}", chunks[0]);
    let ends: Vec<_> = chunks.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

fn text(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

fn chunk(delta: &str, more: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"delta\":{delta},\"finish_reason\":null,\"index\":0,\"logprobs\":null}}],\"created\":1791402526,\
         \"id\":\"c1\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"{more}}}\n\n"
    )
}

const MORE: &str = r#"{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}"#;

/// gemma-4's and glm-5.3-flash's: increments, and a native chunk that closes.
fn increments() -> String {
    let first = r#"{"content":"","reasoning_content":null,"role":"assistant"}"#;
    let usage = r#","p":"abc","usage":{"prompt_tokens":147,"completion_tokens":0,"total_tokens":147}"#;
    let more = format!(r#","p":"abcd","usage":{MORE}"#);
    let mut stream = chunk(first, usage);
    for word in ["a", " b", " \\\"c\\\""] {
        stream += &chunk(&format!(r#"{{"content":"{word}","reasoning_content":null}}"#), &more);
    }
    stream += &format!("data: {{\"choices\":[],\"id\":\"c1\",\"model\":\"m\",\"usage\":{MORE}}}\n\n");
    stream +=
        "data: {\"response\":\"\",\"usage\":{\"prompt_tokens\":147,\"completion_tokens\":4,\"total_tokens\":151}}\n\n";
    stream + "data: [DONE]\n\n"
}

fn plain() -> String {
    let words = ["a", " b", " \\\"c\\\"", " é"].map(|word| chunk(&format!(r#"{{"content":"{word}"}}"#), ""));
    let end = chunk("{}", "").replace("\"finish_reason\":null", "\"finish_reason\":\"stop\"");
    let usage = r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    chunk(r#"{"role":"assistant","content":""}"#, "") + &words.concat() + &end + usage + "\n\ndata: [DONE]\n\n"
}

fn native() -> String {
    let words = ["a", " b", " \\\"c\\\""].map(|word| format!("data: {{\"response\":\"{word}\",\"p\":\"xyz\"}}\n\n"));
    words.concat()
        + "data: {\"response\":\"\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n"
}

#[test]
fn increments_become_one_usage_where_it_is_asked_for_and_none_elsewhere() {
    let chunks = mend(&increments(), true);
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 4);
    assert_eq!(text(&chunks), "a b \"c\"");
    assert_eq!(text(&mend(&increments(), false)), "a b \"c\"");
}

#[test]
fn running_usage_is_told_once_as_it_ended() {
    let usage = |n: u64| format!(r#","usage":{{"prompt_tokens":9,"completion_tokens":{n},"total_tokens":{}}}"#, 9 + n);
    let stream: String = (1..5).map(|n| chunk(r#"{"role":"assistant","content":"x"}"#, &usage(n))).collect();
    let chunks = mend(&(stream + "data: [DONE]\n\n"), true);
    assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 13);
    assert_eq!(text(&chunks), "xxxx");
}

#[test]
fn increments_within_a_choice_are_each_counted() {
    let with = |usage: &str| {
        chunk(r#"{"content":"x"}"#, "").replace("\"finish_reason\"", &format!("\"usage\":{usage},\"finish_reason\""))
    };
    let stream = with(r#"{"prompt_tokens":9,"completion_tokens":0}"#) + &with(MORE).repeat(5) + "data: [DONE]\n\n";
    let chunks = mend(&stream, true);
    assert_eq!(
        chunks.last().unwrap()["usage"],
        json!({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14})
    );
}

/// Chunks with padding and usage in any order, which the short way may know and the long way always reads.
fn padded() -> impl Strategy<Value = Vec<String>> {
    let value = prop_oneof![
        (0u64..3, 0u64..9).prop_map(|(prompt, n)| format!(
            r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{n},"prompt_tokens_details":{{"cached_tokens":0}}}}"#
        )),
        Just(r#""usage":null"#.to_owned()),
        Just(r#""usage":{"prompt_tokens":}"#.to_owned()),
        "[a-z\"]{0,3}".prop_map(|padding| format!(r#""p":{}"#, json!(padding))),
    ];
    let chunk =
        (prop::collection::vec(value, 0..3), "[a-z\"é]{0,3}", any::<bool>()).prop_map(|(mut values, text, first)| {
            let choices =
                format!(r#""choices":[{{"index":0,"delta":{{"content":{}}},"finish_reason":null}}]"#, json!(text));
            values.insert(if first { 0 } else { values.len() }, choices);
            format!(
                "data: {{\"id\":\"c\",\"created\":1,\"model\":\"m\",\"object\":\"chat.completion.chunk\",{}}}\n\n",
                values.join(",")
            )
        });
    prop::collection::vec(chunk, 1..12)
}

#[test]
fn a_native_stream_becomes_openais() {
    let chunks = mend(&native(), true);
    assert_eq!((text(&chunks).as_str(), &chunks[0]["model"]), ("a b \"c\"", &json!(GEMMA)));
    assert_eq!(
        chunks.last().unwrap()["usage"],
        json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
    );
}

#[test]
fn usage_that_nobody_tells_is_reckoned_and_marked() {
    let stream = chunk(r#"{"content":"four words are said"}"#, "") + "data: [DONE]\n\n";
    let last = mend(&stream, true).pop().unwrap();
    assert!(
        last["usage"]["prompt_tokens"].as_u64() > Some(0) && last["usage"]["completion_tokens"].as_u64() > Some(0),
        "{last}"
    );
    assert_eq!(last["x_tollgate"]["usage"], "estimated");
}

#[test]
fn a_clean_stream_passes_as_it_came() {
    let stream = plain();
    let without_usage = stream.replace(&stream[stream.find("data: {\"id\"").unwrap()..], "data: [DONE]\n\n");
    assert_eq!(mend_in(&[stream.as_bytes()], false), without_usage);
}

#[test]
fn tool_calls_in_a_stream_end_as_tool_calls() {
    let first = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"t","type":"function","index":0,"function":{"name":"f","arguments":""}}]}"#;
    let more = r#"{"tool_calls":[{"id":"t","index":0,"function":{"name":"f","arguments":"{}"}}]}"#;
    let chunks = mend(&(chunk(first, "") + &chunk(more, "") + "data: [DONE]\n\n"), false);
    assert_eq!(chunks[1]["choices"][0]["delta"]["tool_calls"], json!([{"index": 0, "function": {"arguments": "{}"}}]));
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn an_error_in_a_stream_has_openais_form_and_no_end_is_made_up() {
    let stream = chunk(r#"{"content":"a"}"#, "")
        + "data: {\"errors\":[{\"message\":\"full\",\"code\":3040}]}\n\ndata: [DONE]\n\n";
    let out = mend_in(&[stream.as_bytes()], true);
    let error = r#"data: {"error":{"code":"3040","message":"full","param":null,"type":"rate_limit_exceeded"}}"#;
    assert!(out.ends_with(&format!("{error}\n\ndata: [DONE]\n\n")), "{out}");
    assert!(!out.contains("\"stop\""), "{out}");
}

#[test]
fn a_stream_that_is_cut_off_gets_no_end() {
    let stream = chunk(r#"{"role":"assistant","content":"a"}"#, "");
    let out = mend_in(&[stream.as_bytes()], false);
    assert_eq!(out, stream);
}

#[test]
fn every_cut_of_every_stream_gives_the_same() {
    for stream in [increments(), plain(), native()] {
        let whole = mend_in(&[stream.as_bytes()], true);
        for at in 0..stream.len() {
            assert_eq!(mend_in(&[&stream.as_bytes()[..at], &stream.as_bytes()[at..]], true), whole, "cut at {at}");
        }
        let letters: Vec<_> = stream.as_bytes().chunks(1).collect();
        assert_eq!(mend_in(&letters, true), whole);
    }
}

/// An event of some kind that the vendor sends; its content is told apart from all others.
fn event() -> impl Strategy<Value = String> {
    let usage = prop_oneof![Just(String::new()), Just(format!(r#","usage":{MORE}"#)), Just(r#","usage":null"#.into())];
    let delta = prop_oneof![
        "[a-z \"\\\\é]{0,6}".prop_map(|text| json!({ "content": text }).to_string()),
        Just(r#"{"role":"assistant","content":"x"}"#.to_owned()),
        Just(r#"{"content":null,"reasoning_content":"so"}"#.to_owned()),
        Just(r#"{"content":{"a":1}}"#.to_owned()),
        Just(r#"{"tool_calls":[{"name":"f","arguments":{}}]}"#.to_owned()),
    ];
    prop_oneof![
        4 => (delta, usage).prop_map(|(delta, usage)| chunk(&delta, &usage)),
        1 => "[a-z]{0,4}".prop_map(|text| format!("data: {{\"response\":\"{text}\",\"p\":\"abc\"}}\n\n")),
        1 => Just(": comment\n\n".to_owned()),
        1 => Just("event: ping\n\n".to_owned()),
    ]
}

proptest! {
    #[test]
    fn the_short_way_leads_where_the_long_way_does(chunks in padded(), usage_asked: bool) {
        let mut judge = Chunks::new(stamp(), usage_asked, Reasoning::Both);
        let mut plain = Chunks::new(stamp(), usage_asked, Reasoning::Both);
        let mut events = Events::default();
        for chunk in chunks.iter().chain([&"data: [DONE]\n\n".to_owned()]) {
            events.push(Bytes::copy_from_slice(chunk.as_bytes()), |event| {
                plain.forget_frame();
                let (short, long) = (judge.judge(event), plain.judge(event));
                assert_eq!(short, long, "{chunk}");
                short
            });
        }
    }

    #[test]
    fn any_stream_is_openais_and_every_cut_of_it_the_same(
        events in prop::collection::vec(event(), 0..12), size in 1usize..40, usage_asked: bool
    ) {
        let stream = events.concat() + "data: [DONE]\n\n";
        let whole = mend_in(&[stream.as_bytes()], usage_asked);
        let pieces: Vec<_> = stream.as_bytes().chunks(size).collect();
        prop_assert_eq!(&mend_in(&pieces, usage_asked), &whole);
        let data = whole.split("\n\n").filter_map(|event| event.strip_prefix("data: {"));
        let chunks: Vec<Value> = data.map(|data| serde_json::from_str(&format!("{{{data}")).unwrap()).collect();
        holds(&chunks, usage_asked);
    }
}

fn whole(body: &str) -> Value {
    serde_json::from_str(&chat::mend(body.as_bytes(), &stamp(), Reasoning::Both).unwrap()).unwrap()
}

#[test]
fn a_whole_reply_has_every_field_that_openai_promises() {
    for (body, content, estimated) in [
        (
            r#"{"choices":[{"message":{"content":{"a":1.50}}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            json!("{\"a\":1.50}"),
            false,
        ),
        (
            r#"{"result":{"response":"hi","usage":{"prompt_tokens":3,"completion_tokens":4}},"success":true}"#,
            json!("hi"),
            false,
        ),
        (r#"{"result":{"response":{"b":2,"a":1}},"success":true}"#, json!("{\"b\":2,\"a\":1}"), true),
        (r#"{"response":null,"tool_calls":[{"name":"f","arguments":{"x":1}}]}"#, Value::Null, true),
        (
            r#"{"id":"i","choices":[{"index":0,"message":{"role":"assistant","content":null,"reasoning":"so"},"finish_reason":"length"}]}"#,
            json!(""),
            true,
        ),
    ] {
        let reply = whole(body);
        let choice = &reply["choices"][0];
        assert_eq!((&reply["object"], &choice["message"]["content"]), (&json!("chat.completion"), &content), "{reply}");
        assert!(reply["id"].is_string() && reply["created"].is_u64() && reply["model"].is_string(), "{reply}");
        assert!(
            choice["index"].is_u64() && choice["finish_reason"].is_string() && choice.get("logprobs").is_some(),
            "{reply}"
        );
        assert!(choice["message"].get("refusal").is_some() && choice["message"]["role"] == "assistant", "{reply}");
        let usage = &reply["usage"];
        let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"], sum, "{reply}");
        assert_eq!(reply["x_tollgate"]["usage"] == "estimated", estimated, "{reply}");
    }
    assert_eq!(
        whole(r#"{"tool_calls":[{"name":"f","arguments":{"x":1}}]}"#)["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert_eq!(chat::mend(b"{\"result\":{\"image\":\"x\"}}", &stamp(), Reasoning::Both), None);
}

#[test]
fn a_whole_reply_to_who_asked_for_a_stream_is_one() {
    let reply = r#"{"choices":[{"message":{"content":"hi","reasoning":"so"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let mended = chat::mend(reply.as_bytes(), &stamp(), Reasoning::Both).unwrap();
    for usage_asked in [false, true] {
        let stream = chat::as_stream(&mended, usage_asked).unwrap();
        let chunks = mend(&stream, usage_asked);
        assert_eq!(text(&chunks), "hi");
    }
}

#[test]
fn embeddings_come_in_base64_where_that_is_asked_for_and_always_with_usage() {
    let body = br#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-3,1]}],"model":"m"}"#;
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap();
    let floats = read(&embeddings::mend(body, &stamp(), false).unwrap());
    assert_eq!(floats["data"][0]["embedding"], json!([0.1, -2e-3, 1]));
    assert!(
        floats["usage"]["prompt_tokens"].as_u64() > Some(0) && floats["x_tollgate"]["usage"] == "estimated",
        "{floats}"
    );
    let encoded = read(&embeddings::mend(body, &stamp(), true).unwrap());
    // The bytes of 0.1, -0.002 and 1 as `<f4`.
    assert_eq!(encoded["data"][0]["embedding"], "zczMPW8SA7sAAIA/");
    let native =
        br#"{"result":{"shape":[1,2],"data":[[0.5,1.0]],"pooling":"cls","usage":{"prompt_tokens":3}},"success":true}"#;
    let native = read(&embeddings::mend(native, &stamp(), false).unwrap());
    let wanted = json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}], "model": GEMMA, "usage": {"prompt_tokens": 3, "total_tokens": 3}});
    assert_eq!(native, wanted);
}
