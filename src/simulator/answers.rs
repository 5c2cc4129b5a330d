//! From a request that is let in to its answer, and what that answer is charged.

use std::time::Duration;

use http::{HeaderValue, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{Answer, Family};
use super::batch::{self, Item};
use super::envelope::envelope;
use super::fault::Fault;
use super::js::View;
use super::media::{self, Media};
use super::pace::Pace;
use super::prompt::{Prompt, Sent};
use super::received::{Received, refusal};
use super::reply::{bytes_reply, event_reply, json_reply};
use super::route::{Route, Wants};
use super::settings::Writes;
use super::state::State;
use super::streamed::Streamed;
use super::usage::UsageSettings;
use super::{moondream, stream, text, vectors};
use crate::body::Body;
use crate::catalogue::{Model, Task};
use crate::estimate::writes_tokens;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// A request that will be answered.
pub(super) struct Job<'a> {
    pub(super) call: &'a Received,
    pub(super) route: &'a Route,
    pub(super) sent: &'a Sent,
    pub(super) prompt: Prompt<'a>,
    pub(super) model: &'a Model,
    /// Trouble within the answer.
    pub(super) fault: Option<Fault>,
    pub(super) pace: Pace,
}

// === impl Job ===

impl<'a> Job<'a> {
    /// `queueRequest=true`, as a parameter and not as a part of one.
    fn is_queued(&self) -> bool {
        let query = self.call.uri.query().unwrap_or("");
        query.split('&').filter_map(|pair| pair.split_once('=')).any(|(name, value)| {
            percent_decode_str(name).eq(*b"queueRequest") && percent_decode_str(value).eq(*b"true")
        })
    }

