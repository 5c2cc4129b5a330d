//! Replies of all the forms that the vendor has, good and bad.

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::call::Endpoint;

/// A reply, and what was asked for.
#[derive(Clone, Debug)]
pub struct Reply {
    pub endpoint: Endpoint,
    pub is_stream: bool,
    pub content_type: &'static str,
    pub text: String,
}

/// What a model may write: plain, and what looks like something of the vendor's.
const TEXTS: [&str; 12] = [
    "",
    " ",
    "Hello",
    "née \"quoted\" \\ 🙂",
    "[DONE]",
    "data: [DONE]\n\n",
    "response.completed",
    r#""usage":{"prompt_tokens":999,"completion_tokens":999}"#,
    r#"{"error":{"code":3040}}"#,
    "}]}",
    "\",\"usage\":{\"prompt_tokens\":7}",
    "event: error\ndata: {}",
];

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(&TEXTS[..]).prop_map(str::to_owned)
}

/// An answer of a model that writes JSON, which may have any name in it.
fn written_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        Just(json!(7))
    ];
    let names = prop::sample::select(
        &["usage", "error", "errors", "result", "choices", "type", "a", "response", "prompt_tokens"][..],
    );
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..4).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    });
    (tree, 0usize..100).prop_map(|(tree, depth)| {
        let forged = json!({"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "error": "3040: x"});
        let inner = if depth > 50 { forged } else { tree };
        (0..depth).fold(inner, |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"usage": inner}) })
    })
}

fn usage() -> impl Strategy<Value = Value> {
    let count = prop_oneof![
        4 => (0u64..5000).prop_map(Value::from),
        1 => (0u64..5000).prop_map(|n| json!(n.to_string())),
        1 => (0u64..5000).prop_map(|n| json!(n as f64)),
        1 => prop::sample::select(vec![json!(null), json!("many"), json!(-3), json!([1]), json!(1e30)]),
    ];
    let names =
        prop::sample::subsequence(vec!["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"], 0..=4);
    (names, prop::collection::vec(count, 4), 0u64..100, any::<bool>()).prop_map(
        |(names, counts, cached, has_details)| {
            let mut usage: Value = names.iter().zip(counts).map(|(name, count)| ((*name).to_owned(), count)).collect();
            if has_details {
                usage["prompt_tokens_details"] = json!({"cached_tokens": cached});
            }
            // The vendor's figure is the table's, so that no other price is learned.
            if let (Some(read), Some(written)) = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64())
                && cached % 3 == 0
                && names.len() == 2
            {
                usage["neurons"] = json!((read * 2457 + written * 18252) as f64 / 1e6);
            }
            usage
        },
    )
}

fn error() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(""),
        json!({}),
        json!([]),
        json!([{}]),
        json!({"code": null, "message": ""}),
        json!({"code": 3040, "message": "AiError: out of capacity"}),
        json!({"code": "4006", "message": "used up"}),
        json!("3007: timed out"),
        json!([{"code": 5006, "message": "bad input"}]),
        json!({"code": "server_error", "message": "x"}),
        json!(true),
    ])
}

/// Mostly none.
fn maybe<T: Clone + std::fmt::Debug + 'static>(
    some: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![4 => Just(None), 1 => some.prop_map(Some)]
}

fn with(mut value: Value, field: &str, other: Option<Value>) -> Value {
    if let Some(other) = other {
        value[field] = other;
    }
    value
}

fn result() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => text().prop_map(|text| json!({"response": text})),
        2 => written_json().prop_map(|json| json!({"response": json})),
        1 => Just(json!({"data": [[0.5, -1e-3]], "shape": [1, 2], "pooling": "cls"})),
        1 => Just(json!({"data": [], "shape": [0, 2]})),
        1 => Just(json!({"image": "aGVsbG8="})),
        1 => Just(json!({"answer": "yes", "metrics": {"input_tokens": 12, "output_tokens": 3}})),
        1 => Just(json!([{"label": "POSITIVE", "score": 0.5}])),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => Just(Value::Null),
    ]
}

