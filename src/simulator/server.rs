//! Connections, and the road of a request: refused, broken, or answered and charged.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::batch::Batches;
use super::books::Books;
use super::books_trouble::BooksTrouble;
use super::fault::{Fault, Faults, Form, Trouble};
use super::media::{self, Media};
use super::prompt::Prompt;
use super::route::{Route, Wants};
use super::stream::{self, Told, UsageStyle};
use super::text::{self, Family, envelope};
use super::window::Windows;
use super::{Seen, Settings, dice, search, vectors};
use crate::body::Body;
use crate::catalogue::{Catalogue, Entry, Model, Task};
use crate::estimate::writes_tokens;
use crate::neurons::Neurons;
use crate::usage::{Size, Usage};

/// What all connections share.
#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    /// Its prices may change.
    catalogue: RwLock<Arc<Catalogue>>,
    windows: Windows,
    pub(super) books: Books,
    batches: Batches,
    pub(super) faults: Faults,
    pub(super) books_trouble: Mutex<Option<BooksTrouble>>,
    seen: Mutex<VecDeque<Seen>>,
    /// The last prompt of each conversation, by `x-session-affinity`.
    prefixes: Mutex<HashMap<String, String>>,
}

/// The request's connection is closed, with no reply.
#[derive(Debug, thiserror::Error)]
#[error("the simulated upstream closed the connection")]
struct Closed;

const MAX_SEEN: usize = 256;
const MAX_SEEN_BODY: usize = 64 * 1024;
const MAX_BODY: usize = 128 << 20;
const MAX_PREFIXES: usize = 1000;

pub(super) async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Each token is to leave at once; a socket that refuses that is only slower.
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(state.clone(), request));
            // How a connection ends is the client's business.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Closed)?.to_bytes();
    state.remember(&head, &body);
    // The same request has the same id, so that whole replies can be compared.
    let id = format!("{:016x}", dice::seed(&[&String::from_utf8_lossy(&body)]));
    let call = Received { uri: head.uri, method: head.method, headers: head.headers, body, id };
    let mut reply = match state.judge(&call).await {
        Ok(reply) => reply,
        Err(Refusal::Told(reply)) => *reply,
        Err(Refusal::Closed) => return Err(Closed),
    };
    if let Ok(ray) = HeaderValue::from_str(&call.id) {
        reply.headers_mut().insert("cf-ray", ray);
    }
    Ok(reply)
}

/// A request, whole.
struct Received {
    uri: http::Uri,
    method: http::Method,
    headers: HeaderMap,
    body: Bytes,
    id: String,
}

/// A request that will be answered.
struct Job<'a> {
    call: &'a Received,
    route: &'a Route,
    prompt: &'a Prompt,
    model: &'a Model,
    /// Trouble within the answer.
    fault: Option<Fault>,
    pace: Pace,
}

enum Refusal {
    Told(Box<Response<Body>>),
    Closed,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        fault.reply("8700d6e7").map_or(Self::Closed, |reply| Self::Told(Box::new(reply)))
    }
}