    /// A body that asks for a batch's answers, and for nothing else.
    fn polls(&self) -> Option<&'a str> {
        let root = self.sent.root()?;
        let id = root.get("request_id")?.text()?;
        root.names().all(|name| name == "request_id").then_some(id)
    }

    /// The requests of a batch; one that is no list holds none.
    fn requests(&self) -> Vec<View<'a>> {
        self.prompt
            .field("requests")
            .and_then(View::items)
            .into_iter()
            .flatten()
            .filter(|item| item.is_object())
            .collect()
    }

    /// moondream streams unless it is asked not to.
    fn streams(&self) -> bool {
        let is_default = self.route.wants == Wants::Run && self.model.id.contains("moondream");
        self.prompt.flag("stream") || (is_default && self.prompt.field("stream").is_none())
    }

    fn telling(&self) -> UsageSettings {
        self.call.header("x-simulate-usage").and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

// === impl State ===

impl State {
    pub(super) async fn run(&self, job: Job<'_>) -> Response<Body> {
        tokio::time::sleep(job.pace.first).await;
        if let Some(id) = job.polls() {
            let unknown = || envelope(json!({"status": "unknown", "request_id": id}));
            return json_reply(&self.batches.poll(id).unwrap_or_else(unknown));
        }
        let requests = job.requests();
        if job.is_queued() || !requests.is_empty() {
            return self.batch(&job, requests);
        }
        let mut reply = if writes_tokens(job.model.task) { self.text(&job).await } else { self.other(&job) };
        if let Ok(id) = HeaderValue::from_str(&job.call.id) {
            reply.headers_mut().insert("cf-ai-req-id", id);
        }
        reply
    }

    /// Answers each request of a batch, now or to be polled for. What stands beside them is one more where it asks anything.
    fn batch(&self, job: &Job<'_>, requests: Vec<View<'_>>) -> Response<Body> {
        if job.model.task == Task::TextToImage {
            return refusal(8007);
        }
        let beside = (requests.is_empty() || job.prompt.is_dear()) && !job.prompt.texts.is_empty();
        let coercion = self.settings.coercion;
        let mut items: Vec<_> = requests
            .into_iter()
            .filter_map(|request| {
                let reference = request.get("external_reference").map_or(Value::Null, View::tree);
                let (result, usage) = self.item(&Prompt::of(request, coercion), job.model)?;
                Some(Item { result, reference, usage })
            })
            .collect();
        if beside && let Some((result, usage)) = self.item(&job.prompt, job.model) {
            items.push(Item { result, reference: Value::Null, usage });
        }
        self.books.charge(&job.route.account, job.model, &sum(&items));
        if job.is_queued() {
            let telling = job.call.header("x-simulate-batch").and_then(|text| text.parse().ok()).unwrap_or_default();
            json_reply(&self.batches.queue(items, &job.model.id, &job.call.id, telling))
        } else {
            json_reply(&envelope(batch::responses(items)))
        }
    }

    fn item(&self, prompt: &Prompt<'_>, model: &Model) -> Option<(Value, Usage)> {
        if writes_tokens(model.task) {
            let answer = Answer::new(prompt, model, Wants::Run, 0, self.settings.writes)?;
            return Some((text::native(model, "batch", &answer, Default::default()), answer.usage));
        }
        let (media, usage) = other(prompt, model, Wants::Run, self.settings.writes);
        let result = match media {
            Media::Json(mut json) => json["result"].take(),
            Media::Bytes(..) => Value::Null,
        };
        Some((result, usage))
    }

    fn other(&self, job: &Job<'_>) -> Response<Body> {
        let (media, usage) = other(&job.prompt, job.model, job.route.wants, self.settings.writes);
        let neurons = self.books.charge(&job.route.account, job.model, &usage);
        let mut reply = match media {
            Media::Json(json) => whole_reply(json, job),
            Media::Bytes(kind, bytes) => bytes_reply(kind, bytes, job.fault),
        };
        tell_cost(&mut reply, job.model, neurons);
        reply
    }

    async fn text(&self, job: &Job<'_>) -> Response<Body> {
        let Job { call, route, ref prompt, model, fault, pace, .. } = *job;
        let cached = self.cached(call, prompt);
        let Some(answer) = Answer::new(prompt, model, route.wants, cached, self.settings.writes) else {
            return refusal(3030);
        };
        if let Some(fault) = fault.filter(Fault::comes_first) {
            return event_reply(fault.within(Vec::new(), &call.id), Duration::ZERO, Some(fault));
        }
        let is_odd = route.wants == Wants::Run && model.id.contains("moondream");
        let telling = job.telling();
        if job.streams() {
            let usage = &answer.usage;
            let neurons = if is_odd { moondream::told_neurons(model, usage) } else { model.prices.cost(usage) };
            self.books.charge_as(&route.account, model, usage, neurons);
            let asked = prompt.field("stream_options").and_then(|options| options.get("include_usage")?.bool());
            let streamed = Streamed {
                wants: route.wants,
                model,
                id: &call.id,
                answer: &answer,
                style: telling.style.unwrap_or(Family::of(model).style),
                words: telling.words,
                may_tell_usage: asked.unwrap_or(true),
            };
            let events = stream::events(&streamed);
            let events = fault.map_or(events.clone(), |fault| fault.within(events, &call.id));
            return event_reply(events, pace.token, fault);
        }
        let neurons = self.books.charge(&route.account, model, &answer.usage);
        let shown = u32::try_from(answer.written.shown_tokens()).unwrap_or(u32::MAX);
        tokio::time::sleep(pace.token * shown).await;
        let json = text::reply(route.wants, model, &call.id, &answer, telling.words);
        let mut reply = whole_reply(json, job);
        tell_cost(&mut reply, model, neurons);
        reply
    }
}

/// What a batch's answers used together.
fn sum(items: &[Item]) -> Usage {
    let mut sum = Usage::default();
    for Item { usage, .. } in items {
        sum.input_tokens += usage.input_tokens;
        sum.output_tokens += usage.output_tokens;
        sum.characters += usage.characters;
        sum.audio_ms += usage.audio_ms;
        sum.input_images.extend(&usage.input_images);
    }
    sum
}

/// What is no text.
fn other(prompt: &Prompt<'_>, model: &Model, wants: Wants, writes: Writes) -> (Media, Usage) {
    let json = |(json, usage): (Value, Usage)| (Media::Json(json), usage);
    match model.task {
        Task::TextToImage => media::draw(prompt, model),
        Task::TextToSpeech => media::speak(prompt, model, writes),
        Task::SpeechRecognition => media::hear(prompt, model),
        Task::TextEmbeddings => json(vectors::embed(prompt, model, wants)),
        Task::TextClassification => json(vectors::classify(prompt, model)),
        Task::ImageClassification => {
            let labels = json!([{"label": "BRIDGE", "score": 0.81}, {"label": "RIVER", "score": 0.12}]);
            json((envelope(labels), media::look(prompt)))
        }
        Task::ObjectDetection => {
            let place = json!({"xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40});
            json((envelope(json!([{"label": "bridge", "score": 0.9, "box": place}])), Usage::default()))
        }
        _ => {
            let (_, usage) = media::hear(prompt, model);
            json((envelope(json!({"is_complete": true, "probability": 0.97})), usage))
        }
    }
}

// === replies ===

fn tell_cost(reply: &mut Response<Body>, model: &Model, neurons: Neurons) {
    // phoenix-1.0 tells nothing.
    if model.id.contains("phoenix") {
        return;
    }
    if let Ok(cost) = HeaderValue::from_str(&format!("{:.2}", neurons.as_f64())) {
        reply.headers_mut().insert("cf-ai-neurons", cost);
    }
}

/// An answer in JSON, as trouble leaves it.
fn whole_reply(json: Value, job: &Job<'_>) -> Response<Body> {
    let json = match job.fault {
        Some(fault) => fault.upon(json, &job.call.id),
        None => json,
    };
    bytes_reply("application/json", json.to_string().into(), job.fault)
}
