//! Texts, as they stand in JSON: escapes, halves of pairs, bytes that are no UTF-8, and words that look like something else.

use proptest::prelude::*;

use crate::figures::figure;
use crate::json::{Json, anything, object};

/// A text in quotes.
pub fn text() -> BoxedStrategy<Json> {
    let piece = prop_oneof![
        8 => "[a-zA-Z ,.]{0,40}".prop_map(String::into_bytes),
        2 => "[0-9\\-+*/]{0,20}".prop_map(String::into_bytes),
        2 => prop::sample::select(&SPELLINGS[..]).prop_map(|text| text.as_bytes().to_vec()),
        1 => "[äöü日本語🌉́]{0,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(128u8.., 0..8),
        1 => (1usize..2_000).prop_map(|length| b"z ".repeat(length)),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| Json::Raw([b"\"", &*pieces.concat(), b"\""].concat())).boxed()
}

const SPELLINGS: [&str; 16] = [
    "\\n\\t\\\"",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\ude00\\ud83d",
    "\\u0000",
    "data:",
    "data:image/png;base64,aGVsbG8=",
    "DATA:text/plain,hello",
    "data: [DONE]",
    "http://example.com/a.png",
    "{\\\"usage\\\":{\\\"prompt_tokens\\\":1}}",
    "response.completed",
    "--b\\r\\n",
    "\u{7f}",
    "\u{2028}",
    "/\\/",
];

/// A message of a chat.
fn message() -> BoxedStrategy<Json> {
    let role = prop_oneof![
        8 => prop::sample::select(vec!["user", "system", "assistant", "tool"]).prop_map(Json::text),
        1 => text(),
    ];
    let content = prop_oneof![
        8 => text(),
        3 => prop::collection::vec(part(), 0..3).prop_map(Json::List),
        1 => Just(Json::raw("null")),
        1 => anything(),
    ];
    let tool_calls = object(vec![("id", text()), ("function", object(vec![("name", text()), ("arguments", text())]))]);
    prop_oneof![
        8 => object(vec![("role", role.boxed()), ("content", content.clone().boxed())]),
        1 => object(vec![("content", content.boxed()), ("name", text()), ("role", text())]),
        1 => object(vec![("role", Just(Json::text("assistant")).boxed()), ("tool_calls", list(tool_calls, 2))]),
        1 => anything(),
    ]
    .boxed()
}

fn part() -> BoxedStrategy<Json> {
    let url = prop_oneof![
        Just(Json::text("https://example.com/a.png")),
        Just(Json::text(PIXEL)),
        Just(Json::text(&PIXEL.replace("data:", "DATA:"))),
    ];
    let image = url
        .clone()
        .prop_map(|url| Json::object([("type", Json::text("image_url")), ("image_url", Json::object([("url", url)]))]));
    let bare = url.prop_map(|url| Json::object([("type", Json::text("input_image")), ("image_url", url)]));
    let said = text().prop_map(|text| Json::object([("type", Json::text("text")), ("text", text)]));
    let others = prop::sample::select(vec!["input_audio", "file", "video_url"]).prop_map(|name| {
        Json::Object(vec![
            ("type".into(), Json::text(name)),
            (name.into(), Json::object([("data", Json::text("aGk="))])),
        ])
    });
    prop_oneof![6 => said, 2 => image, 1 => bare, 1 => others, 1 => anything()].boxed()
}

/// A picture of one pixel.
pub const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

pub fn list(item: BoxedStrategy<Json>, most: usize) -> BoxedStrategy<Json> {
    prop::collection::vec(item, 0..=most).prop_map(Json::List).boxed()
}