fn error(code: u32) -> Refusal {
    Fault::new(Trouble::Error(code)).into()
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or("")
    }

    fn asked_fault(&self) -> Option<Fault> {
        self.header("x-simulate")?.parse().ok()
    }
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            windows: Windows::new(settings.window),
            catalogue: RwLock::new(Arc::new(Catalogue::with(&settings.models))),
            books: Books::new(settings.elsewhere),
            settings,
            books_trouble: Mutex::default(),
            batches: Batches::default(),
            faults: Faults::default(),
            seen: Mutex::default(),
            prefixes: Mutex::default(),
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().iter().cloned().collect()
    }

    fn remember(&self, head: &http::request::Parts, body: &Bytes) {
        let mut seen = self.seen.lock();
        if seen.len() >= MAX_SEEN {
            seen.pop_front();
        }
        let body = Bytes::copy_from_slice(&body[..body.len().min(MAX_SEEN_BODY)]);
        seen.push_back(Seen { path: head.uri.to_string(), headers: head.headers.clone(), body });
    }

    async fn judge(&self, call: &Received) -> Result<Response<Body>, Refusal> {
        let route = Route::of(call.uri.path()).ok_or_else(|| error(7003))?;
        self.authorize(call)?;
        match route.wants {
            Wants::Search | Wants::GraphQl => return Ok(self.read_books(call, route.wants).await),
            Wants::Other => return Ok(echo(call)),
            _ => {}
        }
        self.books.attempted();
        let prompt = Prompt::read(call.body.clone(), call.content_type()).ok_or_else(|| error(5004))?;
        let name = route.model.as_deref().or(prompt.model()).ok_or_else(|| error(5007))?;
        let fault = call.asked_fault().or_else(|| self.faults.draw(name));
        let fault = self.strike(fault, &call.id).await?;
        let model = self.catalogue().get(name).ok_or_else(|| error(5007))?;
        self.admit(&route.account, &model)?;
        let pace = Pace::of(&model.id, self.settings.latency);
        Ok(self.run(Job { call, route: &route, prompt: &prompt, model: &model, fault, pace }).await)
    }

    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().clone()
    }

    /// From now on these models are as this says, and all others as they were when it started.
    pub(super) fn revise(&self, models: &BTreeMap<String, Entry>) {
        let mut all = self.settings.models.clone();
        all.extend(models.clone());
        *self.catalogue.write() = Arc::new(Catalogue::with(&all));
    }

    async fn read_books(&self, call: &Received, wants: Wants) -> Response<Body> {
        let trouble = *self.books_trouble.lock();
        if let Some(trouble) = trouble
            && let Some(reply) = trouble.reply(wants == Wants::GraphQl).await
        {
            return reply;
        }
        if wants == Wants::GraphQl {
            let question = serde_json::from_slice(&call.body).unwrap_or_default();
            return json_reply(&self.books.ledger.answer(&question, self.settings.analytics_lag));
        }
        let query = call.uri.query().unwrap_or("");
        match trouble {
            Some(BooksTrouble::EndlessPages) => json_reply(&search::endless_page(query)),
            _ => json_reply(&search::page(&self.catalogue(), query)),
        }
    }

    fn authorize(&self, call: &Received) -> Result<(), Refusal> {
        let sent = call.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match (&self.settings.token, sent) {
            (Some(ours), Some(theirs)) if ours == theirs => Ok(()),
            (None, Some(_)) => Ok(()),
            _ => Err(error(10000)),
        }
    }

    /// Trouble that comes before any answer; what comes within one is handed back.
    async fn strike(&self, fault: Option<Fault>, id: &str) -> Result<Option<Fault>, Refusal> {
        let Some(fault) = fault else { return Ok(None) };
        tokio::time::sleep(fault.slow).await;
        match fault.trouble {
            Trouble::Reset => Err(Refusal::Closed),
            Trouble::Stall => std::future::pending().await,
            Trouble::Error(_) => Err(fault.reply(id).map_or(Refusal::Closed, |reply| Refusal::Told(Box::new(reply)))),
            _ => Ok(Some(fault)),
        }
    }

    fn admit(&self, account: &str, model: &Model) -> Result<(), Refusal> {
        if search::is_gone(model) {
            return Err(error(410));
        }
        if model.paid_plan_only && self.settings.free_neurons.is_some() {
            return Err(Fault { form: Form::Bare, ..Fault::new(Trouble::Error(5035)) }.into());
        }
        if self.settings.free_neurons.is_some_and(|free| self.books.spent(account) >= free) {
            return Err(error(4006));
        }
        let limit = model.limit.requests.get();
        if self.settings.rate_limits && !self.windows.admit(account, &model.id, limit, Instant::now()) {
            self.books.rate_limited();
            return Err(error(3021));
        }
        Ok(())
    }

    async fn run(&self, job: Job<'_>) -> Response<Body> {
        tokio::time::sleep(job.pace.first).await;
        if job.call.uri.query().is_some_and(|query| query.contains("queueRequest=true")) {
            return self.batch(&job);
        }
        let mut reply = if writes_tokens(job.model.task) { self.text(&job).await } else { self.other(&job) };
        if let Ok(id) = HeaderValue::from_str(&job.call.id) {
            reply.headers_mut().insert("cf-ai-req-id", id);
        }
        reply
    }

    fn batch(&self, job: &Job<'_>) -> Response<Body> {
        if let Some(id) = job.prompt.json["request_id"].as_str() {
            let polled =
                self.batches.poll(id).unwrap_or_else(|| envelope(json!({"status": "unknown", "request_id": id})));
            return json_reply(&polled);
        }
        let (queued, usage) = self.batches.queue(job.prompt, job.model, &job.call.id);
        self.books.charge(&job.route.account, job.model, &usage);
        json_reply(&queued)
    }

    fn other(&self, job: &Job<'_>) -> Response<Body> {
        let (media, usage) = other(job.prompt, job.model, job.route.wants);
        let neurons = self.books.charge(&job.route.account, job.model, &usage);
        let mut reply = match media {
            Media::Json(json) => bytes_reply("application/json", json.to_string().into(), job.fault),
            Media::Bytes(kind, bytes) => bytes_reply(kind, bytes, job.fault),
        };
        tell_cost(&mut reply, job.model, neurons);
        reply
    }

    async fn text(&self, job: &Job<'_>) -> Response<Body> {
        let Job { call, route, prompt, model, fault, pace } = *job;
        let written = text::write(prompt, model);
        let usage = text::usage(prompt, model, self.cached(call, prompt), &written);
        if let Some(event) = fault.and_then(|fault| fault.event(&call.id)) {
            return event_reply(stream::body(vec![event.into()], Duration::ZERO, None));
        }
        let neurons = self.books.charge(&route.account, model, &usage);
        if prompt.flag("stream") {
            let style = call.header("x-simulate-usage").and_then(|style| style.parse::<UsageStyle>().ok());
            let style = style.unwrap_or(Family::of(model).style);
            let asked = prompt.json["stream_options"]["include_usage"].as_bool();
            let may_tell_usage = asked.unwrap_or(true);
            let told = Told {
                wants: route.wants,
                model,
                id: &call.id,
                written: &written,
                usage: &usage,
                style,
                may_tell_usage,
            };
            return event_reply(stream::body(stream::events(&told), pace.token, fault));
        }
        tokio::time::sleep(pace.token * u32::try_from(written.tokens()).unwrap_or(u32::MAX)).await;
        let told = text::usage_json(&usage, Family::of(model).tells_neurons.then_some(neurons));
        let json = text::reply(route.wants, model, &call.id, &written, told);
        let mut reply = bytes_reply("application/json", json.to_string().into(), fault);
        tell_cost(&mut reply, model, neurons);
        reply
    }

    /// Tokens that the prefix cache has of this conversation: whole blocks of what was said before.
    fn cached(&self, call: &Received, prompt: &Prompt) -> u64 {
        const BLOCK_TOKENS: u64 = 64;
        let Some(session) = call.header("x-session-affinity") else { return 0 };
        let said = prompt.texts.join("\n");
        let mut prefixes = self.prefixes.lock();
        let before = prefixes.get(session).map_or("", String::as_str);
        let common = before.bytes().zip(said.bytes()).take_while(|(a, b)| a == b).count() as u64;
        if prefixes.len() < MAX_PREFIXES || prefixes.contains_key(session) {
            prefixes.insert(session.to_owned(), said);
        }
        common / 5 / BLOCK_TOKENS * BLOCK_TOKENS
    }
}