fn native() -> impl Strategy<Value = Value> {
    (result(), maybe(usage()), maybe(error()), maybe(error()), maybe(any::<bool>())).prop_map(|(result, usage, errors, error, success)| {
        let result = if result.is_object() { with(result, "usage", usage) } else { result };
        let document = json!({"result": result, "success": success.unwrap_or(true), "errors": errors.unwrap_or(json!([])), "messages": []});
        with(document, "error", error)
    })
}

fn choice(field: &'static str) -> impl Strategy<Value = Value> {
    (
        text(),
        maybe(text()),
        maybe(error()),
        maybe(usage()),
        prop::sample::select(&["stop", "length", "error"][..]),
        0u8..8,
    )
        .prop_map(move |(content, thought, error, usage, finish, kind)| {
            let mut message = json!({"role": "assistant", "content": content});
            match kind {
                0 => message["content"] = Value::Null,
                1 => message["tool_calls"] = json!([{"id": "t", "function": {"name": "f", "arguments": content}}]),
                _ => {}
            }
            message = with(message, "reasoning_content", thought.map(Value::from));
            let finish = if finish == "error" && kind > 3 { "stop" } else { finish };
            let choice = json!({"index": 0, "finish_reason": finish, field: message});
            with(with(choice, "error", error), "usage", usage)
        })
}

fn chat() -> impl Strategy<Value = Value> {
    (prop::collection::vec(choice("message"), 0..3), maybe(usage()), maybe(error())).prop_map(
        |(choices, usage, error)| {
            let document =
                json!({"id": "x", "object": "chat.completion", "created": 7, "model": "m", "choices": choices});
            with(with(document, "usage", usage), "error", error)
        },
    )
}

fn response() -> impl Strategy<Value = Value> {
    let item = (text(), 0u8..4).prop_map(|(text, kind)| match kind {
        0 => json!({"type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": text}]}),
        1 => json!({"type": "function_call", "id": "f", "name": "f", "arguments": text}),
        _ => json!({"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": text}]}),
    });
    let status = prop::sample::select(&["completed", "completed", "completed", "failed", "incomplete"][..]);
    (prop::collection::vec(item, 0..3), maybe(usage()), maybe(error()), status).prop_map(|(output, usage, error, status)| {
        let document = json!({
            "id": "resp", "object": "response", "status": status, "model": "m", "output": output, "temperature": 1.0,
            "instructions": "be kind", "metadata": {"duration": "5"}, "tools": [{"name": "usage"}], "error": error,
        });
        with(document, "usage", usage)
    })
}

/// The JSON of a document: its keys escaped here and there, or a count told twice.
fn spelled(document: &Value, spelling: u8) -> String {
    let text =
        if spelling.is_multiple_of(3) { serde_json::to_string_pretty(document).unwrap() } else { document.to_string() };
    match spelling {
        1 => text.replace("\"usage\":", "\"us\\u0061ge\":"),
        2 => text.replace("\"completion_tokens\":", "\"completion_tokens\":5,\"completion_tokens\":"),
        4 => text.replace("\"error\":", "\"error\":\"first\",\"error\":"),
        5 => format!("\u{feff} {text}\n"),
        _ => text,
    }
}

/// How an event is written down.
#[derive(Clone, Copy, Debug)]
struct Writing {
    line_end: &'static str,
    is_spread: bool,
    has_comments: bool,
}

fn writing() -> impl Strategy<Value = Writing> {
    (prop::sample::select(&["\n", "\r\n", "\r"][..]), any::<bool>(), any::<bool>())
        .prop_map(|(line_end, is_spread, has_comments)| Writing { line_end, is_spread, has_comments })
}

impl Writing {
    fn event(self, name: Option<&str>, data: &str) -> String {
        let end = self.line_end;
        let mut text = String::new();
        if self.has_comments {
            text.push_str(&format!(": a comment with \"error\"{end}"));
        }
        if let Some(name) = name {
            text.push_str(&format!("event: {name}{end}"));
        }
        for line in data.split('\n') {
            text.push_str(&format!("data: {line}{end}"));
        }
        text + end
    }

    fn json(self, name: Option<&str>, data: &Value) -> String {
        let text = if self.is_spread { serde_json::to_string_pretty(data).unwrap() } else { data.to_string() };
        self.event(name, &text)
    }
}

