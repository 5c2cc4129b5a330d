//! From an HTTP request to a [`Call`]: which account, model and task; stream or not.
//!
//! The only door from HTTP. It knows every form in which Workers AI and the AI Gateway take a call, and the short forms for
//! the configured account; it reads the body once, at most [`Settings::max_body`] bytes, and measures what it asks for, so
//! that no layer below parses it again. It opens the call's [receipt](crate::receipt), and it is where errors become
//! replies, in the form of the route: Cloudflare's envelope on native routes, OpenAI's error object on `/v1` ones.
//!
//! What is not inference but lies under an account goes to a second service, unread: see [`PassThrough`] for what of it leaves
//! with the gate's own token.
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

mod by_hand;
mod complaints;
mod count;
#[cfg(feature = "sockets")]
mod deepgram;
mod dry;
mod elsewhere;
mod encoding;
mod form;
mod intake;
mod json;
mod keepalive;
pub mod keys;
mod make;
mod media;
mod model;
mod options;
mod outcome;
mod paced;
mod pass;
mod path;
mod read;
mod reading;
mod reply;
mod route;
mod scope;
mod short;
#[cfg(feature = "sockets")]
mod sockets;
mod span;
mod universal;
#[cfg(feature = "sockets")]
mod universal_socket;
mod wishes;

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body as HttpBody;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

pub use self::complaints::Complaints;
use self::dry::Estimated;
use self::intake::read_body;
use self::keys::{Keys, Turns};
use self::make::{make_call, measured};
use self::options::CallerOptions;
pub(crate) use self::outcome::outcome;
use self::paced::Paced;
pub use self::pass::{PassThrough, PassThroughError};
use self::pass::{Payer, is_authorized};
use self::path::CanonicalPath;
pub use self::read::measure;
pub use self::reply::ReplyBody;
use self::route::{Other, Route, Target};
#[cfg(feature = "otel")]
pub(crate) use self::span::{PROVIDER, operation};
use self::wishes::Wishes;
use super::Reply;
use super::inner::Inner;
use crate::Error;
use crate::affinity::Affinity;
use crate::batches::Batches;
use crate::body::{Body, BoxError};
use crate::call::{Call, Credentials, Deadline, Elsewhere, Options};
use crate::catalogue::{Aliases, Catalogue};
use crate::endpoint::{Endpoint, ErrorForm};
use crate::headers::{CF_AIG_LOG_ID, write_budget};
use crate::memory::Memory;
use crate::openai::{self, Face};
use crate::pace::Pace;
use crate::payload::{Copying, Payload, Payloads};
use crate::peer::{Certified, Peer};
use crate::preview::Foresee;
use crate::receipt::{CallId, Outcome, ReadBy, Readers, Receipt};
use crate::socket;
use crate::trace::TraceContext;

/// What the door needs to know.
#[derive(Clone)]
pub struct Settings {
    /// The models.
    pub catalogue: Arc<Catalogue>,
    /// The account of the short routes, and the only one that the gate's own token is for.
    pub account: Option<Arc<str>>,
    /// Further accounts that paths may name, each with limits and a free allocation of its own, and with clients' tokens. All
    /// that are not listed share one; where the gate has an account and a token they are refused.
    pub accounts: Vec<Arc<str>>,
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
    /// What leaves with that token besides calls.
    pub pass_through: Vec<PassThrough>,
    /// A budget can refuse calls, so that nothing may pass uncounted. [`stack`](crate::gateway::stack) sets it.
    pub has_budgets: bool,
    /// Calls leave through an AI Gateway of the config's, whatever gateway a request names. [`stack`](crate::gateway::stack)
    /// sets it.
    pub has_gateway: bool,
    /// Clients' own keys. With any, a client needs one, and its Authorization is not the vendor's.
    pub keys: Keys,
    /// Where several gates share the turns of keys.
    pub turns: Option<Arc<dyn Turns>>,
    /// Which bodies are kept on the receipt, for its readers.
    pub payloads: Payloads,
    /// Who reads the receipts.
    pub readers: Readers,
    /// Other names of models, on the short routes.
    pub aliases: Arc<Aliases>,
    /// Which routes answer as OpenAI does, and how.
    pub openai: openai::Settings,
    /// The batches that wait for their answers: one who asks for these need not say so in the query.
    pub batches: Batches,
    /// How WebSockets are held.
    pub sockets: socket::Settings,
    /// Puts digests of what was asked on the receipts, by which their readers tell repeats; `None` puts none.
    pub digests: Option<Affinity>,
    /// Traces are followed: `traceparent` is taken from clients and handed upstream, and this share of the calls that come
    /// without one is kept. `None` hands on what clients send, as any other header.
    pub traces: Option<f64>,
    /// What the log is told of headers.
    pub complaints: Arc<Complaints>,
    /// Tells what a dry run would meet. [`stack`](crate::gateway::stack) sets it; without it, only what the call would cost is told.
    pub ahead: Option<Arc<dyn Foresee>>,
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
    inner: Inner<S>,
    through: P,
}

