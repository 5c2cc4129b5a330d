//! What the gate makes of replies and streams in every shape that the simulator has, against the simulator's own books.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::catalogue::Task;
use tollgate::receipt::{CacheStatus, Outcome};
use tollgate::simulator::{Coercion, Writes};

use crate::models;
use crate::requests::Asked;
use crate::run::{Broken, cases};
use crate::world::World;

/// A call, and what its reply is to look like.
#[derive(Clone, Debug)]
struct Case {
    asked: Asked,
    trouble: Trouble,
    /// `x-simulate-usage`.
    style: &'static str,
    words: &'static str,
    framing: &'static str,
    form: &'static str,
}

/// What `x-simulate` asks for, and what it makes of the answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    header: &'static str,
    at: Option<usize>,
    effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    /// A good answer.
    None,
    /// An error, if the reply is a stream of the kind that has it.
    Error,
}

const TROUBLES: [(&str, Effect); 12] = [
    ("", Effect::None),
    ("", Effect::None),
    ("empty-error", Effect::None),
    ("stream-error=3040", Effect::Error),
    ("stream-error=2005", Effect::Error),
    ("error-in-200=3040", Effect::Error),
    ("choice-error=3040", Effect::Error),
    ("finish-error", Effect::Error),
    ("response-failed=3040", Effect::Error),
    ("response-incomplete", Effect::Error),
    ("no-end", Effect::Error),
    ("cut", Effect::Error),
];

impl Trouble {
    /// What this trouble makes of the answer to this request, which has this body.
    fn on(self, asked: &Asked, streams: bool, body: &[u8]) -> Effect {
        let is_responses = asked.path.ends_with("/responses");
        let has = |words: &str| memchr::memmem::find(body, words.as_bytes()).is_some();
        let choices = memchr::memmem::find_iter(body, "\"choices\"").count();
        match self.header.split('=').next() {
            Some("stream-error" | "cut" | "no-end") if !streams => Effect::None,
            // A stream of fewer events is not cut.
            Some("cut") if ["[DONE]", "response.completed", "message_stop"].into_iter().any(has) => Effect::None,
            Some("response-failed" | "response-incomplete") if !is_responses => Effect::None,
            // Some models answer natively with OpenAI's choices, too. A native stream may begin or end with one such chunk, in
            // which there is nothing to go wrong.
            Some("choice-error" | "finish-error") if choices < if streams { 2 } else { 1 } => Effect::None,
            _ => self.effect,
        }
    }
}

fn case() -> BoxedStrategy<Case> {
    let trouble = (prop::sample::select(&TROUBLES[..]), prop::option::of(0usize..20))
        .prop_map(|((header, effect), at)| Trouble { header, at, effect });
    let style = prop::sample::select(vec!["", "end", "running", "increments", "none"]);
    let words = prop::sample::select(vec!["chat", "chat", "responses", "both", "strings", "in-choice", "absurd"]);
    let framing = prop::sample::select(vec!["usual", "usual", "crlf", "cr", "comments", "terse", "bom", "lines"]);
    let form = prop::sample::select(vec![
        "envelope",
        "string-code",
        "head",
        "openai",
        "bare",
        "list",
        "lines",
        "null-errors",
        "no-code",
    ]);
    (asked(), trouble, style, words, framing, form)
        .prop_map(|(asked, trouble, style, words, framing, form)| Case { asked, trouble, style, words, framing, form })
        .boxed()
}

fn asked() -> BoxedStrategy<Asked> {
    let models = models::of(&[Task::TextGeneration, Task::ImageToText]);
    let routes = prop::sample::select(vec!["run", "v1/chat/completions", "v1/responses", "v1/messages"]);
    let more = prop::sample::select(vec![
        "",
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#,
        r#","response_format":{"type":"json_object"}"#,
        r#","n":2"#,
        r#","stream_options":{"include_usage":true}"#,
    ]);
    (prop::sample::select(models), routes, more, any::<bool>(), 0u64..1_000_000)
        .prop_map(|(model, route, more, stream, number)| {
            let prompt = match route {
                "v1/responses" => format!(r#""input":"tale {number}""#),
                _ => format!(r#""messages":[{{"role":"user","content":"tale {number}"}}]"#),
            };
            let body =
                format!(r#"{{"model":"{model}",{prompt},"max_tokens":60,"temperature":0,"stream":{stream}{more}}}"#);
            let route = if route == "run" { format!("run/{model}") } else { route.to_owned() };
            let path = format!("/client/v4/accounts/acc/ai/{route}");
            let content_type = Some("application/json".to_owned());
            Asked { path, content_type, content_encoding: None, body: body.into_bytes() }
        })
        .boxed()
}

#[test]
fn replies_are_judged_by_their_end_and_cost_what_the_vendor_charged() {
    let world = World::with_cache(Writes::Usual, Coercion::Plain, Duration::from_secs(60));
    cases("replies", 400, &case(), |case| check(&world, case));
}

fn check(world: &World, case: &Case) -> Result<(), Broken> {
    let at = case.trouble.at.map(|at| format!(";at={at}")).unwrap_or_default();
    let simulate = format!("{};form={};frame={}{at}", case.trouble.header, case.form, case.framing);
    let usage = [case.style, case.words].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(",");
    let headers = [("x-simulate", &*simulate), ("x-simulate-usage", &*usage)];
    let gate = world.gate();
    let came = world.ask_by(&gate, &case.asked, &headers);
    let kind_of_reply = came.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let streams = kind_of_reply.as_deref() == Some("text/event-stream");
    let effect = case.trouble.on(&case.asked, streams, came.body.as_deref().unwrap_or_default());
    let shape = format!("{} of {}", case.trouble.header, if streams { case.framing } else { "JSON" });
    let (outcome, cost) = (came.facts.outcome, came.facts.cost);
    let figures = format!("{outcome:?}, cost {} by {:?}, charged {}", cost.neurons, cost.source, came.charged);
    let is_ok = outcome == Outcome::Ok;
    if effect == Effect::None && !is_ok {
        return Err((format!("a good answer is told as {outcome:?}: {shape}"), figures));
    }
    if effect == Effect::Error && is_ok {
        return Err((format!("an error is told as an answer: {shape}"), figures));
    }
    let tells = case.style != "none" && case.words != "absurd";
    if effect == Effect::None && tells && cost.neurons != came.charged {
        let kind = format!("another cost than the vendor's: {} {} {}", case.style, case.words, came.facts.model.id);
        return Err((kind, figures));
    }
    if effect == Effect::None && came.body != world.ask_vendor(&case.asked, &headers).1 {
        return Err((format!("another reply than the vendor's: {shape}"), figures));
    }
    let again = world.ask_by(&gate, &case.asked, &headers);
    if effect != Effect::None && again.facts.cache == CacheStatus::Hit {
        return Err((format!("what is no whole answer was kept: {shape}"), figures));
    }
    Ok(())
}
