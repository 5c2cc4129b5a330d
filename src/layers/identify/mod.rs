//! From an HTTP request to a [`Call`]: which account, model and task; stream or not.
//!
//! The only door from HTTP. It knows every form in which Workers AI and the AI Gateway take a call, and the short forms for
//! the configured account; it reads the body once, at most [`Settings::max_body`] bytes, and measures what it asks for, so
//! that no layer below parses it again. It opens the call's [receipt](crate::receipt), and it is where errors become
//! replies, in the form of the route: Cloudflare's envelope on native routes, OpenAI's error object on `/v1` ones.
//!
//! What is not inference but lies under an account goes to a second service as it came, unread.
//!
//! # What it does not do
//! It does not check that a model exists or that a body fits its schema: the vendor knows best, and says so.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::layers::identify::{Identify, Settings};
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let model = service_fn(|call: Call| async move {
//!     Ok::<_, tollgate::Error>(Response::new(Body::from(format!("asked {}", call.model.id))))
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = Settings::default();
//! settings.account = Some("023e".into());
//! let door = Identify::new(settings, model, rest);
//!
//! let request = Request::post("/v1/chat/completions")
//!     .header("authorization", "Bearer token")
//!     .body(Body::from(r#"{"model": "@cf/meta/llama-3.2-1b-instruct", "messages": []}"#)).unwrap();
//! let reply = door.oneshot(request).await.unwrap();
//! assert!(reply.headers().contains_key("cf-aig-log-id"));
//! # });
//! ```

mod count;
mod encoding;
mod form;
mod intake;
mod json;
mod keepalive;
pub mod keys;
mod media;
mod options;
mod outcome;
mod paced;
mod reply;
mod route;
mod scope;
mod span;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use tower::{Layer, Service};
use tracing::Instrument;

use self::encoding::Content;
use self::intake::read_body;
use self::json::Reading;
use self::keys::{Client, Keys};
use self::media::MediaKind;
use self::options::Wishes;
use self::outcome::outcome;
use self::paced::Paced;
pub use self::reply::ReplyBody;
use self::route::{Route, Target};
use self::scope::Totals;
use super::Reply;
use crate::Error;
use crate::body::{Body, BoxError};
use crate::call::{self, Ask, Call, Deadline, Endpoint, Head, Options};
use crate::catalogue::{Catalogue, Model, Task};
use crate::headers::{CF_AIG_LOG_ID, is_json, strip_hop_by_hop};
use crate::json::Broken;
use crate::memory::Memory;
use crate::pace::Pace;
use crate::payload::{Copying, Payload, Payloads};
use crate::receipt::{CallId, ReadBy, Readers, Receipt};

/// What the door needs to know.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The models.
    pub catalogue: Arc<Catalogue>,
    /// The account of the short routes.
    pub account: Option<Arc<str>>,
    /// The largest body that is read, in bytes.
    pub max_body: u64,
    /// How slowly a client may send its body.
    pub body_pace: Pace,
    /// What all large bodies together may take.
    pub memory: Memory,
    /// How long a large body waits for its part of that.
    pub body_queue: Duration,
    /// How long a call for a stream may stay without an answer before its client is sent a comment, and then another; the
    /// reply's status is 200 from then on. `None` sends none.
    pub keepalive: Option<Duration>,
    /// The gate has a token of its own, so that a client needs none.
    pub has_token: bool,
    /// Clients' own keys. With any, a client needs one, and its Authorization is not the vendor's.
    pub keys: Keys,
    /// Which bodies are kept on the receipt, for its readers.
    pub payloads: Payloads,
    /// Who reads the receipts.
    pub readers: Readers,
}

/// Applies [`Identify`].
#[derive(Clone)]
pub struct IdentifyLayer<P> {
    settings: Arc<Settings>,
    through: P,
}

/// The door: see the [module](self).
#[derive(Clone)]
pub struct Identify<S, P> {
    settings: Arc<Settings>,
    inner: S,
    through: P,
}

/// A request for a model, before its body is here.
struct Arrived<'a> {
    target: Target<'a>,
    method: Method,
    query: Option<&'a str>,
    headers: HeaderMap,
    reader: Option<ReadBy>,
}