/// Chunks of a chat, or the vendor's own, to an end that may be missing.
fn chunks() -> impl Strategy<Value = String> {
    let opening = json!({"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]});
    let empty = json!({"id": "x", "choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 1}});
    let chunk = prop_oneof![
        4 => choice("delta").prop_map(|choice| json!({"id": "x", "object": "chat.completion.chunk", "choices": [choice]})),
        3 => text().prop_map(|text| json!({"response": text, "p": "padding"})),
        2 => usage().prop_map(|usage| json!({"response": "", "usage": usage})),
        1 => (text(), usage()).prop_map(|(text, usage)| json!({"choices": [{"delta": {"content": text}}], "usage": usage})),
        1 => error().prop_map(|error| json!({"error": error})),
        1 => error().prop_map(|error| json!({"errors": error, "success": true})),
        1 => Just(empty),
    ];
    let parts = (any::<bool>(), prop::collection::vec(chunk, 0..6), any::<bool>(), maybe(Just(())));
    (parts, writing()).prop_map(move |((opens, chunks, is_done, named_error), writing)| {
        let opening = opens.then(|| opening.clone());
        let mut text: String = opening.iter().chain(&chunks).map(|chunk| writing.json(None, chunk)).collect();
        if named_error.is_some() {
            text.push_str(&writing.event(Some("error"), "overloaded"));
        }
        if is_done {
            text.push_str(&writing.event(None, "[DONE]"));
        }
        text
    })
}

/// Events of a response, to an end that may be missing or bad.
fn response_events() -> impl Strategy<Value = String> {
    let end = prop::sample::select(
        &["response.completed", "response.completed", "response.incomplete", "response.failed", "", "[DONE]"][..],
    );
    let deltas = prop::collection::vec((text(), any::<bool>()), 0..4);
    (response(), deltas, end, writing(), any::<bool>()).prop_map(|(response, deltas, end, writing, has_types)| {
        let event = |name: &str, mut data: Value| {
            if has_types {
                data["type"] = json!(name);
            }
            writing.json(Some(name), &data)
        };
        let mut begun = response.clone();
        (begun["status"], begun["output"], begun["usage"], begun["error"]) =
            (json!("in_progress"), json!([]), Value::Null, Value::Null);
        let mut text = event("response.created", json!({ "response": begun }));
        for (delta, is_thought) in deltas {
            let name = if is_thought { "response.reasoning_text.delta" } else { "response.output_text.delta" };
            text.push_str(&event(name, json!({"delta": delta, "item_id": "m"})));
        }
        match end {
            "" => {}
            "[DONE]" => text.push_str(&writing.event(None, "[DONE]")),
            name => text.push_str(&event(name, json!({ "response": response }))),
        }
        text
    })
}

pub fn replies() -> impl Strategy<Value = Reply> {
    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream";
    let reply = |endpoint, is_stream, content_type, text| Reply { endpoint, is_stream, content_type, text };
    let documents = prop_oneof![
        2 => native().prop_map(|document| (Endpoint::Run, document)),
        1 => chat().prop_map(|document| (Endpoint::ChatCompletions, document)),
        1 => chat().prop_map(|document| (Endpoint::Run, json!({"result": document, "success": true, "errors": []}))),
        1 => response().prop_map(|document| (Endpoint::Responses, document)),
    ];
    let kinds = prop::sample::select(&[JSON, JSON, "Application/JSON; charset=utf-8", EVENTS][..]);
    prop_oneof![
        3 => (documents, kinds, 0u8..9).prop_map(move |((endpoint, document), kind, spelling)| reply(endpoint, kind == EVENTS, kind, spelled(&document, spelling))),
        3 => (chunks(), any::<bool>(), prop::sample::select(&[EVENTS, "Text/Event-Stream; charset=utf-8", JSON, "text/plain"][..]))
            .prop_map(move |(text, is_native, kind)| {
                let endpoint = if is_native { Endpoint::Run } else { Endpoint::ChatCompletions };
                reply(endpoint, true, kind, text)
            }),
        2 => (response_events(), any::<bool>()).prop_map(move |(text, is_native)| {
            let endpoint = if is_native { Endpoint::Run } else { Endpoint::Responses };
            reply(endpoint, true, EVENTS, text)
        }),
    ]
}