/// A request for a model, before its body is here.
struct Arrived<'a> {
    target: Target<'a>,
    /// Where the vendor has no such route.
    route: Option<openai::Route>,
    /// Where it goes to another provider.
    elsewhere: Option<Elsewhere>,
    /// The model's name and the caller's for it, where the gate's own route has read both.
    own: Option<String>,
    asked: Option<String>,
    method: Method,
    query: Option<&'a str>,
    headers: HeaderMap,
    peer: Option<Peer>,
    certified: Option<Certified>,
    reader: Option<ReadBy>,
    /// A step of the universal endpoint, whose body is here.
    body: Option<Bytes>,
    /// It came to be estimated, and not to be made.
    is_dry: bool,
}

/// How a refusal is told.
#[derive(Clone, Copy)]
struct Refusal {
    form: ErrorForm,
    /// The status of one for money, where that is not the error's own.
    budget_status: Option<StatusCode>,
}

/// Words of refusal that are said in more than one place.
const NO_MODEL: &str = "give its name, such as @cf/meta/llama-3.2-1b-instruct, as \"model\" in the body";

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            catalogue: Arc::default(),
            account: None,
            accounts: Vec::new(),
            max_body: 32 << 20,
            body_pace: Pace::new(Duration::from_secs(30), 16 * 1024),
            memory: Memory::default(),
            body_queue: Duration::from_secs(10),
            keepalive: None,
            has_token: false,
            pass_through: PassThrough::usual(),
            has_budgets: false,
            has_gateway: false,
            keys: Keys::default(),
            turns: None,
            payloads: Payloads::default(),
            readers: Arc::new([]),
            aliases: Arc::default(),
            openai: openai::Settings::default(),
            batches: Batches::default(),
            sockets: socket::Settings::default(),
            digests: None,
            traces: None,
            complaints: Arc::default(),
            ahead: None,
        }
    }
}

impl Settings {
    /// What may run a model must not pass uncounted.
    fn must_count(&self) -> bool {
        self.has_token || self.has_budgets || !self.keys.is_empty()
    }
}

// === impl Arrived ===

impl<'a> Arrived<'a> {
    fn of(target: Target<'a>, route: Option<openai::Route>, uri: &'a Uri, head: &mut request::Parts) -> Self {
        Self {
            target,
            route,
            elsewhere: None,
            own: None,
            asked: None,
            method: mem::take(&mut head.method),
            query: uri.query(),
            headers: mem::take(&mut head.headers),
            peer: head.extensions.get().copied(),
            certified: head.extensions.remove(),
            reader: head.extensions.remove(),
            body: None,
            is_dry: false,
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
        Identify { settings: self.settings.clone(), inner: Inner(inner), through: self.through.clone() }
    }
}

// === impl Identify ===

impl<S, P> Identify<S, P> {
    /// `inner` gets calls, `through` the rest.
    pub fn new(settings: Settings, inner: S, through: P) -> Self {
        Self { settings: Arc::new(settings), inner: Inner(inner), through }
    }

    /// The service of calls.
    pub fn get_ref(&self) -> &S {
        &self.inner.0
    }

    /// The service of calls.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner.0
    }

    /// The service of calls, without this door.
    pub fn into_inner(self) -> S {
        self.inner.0
    }
}