/// The fields of a text model's request, each of them now and then.
pub fn generation() -> BoxedStrategy<Json> {
    let asked = prop_oneof![
        5 => list(message(), 4).prop_map(|messages| vec![("messages", messages)]),
        4 => text().prop_map(|text| vec![("prompt", text)]),
        1 => (text(), text()).prop_map(|(input, instructions)| vec![("input", input), ("instructions", instructions)]),
        1 => list(message(), 2).prop_map(|messages| vec![("input", messages)]),
        1 => (list(message(), 2), text()).prop_map(|(messages, text)| vec![("messages", messages), ("prompt", text)]),
        1 => anything().prop_map(|value| vec![("prompt", value)]),
    ];
    with_fields(asked.boxed(), limits())
}

/// Anthropic's form: blocks, a system prompt of its own, tools, and a limit that has to be there.
pub fn messages() -> BoxedStrategy<Json> {
    let block = prop_oneof![
        6 => text().prop_map(|text| Json::object([("type", Json::text("text")), ("text", text)])),
        1 => (text(), prop::sample::select(vec!["image", "document"])).prop_map(|(text, kind)| {
            let source = Json::object([("type", Json::text("text")), ("media_type", Json::text("text/plain")), ("data", text)]);
            Json::object([("type", Json::text(kind)), ("source", source)])
        }),
        1 => prop::sample::select(vec!["image/png", "Image/PNG", "application/pdf", "audio/wav"]).prop_map(|kind| {
            let data = Json::text(PIXEL.split_once(',').unwrap().1);
            let source = Json::object([("type", Json::text("base64")), ("media_type", Json::text(kind)), ("data", data)]);
            Json::object([("type", Json::text("image")), ("source", source)])
        }),
        1 => Just(Json::object([("type", Json::text("image")), ("source", Json::object([
            ("type", Json::text("url")), ("url", Json::text("https://example.com/a.png")),
        ]))])),
        1 => (text(), anything()).prop_map(|(name, input)| {
            Json::object([("type", Json::text("tool_use")), ("id", Json::text("t")), ("name", name), ("input", input)])
        }),
        1 => prop_oneof![text(), anything()].prop_map(|content| {
            Json::object([("type", Json::text("tool_result")), ("tool_use_id", Json::text("t")), ("content", content)])
        }),
        1 => text().prop_map(|text| Json::object([("type", Json::text("thinking")), ("thinking", text)])),
        1 => anything(),
    ];
    let content = prop_oneof![4 => text(), 4 => list(block.boxed(), 4)];
    let role = prop::sample::select(vec!["user", "assistant"]).prop_map(Json::text);
    let turn = object(vec![("role", role.boxed()), ("content", content.clone().boxed())]);
    let tool = object(vec![("name", text()), ("description", text()), ("input_schema", anything())]);
    let asked = (list(turn, 4), figure(1..4_000))
        .prop_map(|(messages, limit)| vec![("messages", messages), ("max_tokens", limit)]);
    let mut others = limits();
    others.extend([
        ("system", content.boxed()),
        ("tools", list(tool, 3)),
        ("thinking", figure(1..9_000).prop_map(|budget| Json::object([("budget_tokens", budget)])).boxed()),
        ("metadata", anything()),
    ]);
    with_fields(asked.boxed(), others)
}

/// What steers the output, and other fields.
fn limits() -> Vec<(&'static str, BoxedStrategy<Json>)> {
    let tool = object(vec![
        ("type", Just(Json::text("function")).boxed()),
        ("function", object(vec![("name", Just(Json::text("f")).boxed()), ("parameters", anything())])),
    ]);
    vec![
        ("max_tokens", figure(1..4_000)),
        ("max_tokens", figure(1..100_000)),
        ("max_completion_tokens", figure(1..4_000)),
        ("max_output_tokens", figure(1..4_000)),
        ("n", figure(1..6)),
        ("stream", prop::sample::select(vec!["true", "false", "1", "\"false\"", "null"]).prop_map(Json::raw).boxed()),
        ("temperature", figure(0..2)),
        ("seed", figure(0..9)),
        ("tools", list(tool, 2)),
        ("tool_choice", Just(Json::text("none")).boxed()),
        ("response_format", Just(Json::object([("type", Json::text("json_object"))])).boxed()),
        (
            "prediction",
            text().prop_map(|text| Json::object([("type", Json::text("content")), ("content", text)])).boxed(),
        ),
        (
            "requests",
            prop_oneof![Just("[]"), Just("null"), Just("7"), Just("{}"), Just("\"x\"")].prop_map(Json::raw).boxed(),
        ),
        ("request_id", Just(Json::text("abc")).boxed()),
        ("image", Just(Json::text(PIXEL)).boxed()),
        ("unknown", anything()),
    ]
}