/// What is no text.
fn other(prompt: &Prompt, model: &Model, wants: Wants) -> (Media, Usage) {
    let json = |(json, usage): (Value, Usage)| (Media::Json(json), usage);
    match model.task {
        Task::TextToImage => media::draw(prompt, model),
        Task::TextToSpeech => media::speak(prompt, model),
        Task::SpeechRecognition => media::hear(prompt, model),
        Task::TextEmbeddings => json(vectors::embed(prompt, model, wants)),
        Task::TextClassification => json(vectors::classify(prompt, model)),
        Task::ImageClassification => {
            let picture = imagesize::blob_size(&prompt.bytes).map_or((224, 224), |size| (size.width, size.height));
            let size = Size { width: picture.0 as u32, height: picture.1 as u32 };
            let labels = json!([{"label": "BRIDGE", "score": 0.81}, {"label": "RIVER", "score": 0.12}]);
            json((envelope(labels), Usage { input_images: vec![size], ..Usage::default() }))
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

/// How quick a model is.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Until the first token.
    first: Duration,
    /// Between two.
    token: Duration,
}

impl Pace {
    /// By the billions of parameters in its name, `-70b-`; a model that names none is a small one.
    fn of(model: &str, scale: f64) -> Self {
        let sizes = model.split(['-', '/', '_']).filter_map(|part| part.strip_suffix(['b', 'B'])?.parse::<f64>().ok());
        let billions = sizes.fold(3.0, f64::max).min(400.0);
        Self {
            first: Duration::from_secs_f64((0.06 + billions * 0.003) * scale),
            token: Duration::from_secs_f64((0.004 + billions * 0.0002) * scale),
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

fn json_reply(json: &Value) -> Response<Body> {
    bytes_reply("application/json", json.to_string().into(), None)
}

fn event_reply(body: Body) -> Response<Body> {
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply
}

fn bytes_reply(kind: &'static str, bytes: Bytes, fault: Option<Fault>) -> Response<Body> {
    let dies = matches!(fault.map(|fault| fault.trouble), Some(Trouble::DieMid | Trouble::StallMid));
    let length = bytes.len();
    let mut reply = Response::new(if dies {
        let half = bytes.slice(..length / 2);
        stream::body(vec![half, bytes.slice(length / 2..)], Duration::ZERO, fault)
    } else {
        Body::from(bytes)
    });
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    reply
}

/// What lies under an account and is no inference: told back, so that a gate's passing it on can be seen.
fn echo(call: &Received) -> Response<Body> {
    let path = call.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let echo = json!({"method": call.method.as_str(), "path": path, "body_bytes": call.body.len()});
    json_reply(&envelope(echo))
}