impl<S, P, B> Service<Request<B>> for Identify<S, P>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
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
        let mut this = self.clone();
        let (mut head, body) = request.into_parts();
        Box::pin(async move { Ok(this.answer(&mut head, body).await) })
    }
}

impl<S, P> Identify<S, P>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
    S::Future: Send,
    P: Service<Request<Body>, Response = Reply, Error = Error>,
{
    /// What is large is borrowed all the way down: a future that takes it moves it, and keeps room for it twice.
    async fn answer<B>(&mut self, head: &mut request::Parts, body: B) -> Response<ReplyBody>
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let uri = mem::take(&mut head.uri);
        let path = match CanonicalPath::read(uri.path()) {
            Ok(path) => path,
            Err(error) => return refuse(error, ErrorForm::of_path(uri.path())),
        };
        #[cfg(feature = "sockets")]
        if matches!(head.method, Method::GET | Method::CONNECT) && crate::socket::is_upgrade(head) {
            return Box::pin(sockets::answer(&self.settings, &mut self.inner, head, &uri, &path)).await;
        }
        if let Some(wanted) = openai::models::Wanted::of(path.decoded()) {
            let answer = short::models(&self.settings, wanted, head).await;
            return answer.unwrap_or_else(|error| refuse(error, ErrorForm::OpenAi));
        }
        let short = openai::Route::of(path.decoded());
        let target = short.map(|route| Target { account: None, endpoint: route.endpoint(), model: None });
        match target.map_or_else(|| Route::of(path.decoded()), Route::Call) {
            Route::Call(target) => {
                let arrived = Arrived::of(target, short, &uri, head);
                answer_call(&self.settings, &mut self.inner, arrived, body).await
            }
            Route::Other(other) => {
                if let Some(elsewhere) = Elsewhere::counted(&self.settings, &head.method, &other, &path) {
                    let target = elsewhere.target(other.account);
                    let elsewhere = Some(elsewhere);
                    let arrived = Arrived { elsewhere, ..Arrived::of(target, None, &uri, head) };
                    return Box::pin(answer_call(&self.settings, &mut self.inner, arrived, body)).await;
                }
                let form = ErrorForm::of_path(path.decoded());
                match admitted(&self.settings, head, &uri, &path, &other).await {
                    Ok(head) => {
                        let body = Body::stream(Paced::new(body, self.settings.body_pace));
                        pass(&mut self.through, Request::from_parts(head, body), form).await
                    }
                    Err(error) => refuse(error, form),
                }
            }
            Route::Universal(universal) if universal.is_known(&self.settings) => {
                // Few requests are so, and their future is large.
                Box::pin(universal.answer(&self.settings, &mut self.inner, head, body)).await
            }
            Route::Universal(_) | Route::Unknown => match Estimated::of(path.decoded()) {
                Some(Estimated { target, route }) => {
                    let arrived = Arrived { is_dry: true, ..Arrived::of(target, route, &uri, head) };
                    answer_call(&self.settings, &mut self.inner, arrived, body).await
                }
                None => refuse(unknown_path(path.decoded()), ErrorForm::of_path(path.decoded())),
            },
        }
    }
}

/// The head of what is no call, as it leaves: with its path in canonical form, and with whose authorisation it passes, if it may.
async fn admitted(
    settings: &Settings,
    head: &mut request::Parts,
    uri: &Uri,
    path: &CanonicalPath<'_>,
    other: &Other<'_>,
) -> Result<request::Parts, Error> {
    if let Some(client) = settings.keys.admit(&mut head.headers, head.extensions.get())?
        && let Some(turn) = client.take_turn(settings.turns.as_deref())?
    {
        turn.await?;
    }
    Wishes::refuse_any(&head.headers)?;
    let credentials = pass::credentials(settings, &head.method, path, other, &head.headers)?;
    let no_url = |error| Error::Malformed(format!("the path makes no URL: {error}"));
    let uri =
        if path.encoded() == uri.path() { uri.clone() } else { with_path(uri, path.encoded()).map_err(no_url)? };
    let (nothing, ()) = Request::new(()).into_parts();
    let mut head = mem::replace(head, nothing);
    head.uri = uri;
    head.extensions.insert(credentials);
    Ok(head)
}