/// Words of refusal that are said in more than one place.
const NO_MODEL: &str = "give its name, such as @cf/meta/llama-3.2-1b-instruct, as \"model\" in the body";

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            catalogue: Arc::default(),
            account: None,
            max_body: 32 << 20,
            body_pace: Pace::new(Duration::from_secs(30), 16 * 1024),
            memory: Memory::default(),
            body_queue: Duration::from_secs(10),
            keepalive: None,
            has_token: false,
            keys: Keys::default(),
            payloads: Payloads::default(),
            readers: Arc::new([]),
        }
    }
}

// === impl IdentifyLayer ===

impl<P> IdentifyLayer<P> {
    /// `through` gets what is no call to a model.
    pub fn new(settings: Settings, through: P) -> Self {
        Self { settings: Arc::new(settings), through }
    }
}

impl<S, P: Clone> Layer<S> for IdentifyLayer<P> {
    type Service = Identify<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Identify { settings: self.settings.clone(), inner, through: self.through.clone() }
    }
}

// === impl Identify ===

impl<S, P> Identify<S, P> {
    /// `inner` gets calls, `through` the rest.
    pub fn new(settings: Settings, inner: S, through: P) -> Self {
        Self { settings: Arc::new(settings), inner, through }
    }
}

impl<S, P, B> Service<Request<B>> for Identify<S, P>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send,
    P: Service<Request<Body>, Response = Reply, Error = Error> + Clone + Send + 'static,
    P::Future: Send,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Which of the two services is needed is known only with the request, so readiness is awaited there.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}

impl<S, P> Identify<S, P>
where
    S: Service<Call, Response = Reply, Error = Error> + Send + 'static,
    S::Future: Send,
    P: Service<Request<Body>, Response = Reply, Error = Error>,
{
    async fn answer<B>(self, request: Request<B>) -> Response<ReplyBody>
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        match Route::of(head.uri.path()) {
            Route::Call(target) => {
                let Self { settings, inner, .. } = self;
                let arrived = Arrived {
                    target,
                    method: head.method,
                    query: head.uri.query(),
                    headers: head.headers,
                    reader: head.extensions.remove(),
                };
                answer_call(settings, inner, arrived, body).await
            }
            Route::Through => {
                let native = is_native(head.uri.path());
                match self
                    .settings
                    .keys
                    .admit(&mut head.headers)
                    .and_then(|client| client.map_or(Ok(()), Client::take_turn))
                {
                    Ok(()) => pass(self.through, head, Paced::new(body, self.settings.body_pace)).await,
                    Err(error) => refuse(&error, native),
                }
            }
            Route::Unknown => refuse(&unknown_path(head.uri.path()), is_native(head.uri.path())),
        }
    }
}

async fn pass<P, B>(mut through: P, head: http::request::Parts, body: Paced<B>) -> Response<ReplyBody>
where
    P: Service<Request<Body>, Response = Reply, Error = Error>,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let native = is_native(head.uri.path());
    let request = Request::from_parts(head, Body::stream(body));
    let reply = match poll_fn(|cx| through.poll_ready(cx)).await {
        Ok(()) => through.call(request).await,
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) => reply.map(ReplyBody::unmetered),
        Err(error) => refuse(&error, native),
    }
}

async fn answer_call<S, B>(settings: Arc<Settings>, inner: S, arrived: Arrived<'_>, body: B) -> Response<ReplyBody>
where
    S: Service<Call, Response = Reply, Error = Error> + Send + 'static,
    S::Future: Send,
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let endpoint = arrived.target.endpoint;
    let readers = match &arrived.reader {
        None => settings.readers.clone(),
        Some(ReadBy(own)) => settings.readers.iter().chain([own]).cloned().collect(),
    };
    let receipt = Receipt::open(readers, settings.catalogue.nameless(endpoint.guess()));
    receipt.note(|facts| facts.endpoint = Some(endpoint));
    let call = match identify(&settings, arrived, body, &receipt).await {
        Ok(call) => call,
        Err(error) => return hand_over(Err(error), receipt, endpoint, &settings.payloads),
    };
    let (span, keepalive) = (span::open(&call), settings.keepalive.filter(|_| call.stream));
    let Some(every) = keepalive else {
        let reply = ask(inner, call).instrument(span).await;
        return hand_over(reply, receipt, endpoint, &settings.payloads);
    };
    let id = receipt.read(|facts| facts.id);
    let answering = async move { hand_over(ask(inner, call).await, receipt, endpoint, &settings.payloads) };
    keepalive::answer(Box::pin(answering.instrument(span)), every, endpoint, id).await
}

