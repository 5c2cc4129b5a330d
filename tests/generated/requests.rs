//! Whole requests: a route, a model, a body in some form and coding, and now and then a slip of the pen.

use std::fmt;

use proptest::prelude::*;
use tollgate::catalogue::Task;

use crate::encodings::{CODINGS, encode};
use crate::json::{Json, anything, deep, dressed};
use crate::{audio, forms, models, text};

/// A request as it leaves a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// Path and query.
    pub path: String,
    pub content_type: Option<String>,
    pub content_encoding: Option<&'static str>,
    pub body: Vec<u8>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.body.len().min(600);
        write!(f, "{} [{}]", self.path, self.content_type.as_deref().unwrap_or("no type"))?;
        if let Some(coding) = self.content_encoding {
            write!(f, " [{coding}]")?;
        }
        let more = if shown < self.body.len() { "…" } else { "" };
        write!(f, " {} bytes: {}{more}", self.body.len(), self.body[..shown].escape_ascii())
    }
}

/// How the body is written, before it is coded.
type Body = BoxedStrategy<(Vec<u8>, Option<String>)>;

/// Any request of any task.
pub fn request() -> BoxedStrategy<Asked> {
    let text = [Task::TextGeneration, Task::ImageToText];
    let reading = [Task::TextEmbeddings, Task::TextClassification, Task::Translation, Task::Summarization];
    let hearing = [Task::SpeechRecognition, Task::VoiceActivityDetection];
    let kinds = prop_oneof![
        8 => native(&text, json(text::generation())),
        4 => openai(&text, text::generation()),
        3 => anthropic(&text),
        3 => native(&reading, json(text::reading())),
        2 => openai(&[Task::TextEmbeddings], text::reading()),
        2 => native(&[Task::TextToSpeech], json(text::reading())),
        3 => native(&[Task::TextToImage], json(text::picture())),
        3 => native(&[Task::TextToImage], raw_form()),
        1 => native(&[Task::TextToImage], json(forms::in_json())),
        2 => native(&hearing, raw(audio::sound(), &["audio/wav", "audio/mpeg", "application/octet-stream", "Audio/L16;rate=8000"])),
        2 => native(&hearing, json(audio::in_json())),
        1 => native(&[Task::ImageClassification, Task::ObjectDetection], raw(audio::sound(), &["image/png", "application/octet-stream"])),
        3 => batch(&text, text::generation()),
        1 => batch(&reading[..3], text::reading()),
        1 => native(&text, json(anything())),
        1 => native(&text, json((1_000usize..60_000).prop_map(|levels| {
            Json::object([("prompt", Json::text("x")), ("deep", deep(levels))])
        }).boxed())),
    ];
    (kinds, prop::option::weighted(0.15, prop::sample::select(&CODINGS[..])), slips())
        .prop_map(|(mut asked, coding, slips)| {
            slips.iter().for_each(|slip| slip.make(&mut asked.body));
            if let Some(coding) = coding {
                let (body, name) = encode(&asked.body, coding);
                (asked.body, asked.content_encoding) = (body, Some(name));
            }
            asked
        })
        .boxed()
}

// === bodies ===

fn json(value: BoxedStrategy<Json>) -> Body {
    let kinds = prop_oneof![
        8 => Just(Some("application/json")),
        1 => Just(Some("application/json; charset=utf-8")),
        1 => Just(Some("Application/JSON")),
        1 => Just(Some("text/plain")),
        1 => Just(Some("application/x-www-form-urlencoded")),
        1 => Just(None),
    ];
    (dressed(value.prop_map(|value| value.bytes()).boxed()), kinds)
        .prop_map(|(body, kind)| (body, kind.map(str::to_owned)))
        .boxed()
}

fn raw(bytes: BoxedStrategy<Vec<u8>>, kinds: &'static [&'static str]) -> Body {
    (bytes, prop::sample::select(kinds)).prop_map(|(body, kind)| (body, Some(kind.to_owned()))).boxed()
}

fn raw_form() -> Body {
    forms::form().prop_map(|(body, kind)| (body, Some(kind))).boxed()
}

// === routes ===

fn native(tasks: &[Task], body: Body) -> BoxedStrategy<Asked> {
    (prop::sample::select(models::of(tasks)), route(), body)
        .prop_map(|(model, route, body)| asked(&model, route, body))
        .boxed()
}

#[derive(Clone, Copy, Debug)]
enum Route {
    Short,
    Account,
    Gateway,
    GatewayRun,
}

fn route() -> BoxedStrategy<Route> {
    prop_oneof![4 => Just(Route::Short), 2 => Just(Route::Account), 1 => Just(Route::Gateway), 1 => Just(Route::GatewayRun)].boxed()
}