async fn pass<P>(through: &mut P, request: Request<Body>, form: ErrorForm) -> Response<ReplyBody>
where
    P: Service<Request<Body>, Response = Reply, Error = Error>,
{
    let reply = match poll_fn(|cx| through.poll_ready(cx)).await {
        Ok(()) => through.call(request).await,
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) => reply.map(ReplyBody::unmetered),
        Err(error) => refuse(error, form),
    }
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, http::Error> {
    let mut parts = uri.clone().into_parts();
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}"))?);
    Ok(Uri::from_parts(parts)?)
}

async fn answer_call<S, B>(settings: &Settings, inner: &mut S, arrived: Arrived<'_>, body: B) -> Response<ReplyBody>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let endpoint = arrived.target.endpoint;
    let refusal = Refusal {
        form: if arrived.route.is_some() { ErrorForm::OpenAi } else { endpoint.error_form() },
        budget_status: short::is_openai(settings, &arrived).then_some(settings.openai.budget_status),
    };
    let wishes = match Wishes::read(&arrived.headers) {
        Ok(wishes) if wishes.is_dry || arrived.is_dry => {
            // Few requests are so.
            return Box::pin(dry::answer(settings, arrived, wishes, body, refusal)).await;
        }
        wishes => wishes,
    };
    let (is_step, readers) = (
        arrived.body.is_some(),
        match &arrived.reader {
            None => settings.readers.clone(),
            Some(ReadBy(own)) => settings.readers.iter().chain([own]).cloned().collect(),
        },
    );
    let receipt = Receipt::open(readers, settings.catalogue.nameless(endpoint.guess()));
    receipt.note(|facts| {
        facts.endpoint = Some(endpoint);
        facts.trace = settings.traces.map(|share| TraceContext::of(&arrived.headers, facts.id.to_bytes(), share));
    });
    let call = match identify(settings, arrived, wishes, body, &receipt).await {
        Ok(call) => call,
        Err(error) => return hand_over(Err(error), receipt, refusal, &settings.payloads),
    };
    let (span, keepalive) = (span::open(&call), settings.keepalive.filter(|_| call.stream && !is_step));
    let Some(every) = keepalive else {
        let reply = ask(inner, call).instrument(span).await;
        return hand_over(reply, receipt, refusal, &settings.payloads);
    };
    let id = receipt.read(|facts| facts.id);
    keepalive::answer(answering(inner.clone(), call, span, receipt, refusal, settings.payloads), every, endpoint, id)
        .await
}

/// The answer of a call whose stream may be kept alive before it has begun. It has a box of its own, or every call would have
/// room for it.
fn answering<S>(
    mut inner: S,
    call: Call,
    span: Span,
    receipt: Receipt,
    refusal: Refusal,
    payloads: Payloads,
) -> keepalive::Answering
where
    S: Service<Call, Response = Reply, Error = Error> + Send + 'static,
    S::Future: Send,
{
    Box::pin(async move { hand_over(ask(&mut inner, call).await, receipt, refusal, &payloads) }.instrument(span))
}

async fn ask<S>(inner: &mut S, call: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    poll_fn(|cx| inner.poll_ready(cx)).await?;
    let Some(deadline) = call.deadline else { return inner.call(call).await };
    let receipt = call.receipt.clone();
    match tokio::time::timeout_at(deadline.at, inner.call(call)).await {
        Ok(reply) => reply,
        Err(_) => {
            Err(receipt
                .read(|facts| deadline.passed(facts, facts.attempts.iter().any(|attempt| attempt.may_have_cost))))
        }
    }
}