async fn ask<S>(mut inner: S, call: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    poll_fn(|cx| inner.poll_ready(cx)).await?;
    let Some(deadline) = call.deadline else { return inner.call(call).await };
    let receipt = call.receipt.clone();
    match tokio::time::timeout_at(deadline.at, inner.call(call)).await {
        Ok(reply) => reply,
        Err(_) => {
            Err(deadline.passed(receipt.read(|facts| facts.attempts.iter().any(|attempt| attempt.may_have_cost))))
        }
    }
}

/// Makes the call: everything that can be wrong with a request is found here.
async fn identify<B>(settings: &Settings, mut arrived: Arrived<'_>, body: B, receipt: &Receipt) -> Result<Call, Error>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let client = settings.keys.admit(&mut arrived.headers)?;
    if let Some(client) = client {
        receipt.note(|facts| facts.key = Some(client.name()));
        client.take_turn()?;
    }
    let headers = &arrived.headers;
    if arrived.method != Method::POST {
        return Err(Error::Method(arrived.method));
    }
    let account = account(settings, &arrived.target)?;
    if !settings.has_token && !headers.contains_key(header::AUTHORIZATION) {
        return Err(Error::Unauthorized(
            "no token: send `Authorization: Bearer <Workers AI API token>`, or give the gate its own in \
             [upstream] api_token_env"
                .into(),
        ));
    }
    let options = Wishes::read(headers)?.map(|wishes| noted(wishes, receipt));
    let body = read_body(settings, headers, body).await?;
    keep_request(&settings.payloads, headers, &body, receipt);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let endpoint = arrived.target.endpoint;
    let (decoded, reading) = match encoding::decode(settings, headers, &body)? {
        Content::Plain => (None, read(&body, content_type, endpoint)),
        Content::Decoded(plain) => {
            let reading = read(&plain, content_type, endpoint);
            (Some(plain), reading)
        }
        Content::Broken(why) if arrived.target.model.is_none() => return Err(Error::Malformed(why)),
        Content::Broken(_) => (None, unread(&body)),
    };
    let mut call = make_call(settings, account, arrived, body, decoded, reading, receipt)?;
    if let Some(options) = options.filter(|options| *options != Options::default()) {
        call.deadline = options.request_timeout.and_then(Deadline::after);
        call.options = Arc::new(options);
    }
    if let Some(client) = client {
        client.may_ask(&call.model.id)?;
        if let Some(model) = &call.named_beside {
            client.may_ask(&model.id)?;
        }
        (call.key, call.models) = (Some(client.name()), client.models());
    }
    Ok(call)
}

fn account(settings: &Settings, target: &Target<'_>) -> Result<Arc<str>, Error> {
    match (target.account, &settings.account) {
        // The usual account is shared, not copied.
        (Some(named), Some(ours)) if *named == **ours => Ok(ours.clone()),
        (Some(named), _) => Ok(named.into()),
        (None, Some(ours)) => Ok(ours.clone()),
        (None, None) => Err(Error::NotFound(
            "the short routes need the gate's own account: set [upstream] account_id or CLOUDFLARE_ACCOUNT_ID, or use \
             /client/v4/accounts/{account}/ai/…"
                .into(),
        )),
    }
}

/// What a body of this form asks for, for an estimate without a call.
pub fn measure(body: &[u8], content_type: &str, endpoint: Endpoint) -> Result<Ask, Error> {
    let reading = read(body, content_type, endpoint);
    match reading.broken {
        Some(broken) => Err(malformed(&broken, body)),
        None => Ok(reading.ask),
    }
}