fn asked(model: &str, route: Route, (body, content_type): (Vec<u8>, Option<String>)) -> Asked {
    let path = match route {
        Route::Short => format!("/run/{model}"),
        Route::Account => format!("/client/v4/accounts/acc/ai/run/{model}"),
        Route::Gateway => format!("/v1/acc/gw/workers-ai/{model}"),
        Route::GatewayRun => format!("/v1/acc/gw/workers-ai/run/{model}"),
    };
    Asked { path, content_type, content_encoding: None, body }
}

/// The routes that name the model in the body.
fn openai(tasks: &[Task], value: BoxedStrategy<Json>) -> BoxedStrategy<Asked> {
    let routes = if tasks == [Task::TextEmbeddings] { &EMBEDDINGS[..] } else { &CHATS[..] };
    (prop::sample::select(models::of(tasks)), prop::sample::select(routes), value, any::<bool>())
        .prop_map(|(model, route, value, is_last)| {
            let path = format!("/client/v4/accounts/acc/ai/{route}");
            let model = ("model".to_owned(), Json::text(&model));
            let Json::Object(mut fields) = value else { unreachable!() };
            if route == "run" {
                fields = vec![("input".to_owned(), Json::Object(fields))];
            }
            fields.insert(if is_last { fields.len() } else { 0 }, model);
            let content_type = Some("application/json".to_owned());
            Asked { path, content_type, content_encoding: None, body: Json::Object(fields).bytes() }
        })
        .boxed()
}

/// The route of Anthropic's form.
fn anthropic(tasks: &[Task]) -> BoxedStrategy<Asked> {
    let places =
        prop::sample::select(vec!["/client/v4/accounts/acc/ai/v1/messages", "/v1/acc/gw/workers-ai/v1/messages"]);
    (openai(tasks, text::messages()), places)
        .prop_map(|(asked, path)| match asked.path.ends_with("/run") {
            // With its `input`, it is none of Anthropic's.
            true => asked,
            false => Asked { path: path.to_owned(), ..asked },
        })
        .boxed()
}

const CHATS: [&str; 3] = ["v1/chat/completions", "v1/responses", "run"];
const EMBEDDINGS: [&str; 2] = ["v1/embeddings", "run"];

fn batch(tasks: &[Task], item: BoxedStrategy<Json>) -> BoxedStrategy<Asked> {
    let queries = ["?queueRequest=true", "?tags=a&queueRequest=true", "?xqueueRequest=true", "?queueRequest=truer", ""];
    (native(tasks, json(text::batch(item))), prop::sample::select(queries.to_vec()))
        .prop_map(|(asked, query)| Asked { path: asked.path + query, ..asked })
        .boxed()
}

// === slips ===

/// A change of a body's bytes, at a share of its length.
#[derive(Clone, Debug)]
enum Slip {
    Cut(f64, usize),
    Put(f64, &'static str),
    Twice(f64, usize),
    Change(f64, u8),
}

fn slips() -> BoxedStrategy<Vec<Slip>> {
    let slip = prop_oneof![
        (0.0..1.0, 1usize..9).prop_map(|(at, length)| Slip::Cut(at, length)),
        (0.0..1.0, prop::sample::select(&TOKENS[..])).prop_map(|(at, token)| Slip::Put(at, token)),
        (0.0..1.0, 1usize..40).prop_map(|(at, length)| Slip::Twice(at, length)),
        (0.0..1.0, any::<u8>()).prop_map(|(at, byte)| Slip::Change(at, byte)),
    ];
    let some = prop::collection::vec(slip, 1..3);
    prop_oneof![4 => Just(Vec::new()), 1 => some].boxed()
}

const TOKENS: [&str; 12] = [
    "\"max_tokens\":1,",
    "\"max_tokens\":9999,",
    "\"n\":3,",
    "\"input\":{},",
    "\"requests\":[],",
    ",",
    "}",
    "[",
    "\\",
    "\"",
    "\0",
    "\r\n--b",
];

impl Slip {
    fn make(&self, body: &mut Vec<u8>) {
        let place = |at: f64| (body.len() as f64 * at) as usize;
        match *self {
            Self::Cut(at, length) => {
                let (begin, end) = (place(at), (place(at) + length).min(body.len()));
                body.drain(begin..end);
            }
            Self::Put(at, token) => {
                let at = place(at);
                body.splice(at..at, token.bytes());
            }
            Self::Twice(at, length) => {
                let (begin, end) = (place(at), (place(at) + length).min(body.len()));
                let piece = body[begin..end].to_vec();
                body.splice(begin..begin, piece);
            }
            Self::Change(at, byte) => {
                let at = place(at);
                if let Some(changed) = body.get_mut(at) {
                    *changed = byte;
                }
            }
        }
    }
}