/// Some of the fields beside those that are asked for, in any order.
fn with_fields(
    asked: BoxedStrategy<Vec<(&'static str, Json)>>,
    others: Vec<(&'static str, BoxedStrategy<Json>)>,
) -> BoxedStrategy<Json> {
    let other = prop::sample::select(others).prop_flat_map(|(name, value)| value.prop_map(move |value| (name, value)));
    let names = prop::sample::select(vec![None, None, None, None, None, None, None, Some(4usize)]);
    (asked, prop::collection::vec(other, 0..4), names)
        .prop_flat_map(|(asked, others, escaped)| {
            (Just(asked.into_iter().chain(others).collect::<Vec<_>>()).prop_shuffle(), Just(escaped))
        })
        .prop_map(|(fields, escaped)| {
            let spell = |name: &str| match escaped.filter(|at| *at < name.len()) {
                Some(at) => format!("{}\\u{:04x}{}", &name[..at], name.as_bytes()[at], &name[at + 1..]),
                None => name.to_owned(),
            };
            Json::Object(fields.into_iter().map(|(name, value)| (spell(name), value)).collect())
        })
        .boxed()
}

/// Requests of the tasks that read text and write none, or another's.
pub fn reading() -> BoxedStrategy<Json> {
    let texts = || prop_oneof![text(), list(text(), 5), anything()].boxed();
    let contexts = list(object(vec![("text", text())]), 4);
    let asked = prop_oneof![
        3 => texts().prop_map(|text| vec![("text", text)]),
        1 => (texts(), texts()).prop_map(|(queries, documents)| vec![("queries", queries), ("documents", documents)]),
        1 => (text(), contexts).prop_map(|(query, contexts)| vec![("query", query), ("contexts", contexts)]),
        1 => texts().prop_map(|input| vec![("input", input)]),
        1 => text().prop_map(|text| vec![("input_text", text)]),
        1 => text().prop_map(|text| vec![("prompt", text)]),
    ];
    let others = vec![
        ("pooling", Just(Json::text("cls")).boxed()),
        ("target_lang", Just(Json::text("french")).boxed()),
        ("top_k", figure(1..3)),
        ("max_length", figure(1..3_000)),
        ("text", texts()),
        ("unknown", anything()),
    ];
    with_fields(asked.boxed(), others)
}

/// A batch, and what is none.
pub fn batch(item: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    let requests = prop_oneof![8 => list(item, 4), 1 => anything()];
    let others = vec![("max_tokens", figure(1..4_000)), ("prompt", text()), ("request_id", text())];
    with_fields(requests.prop_map(|requests| vec![("requests", requests)]).boxed(), others)
}

/// A picture's request: sizes and steps in every spelling, in the body and in `input` beside.
pub fn picture() -> BoxedStrategy<Json> {
    let inner = with_fields(text().prop_map(|text| vec![("prompt", text)]).boxed(), sizes());
    let mut others = sizes();
    others.push(("input", inner));
    with_fields(text().prop_map(|text| vec![("prompt", text)]).boxed(), others)
}

fn sizes() -> Vec<(&'static str, BoxedStrategy<Json>)> {
    vec![
        ("width", figure(1..3_000)),
        ("height", figure(1..3_000)),
        ("steps", figure(1..60)),
        ("num_steps", figure(1..60)),
        ("width", figure(256..1_200)),
        ("seed", figure(0..9)),
        ("image_b64", Just(Json::text("aGVsbG8=")).boxed()),
        ("unknown", anything()),
    ]
}