fn read(body: &[u8], content_type: &str, endpoint: Endpoint) -> Reading {
    let begins = |with: &str| content_type.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if endpoint.is_native() && begins("multipart/form-data") {
        return form::read(body, content_type);
    }
    let is_media = begins("image/") || begins("audio/") || begins("video/");
    let is_json = is_json(content_type);
    if !endpoint.is_native() || !is_media && (is_json || looks_json(body)) {
        let mut reading = Reading::json(body, endpoint);
        if reading.broken.is_some() && endpoint.is_native() && !is_json {
            // It only looked like JSON, as samples of a sound may.
            raw(&mut reading.ask, body);
        }
        return reading;
    }
    let mut reading = unread(body);
    raw(&mut reading.ask, body);
    reading
}

fn looks_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// A picture or a sound, whichever the model takes: each kind of model is priced by its own measure.
fn raw(ask: &mut Ask, body: &[u8]) {
    if imagesize::image_type(body).is_ok() {
        media::add(ask, MediaKind::Picture, body, body.len() as u64);
    }
    media::add(ask, MediaKind::Sound, body, body.len() as u64);
}

/// A body of which nothing is known but its length.
fn unread(body: &[u8]) -> Reading {
    let mut reading = Reading::default();
    reading.set(Totals::UNREAD);
    let reach = &mut reading.ask.reach;
    // Bytes that are no UTF-8 become characters of three bytes.
    (reach.is_unread, reach.other_text_bytes) = (true, 3 * body.len() as u64);
    reading
}

fn malformed(broken: &Broken, body: &[u8]) -> Error {
    Error::Malformed(format!("the body is not the JSON object that this route takes: {}", broken.told(body)))
}

#[allow(clippy::too_many_arguments)]
fn make_call(
    settings: &Settings,
    account: Arc<str>,
    arrived: Arrived<'_>,
    body: Bytes,
    decoded: Option<Bytes>,
    reading: Reading,
    receipt: &Receipt,
) -> Result<Call, Error> {
    let Arrived { target, method, query, mut headers, .. } = arrived;
    let Reading { mut ask, stream, model: named, broken } = reading;
    let (name, named_in_body, named_beside) = match (target.model, named, broken) {
        (Some(name), named, _) => (name.into_owned(), None, named),
        (None, _, Some(broken)) => return Err(malformed(&broken, decoded.as_ref().unwrap_or(&body))),
        (None, Some((name, place)), None) => (name, Some(place), None),
        (None, None, None) => return Err(Error::ModelMissing(NO_MODEL)),
    };
    if name.is_empty() || name.len() > 256 || name.contains(['\r', '\n', '?', '#', ' ']) || name.contains("..") {
        return Err(Error::ModelMissing(NO_MODEL));
    }
    // `compat` writes the provider in front. Upstream gets the model's own name.
    let bare = name.strip_prefix("workers-ai/").filter(|_| named_in_body.is_some());
    let id = bare.unwrap_or(&name);
    let model = settings.catalogue.find(id, guess(target.endpoint, &ask));
    let named_beside = named_beside.and_then(|(name, _)| beside(&settings.catalogue, &model, &name));
    ask.batch |= query.is_some_and(asks_for_queue);
    let stream = stream && !ask.batch;
    receipt.identify(|facts| {
        facts.account = account.clone();
        facts.asked = model.clone();
        facts.model = model.clone();
        facts.stream = stream;
    });
    strip_hop_by_hop(&mut headers);
    let mut call = Call {
        account,
        key: None,
        models: None,
        model,
        endpoint: target.endpoint,
        stream,
        ask: Arc::new(ask),
        options: Arc::default(),
        head: Arc::new(Head { method, query: query.map(str::to_owned), headers }),
        body,
        decoded,
        model_in_body: named_in_body,
        named_beside,
        receipt: receipt.clone(),
        allowance: None,
        departure: None,
        deadline: None,
    };
    if let (Some(bare), Some(place)) = (bare, call.model_in_body.clone()) {
        let quoted = serde_json::Value::from(bare).to_string();
        call.replace_body(call::spliced(call.plain_body(), &place, &quoted));
        call.model_in_body = Some(place.start..place.start + quoted.len());
    }
    Ok(call)
}