/// Makes the call: everything that can be wrong with a request is found here.
async fn identify<B>(
    settings: &Settings,
    mut arrived: Arrived<'_>,
    wishes: Result<Wishes, Error>,
    body: B,
    receipt: &Receipt,
) -> Result<Call, Error>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let client = settings.keys.admit(&mut arrived.headers, arrived.certified.as_ref())?;
    if let Some(client) = client {
        receipt.note(|facts| (facts.key, facts.labels) = (Some(client.name()), client.labels()));
        if let Some(turn) = client.take_turn(settings.turns.as_deref())? {
            turn.await?;
        }
    }
    if arrived.target.account.is_none() || arrived.target.endpoint == Endpoint::Messages && arrived.elsewhere.is_none()
    {
        short::take_api_key(&mut arrived.headers);
    }
    let headers = &arrived.headers;
    if arrived.method != Method::POST {
        return Err(Error::Method { asked: arrived.method, takes: "POST" });
    }
    let payer = Payer::of(settings, arrived.target.account)?;
    let has_token = settings.has_token && payer.credentials == Credentials::Gate;
    if !has_token && arrived.elsewhere.is_none() && !is_authorized(headers) {
        return Err(Error::Unauthorized(
            "no token: send `Authorization: Bearer <Workers AI API token>` (or X-Auth-Email with X-Auth-Key), or give the \
             gate its own ([upstream] api_token_env; Builder::token)"
                .into(),
        ));
    }
    let wishes = wishes?;
    let options = wishes
        .has_options
        .then(|| noted(CallerOptions::read(headers, settings.has_gateway, &settings.complaints), receipt));
    let body = match arrived.body.take() {
        Some(body) => body,
        None => read_body(settings, headers, body).await?,
    };
    keep_request(&settings.payloads, headers, &body, receipt);
    let content = encoding::decode(settings, &arrived.headers, &body)?;
    let (body, content, answer) = short::translated(settings, &mut arrived, body, content)?;
    let measured = measured(&arrived, body, content).await?;
    let mut call = make_call(settings, payer, arrived, measured, receipt)?;
    call.face = answer.map_or(call.face, Face::OpenAi);
    call.ceiling = wishes.ceiling;
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
    if let Some(digests) = &settings.digests {
        let (digest, beginning) = (digests.whole(&call), digests.beginning(&call));
        receipt.note(|facts| (facts.digest, facts.beginning) = (Some(digest), beginning));
    }
    Ok(call)
}

/// What is known of a call before its body is here stands on its receipt also if that body is no good.
fn noted(all: CallerOptions, receipt: &Receipt) -> Options {
    let CallerOptions { options, metadata, event_id, collect } = all;
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
    refusal: Refusal,
    payloads: &Payloads,
) -> Response<ReplyBody> {
    let (mut reply, outcome) = match reply {
        Ok(reply) => {
            let outcome = outcome(&reply, &receipt);
            (reply, outcome)
        }
        Err(error) => {
            receipt.note(|facts| facts.refused = Some(error.code()));
            let (mut reply, outcome) = (error.response(refusal.form), error.outcome());
            if let (Some(status), Outcome::BudgetExceeded) = (refusal.budget_status, outcome) {
                *reply.status_mut() = status;
            }
            reply.extensions_mut().insert(error);
            (reply, outcome)
        }
    };
    let status = reply.status();
    let (id, budget) = receipt.note(|facts| {
        facts.status = Some(status);
        facts.first_byte = Some(facts.opened_at.elapsed());
        (facts.id, facts.budget)
    });
    write_id(reply.headers_mut(), id);
    if let Some(budget) = budget {
        write_budget(reply.headers_mut(), budget);
    }
    let copying = keep_response(payloads, reply.headers(), &receipt);
    reply.map(|body| ReplyBody::new(body, receipt, outcome, copying))
}

fn write_id(headers: &mut HeaderMap, id: CallId) {
    if let Ok(id) = HeaderValue::from_bytes(&id.digits()) {
        headers.insert(CF_AIG_LOG_ID, id);
    }
}

fn refuse(error: Error, form: ErrorForm) -> Response<ReplyBody> {
    let mut reply = error.response(form).map(ReplyBody::unmetered);
    reply.extensions_mut().insert(error);
    reply
}

fn unknown_path(path: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::NotFound(format!(
        "there is no route {shown:?}; calls go to /v1/chat/completions, /v1/embeddings, /v1/responses, /v1/messages, \
         /run/{{model}}, or to Cloudflare's own paths under /client/v4/accounts/{{account}}/ai/"
    ))
}