/// The listed model that a body names beside the path's, by its whole name or as a sibling of it: `clef` beside
/// `@cf/cloudflare/clef-flash`.
fn beside(catalogue: &Catalogue, model: &Model, name: &str) -> Option<Arc<Model>> {
    let name = name.strip_prefix("workers-ai/").unwrap_or(name);
    let sibling = || catalogue.get(&format!("{}/{name}", model.id.rsplit_once('/')?.0));
    catalogue.get(name).or_else(sibling).filter(|beside| beside.id != model.id)
}

/// `queueRequest=true`, as a parameter of its own; of several each says so.
fn asks_for_queue(query: &str) -> bool {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let mut values = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name) == "queueRequest").then(|| decoded(value) == "true")
    });
    values.next().is_some_and(|first| first && values.all(|next| next))
}

/// What a model in no table does, from what it was sent.
fn guess(endpoint: Endpoint, ask: &Ask) -> Task {
    match endpoint.guess() {
        Task::Unknown if ask.audio_ms > 0 && ask.input_images.is_empty() => Task::SpeechRecognition,
        guess => guess,
    }
}

/// What is known of a call before its body is here stands on its receipt also if that body is no good.
fn noted(wishes: Wishes, receipt: &Receipt) -> Options {
    let Wishes { options, metadata, event_id, collect } = wishes;
    receipt.note(|facts| {
        facts.metadata = metadata.into();
        facts.event_id = event_id.map(Into::into);
        facts.collect = collect;
    });
    options
}

fn keep_request(payloads: &Payloads, headers: &HeaderMap, body: &Bytes, receipt: &Receipt) {
    if payloads.wants(receipt.read(|facts| facts.collect)) {
        let mut copying = payloads.copying(headers);
        copying.push(body);
        let payload = Payload { request: copying.finish(), ..Payload::default() };
        receipt.note(|facts| facts.payload = Some(Box::new(payload)));
    }
}

fn keep_response(payloads: &Payloads, headers: &HeaderMap, receipt: &Receipt) -> Option<Copying> {
    let is_kept = receipt.read(|facts| facts.payload.is_some());
    is_kept.then(|| payloads.copying(headers))
}

/// Writes the end of the story on the receipt and sends the reply off with it.
fn hand_over(
    reply: Result<Reply, Error>,
    receipt: Receipt,
    endpoint: Endpoint,
    payloads: &Payloads,
) -> Response<ReplyBody> {
    let (mut reply, outcome) = match reply {
        Ok(reply) => {
            let outcome = outcome(&reply, &receipt);
            (reply, outcome)
        }
        Err(error) => {
            receipt.note(|facts| facts.refused = Some(error.code()));
            let (mut reply, outcome) = (error.response(endpoint.is_native()), error.outcome());
            reply.extensions_mut().insert(error);
            (reply, outcome)
        }
    };
    let status = reply.status();
    let id = receipt.note(|facts| {
        facts.status = Some(status);
        facts.first_byte = Some(facts.opened_at.elapsed());
        facts.id
    });
    write_id(reply.headers_mut(), id);
    let copying = keep_response(payloads, reply.headers(), &receipt);
    reply.map(|body| ReplyBody::new(body, receipt, outcome, copying))
}

fn write_id(headers: &mut HeaderMap, id: CallId) {
    if let Ok(id) = HeaderValue::from_bytes(&id.digits()) {
        headers.insert(CF_AIG_LOG_ID, id);
    }
}

fn refuse(error: &Error, native: bool) -> Response<ReplyBody> {
    error.response(native).map(ReplyBody::unmetered)
}

/// Whether errors on this path have the vendor's form, where no endpoint is known.
fn is_native(path: &str) -> bool {
    !path.starts_with("/v1/")
}

fn unknown_path(path: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::NotFound(format!(
        "there is no route {shown:?}; calls go to /v1/chat/completions, /v1/embeddings, /v1/responses, /run/{{model}}, or \
         to Cloudflare's own paths under /client/v4/accounts/{{account}}/ai/"
    ))
}
