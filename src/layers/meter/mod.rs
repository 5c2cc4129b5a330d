//! Reads what each call used off the reply as it passes, and prices it.
//!
//! The vendor's own figure comes first: `usage.neurons` in the body, then the header `cf-ai-neurons`, then the tokens it
//! reports times the [catalogue](crate::catalogue), and where it reports nothing, an estimate from what flowed. Which of
//! these it was stands on the receipt, as [`Source`](crate::receipt::Source); where two disagree, both do.
//!
//! A stream passes piece by piece as it comes. Only its opening is held back, until something has been said or for a second at
//! most, for a stream may open with status 200 and fail before its first word: then it can be tried again. A short JSON reply is
//! taken in whole, so that its cost is known before it is handed on: it goes into `x-tollgate-neurons` and
//! `x-tollgate-cost-usd`. A call whose name was only a route (`cloudflare/auto`, `dynamic/…`) is priced by the model that the
//! reply says has run. Whatever the vendor says that goes wrong is put into the reply's extensions as a [`VendorError`], so
//! that no layer above reads bodies; what goes wrong later is on the receipt, as its [`Ending`].
//!
//! # What it does not do
//! It changes no byte of a body, decides nothing, and refuses nothing. A reply in a content encoding cannot be read and is
//! estimated; [`Upstream`](crate::upstream) asks for none.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::layers::{identify, meter};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let vendor = service_fn(|_: Call| async {
//!     let reply = r#"{"result": {"response": "Hi", "usage": {"prompt_tokens": 26, "completion_tokens": 18}}}"#;
//!     let reply = Response::builder().header("content-type", "application/json").body(Body::from(reply));
//!     Ok::<_, tollgate::Error>(reply.unwrap())
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = identify::Settings::default();
//! (settings.account, settings.has_token) = (Some("023e".into()), true);
//! let stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(settings, rest))
//!     .layer(meter::MeterLayer::default())
//!     .service(vendor);
//!
//! let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from(r#"{"prompt": "Hello"}"#)).unwrap();
//! let reply = stack.oneshot(request).await.unwrap();
//! // 26 x 2,457 + 18 x 18,252 micro-neurons
//! assert_eq!(reply.headers()["x-tollgate-neurons"], "0.392418");
//! # });
//! ```

mod batch;
mod bill;
mod body;
mod opening;
mod settle;
#[cfg(test)]
mod wire_tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, response};
use http_body::Body as _;
use tokio::time::Instant;
use tower::{Layer, Service};

use self::bill::{HeadWord, Routed};
use self::body::{Metered, Resumed};
use self::opening::{Opening, PATIENCE};
use self::settle::settle;
use super::inner::{Inner, access};
use super::{Reply, ReplyFuture};
use crate::Error;
use crate::batches::Batches;
use crate::body::{Body, TooLong};
use crate::call::Call;
use crate::catalogue::{Catalogue, Slot};
use crate::departure::Departure;
use crate::headers::{
    CF_AI_NEURONS, CF_AI_REQ_ID, CF_AIG_CACHE_STATUS, CF_AIG_ROUTED_MODEL, CF_RAY, X_TOLLGATE_COST_USD,
    X_TOLLGATE_NEURONS,
};
use crate::memory::Memory;
use crate::neurons::Neurons;
use crate::receipt::{Attempt, Ending, Estimate};
use crate::reply::{Asked, MOST_NEURONS, Reader};
use crate::vendor_error::VendorError;

/// Applies [`Meter`].
#[derive(Clone, Debug, Default)]
pub struct MeterLayer {
    /// What the replies that are taken in may fill, with all else that counts there. Where it is full, a reply that is over
    /// [`SMALL_BYTES`](crate::memory::SMALL_BYTES) passes piece by piece.
    pub memory: Memory,
    /// What the models cost that a reply names where a route was asked, such as `cloudflare/auto`.
    pub catalogue: Arc<Catalogue>,
    /// The batches that wait for their answers.
    pub batches: Batches,
}

/// Reads the reply of each attempt: see the [module](self).
#[derive(Clone, Debug)]
pub struct Meter<S> {
    inner: Inner<S>,
    memory: Memory,
    catalogue: Arc<Catalogue>,
    batches: Batches,
}

impl MeterLayer {
    /// With these models, and without a bound on what replies that are taken in may fill.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, ..Self::default() }
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = Meter<S>;

    fn layer(&self, inner: S) -> Meter<S> {
        let Self { memory, catalogue, batches } = self.clone();
        Meter { inner: Inner(inner), memory, catalogue, batches }
    }
}

// === impl Meter ===

access!(Meter);

impl<S> Service<Call> for Meter<S>
where
    S: Service<Call, Response = Reply>,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> ReplyFuture {
        let at = Instant::now();
        let (waited_before, attempts) = call.receipt.note(|facts| {
            facts.model = call.model.clone();
            facts.ending = Ending::Open;
            facts.estimate.get_or_insert_with(|| Estimate::of(&call));
            (facts.waited, facts.attempts.len())
        });
        let trace = call.trace.map(|trace| trace.attempt(attempts));
        let departure = Departure::default();
        call.departure = Some(departure.clone());
        let (asked, memory) = (call.clone(), self.memory.clone());
        let is_routed = call.model.slot == Slot::OTHER;
        let routes = is_routed.then(|| self.catalogue.clone());
        let batches = call.ask.batch.then(|| (self.batches.clone(), self.catalogue.clone()));
        call.trace = trace;
        let reply = self.inner.call(call);
        Box::pin(async move {
            let sent = Sent { call: &asked, at, waited_before, departure, is_noted: false };
            let reply = reply.await;
            let read = match reply {
                Ok(reply) => read(reply, &asked, &memory, routes, batches).await,
                // Whether it had gone out, a layer of tower's cannot tell.
                Err(Error::Elapsed { .. }) => Err(Error::Elapsed { was_sent: sent.departure.may_have_left() }),
                Err(error) => Err(error),
            };
            sent.note(&read);
            read
        })
    }
}

/// An attempt on its way. Dropped before it is noted, it was given up by the caller, and may have run if it had left.
struct Sent<'a> {
    call: &'a Call,
    at: Instant,
    /// The call's waits so far: what it waits for below, such as a permit, is not upstream's time.
    waited_before: Duration,
    departure: Departure,
    is_noted: bool,
}

impl Sent<'_> {
    fn note(mut self, read: &Result<Reply, Error>) {
        self.is_noted = true;
        let may_have_cost = read.as_ref().is_err_and(|error| error.may_have_cost());
        note_attempt(&self, read.as_ref().ok(), may_have_cost);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.is_noted {
            // Nothing has cost before a socket is open.
            let may_have_cost = self.departure.may_have_left() && self.call.socket.is_none();
            note_attempt(self, None, may_have_cost);
        }
    }
}

fn note_attempt(sent: &Sent<'_>, reply: Option<&Reply>, may_have_cost: bool) {
    let call = sent.call;
    let (at, took) = (sent.at, sent.at.elapsed());
    let mut attempt = Attempt {
        model: call.model.id.clone(),
        status: reply.map(Reply::status),
        code: reply.and_then(|reply| reply.extensions().get::<VendorError>()?.code),
        retried: None,
        began: Duration::ZERO,
        took,
        may_have_cost,
    };
    let vendor_id = reply.and_then(|reply| vendor_id(reply.headers()));
    call.receipt.note(|facts| {
        attempt.began = at.saturating_duration_since(facts.opened_at);
        facts.attempts.push(attempt);
        facts.vendor_id = vendor_id.or(facts.vendor_id.take());
        let waited_below = facts.waited.saturating_sub(sent.waited_before);
        facts.upstream += took.saturating_sub(waited_below);
    });
}

fn vendor_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(CF_AI_REQ_ID).or_else(|| headers.get(CF_RAY))?;
    id.to_str().ok().map(|id| id.chars().take(128).collect())
}

/// `batches`: where the call is one, or asks for the answers of one; with the prices of its model.
async fn read(
    reply: Reply,
    call: &Call,
    memory: &Memory,
    routes: Option<Arc<Catalogue>>,
    batches: Option<(Batches, Arc<Catalogue>)>,
) -> Result<Reply, Error> {
    let (head, body) = reply.into_parts();
    if !head.status.is_success() {
        #[cfg(feature = "sockets")]
        if head.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(meter) = crate::socket::Meter::of(call)
        {
            let mut reply = Reply::from_parts(head, body);
            reply.extensions_mut().insert(Arc::new(meter));
            return Ok(reply);
        }
        return read_error(head, body).await;
    }
    let form = Asked::by(call).form(&head.headers);
    let mut word = head_word(&head.headers, routes);
    word.polled = batches.clone().filter(|_| call.ask.is_poll());
    let mut reader = Reader::new(form);
    if form.is_opaque() {
        return Ok(read_opaque(head, body, &reader, &word, call));
    }
    let patience = form.is_stream().then_some(PATIENCE);
    let opening = Opening::of_answer(body, &mut reader, patience, memory).await.map_err(|why| broken(&why))?;
    let error = reader.error();
    let mut reply = if opening.is_whole && !reader.is_events() {
        let bytes = opening.into_bytes();
        let is_submit =
            call.ask.batch && !call.ask.is_poll() && reader.error().is_none() && reader.tally().batch_items == 0;
        let taken_in =
            batches.filter(|_| is_submit).and_then(|(batches, _)| Some((batch::acknowledged(&bytes)?, batches)));
        let is_queued = match taken_in {
            // Boxed, for few calls are batches.
            Some((id, batches)) => Box::pin(batch::queue(call, &id, &batches)).await,
            None => false,
        };
        if !is_queued {
            settle(call, &reader, &word);
        }
        let mut reply = Reply::from_parts(head, Body::from(bytes));
        write_cost(&mut reply, call);
        reply
    } else {
        Reply::from_parts(head, Body::stream(Metered::new(opening, reader, word, call.clone())))
    };
    if let Some(error) = error {
        reply.extensions_mut().insert(error);
    }
    Ok(reply)
}

/// Nothing in the body tells more than the request did: a picture, a sound.
fn read_opaque(head: response::Parts, body: Body, reader: &Reader, word: &HeadWord, call: &Call) -> Reply {
    settle(call, reader, word);
    let ending = match reader.is_readable() {
        _ if body.is_end_stream() => Ending::Empty,
        true => Ending::Answer,
        false => Ending::Open,
    };
    call.receipt.note(|facts| facts.ending = ending);
    let mut reply = Reply::from_parts(head, body);
    write_cost(&mut reply, call);
    reply
}

/// `routes`: where the model that was asked may stand for others, what these are.
fn head_word(headers: &HeaderMap, routes: Option<Arc<Catalogue>>) -> HeadWord {
    let neurons = headers.get(CF_AI_NEURONS).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let cached = headers.get(CF_AIG_CACHE_STATUS).is_some_and(|status| status == "HIT");
    let routed = routes.map(|catalogue| {
        let mut routed = Routed { catalogue, by_head: None };
        let told = headers.get(CF_AIG_ROUTED_MODEL).and_then(|value| value.to_str().ok());
        routed.by_head = told.and_then(|name| routed.listed(name.trim()));
        routed
    });
    let neurons = neurons.filter(|n| (0.0..=MOST_NEURONS).contains(n)).map(Neurons::from_f64);
    HeadWord { neurons, cached, routed, polled: None }
}

async fn read_error(head: response::Parts, body: Body) -> Result<Reply, Error> {
    let opening = Opening::of_error(body).await.map_err(|why| broken(&why))?;
    let bytes = opening.bytes();
    let error = VendorError::read(head.status, &bytes);
    let body = if opening.is_whole { Body::from(bytes) } else { Body::stream(Resumed::new(opening)) };
    let mut reply = Reply::from_parts(head, body);
    reply.extensions_mut().insert(error);
    Ok(reply)
}

/// The reply broke off before any of it was handed on: for the caller there was none.
fn broken(why: &crate::body::BoxError) -> Error {
    if let Some(TooLong { limit, setting, .. }) = why.downcast_ref() {
        return Error::Timeout { after: *limit, setting, was_sent: true };
    }
    Error::Unreachable { host: "upstream".into(), why: format!("the reply broke off: {why}"), was_sent: true }
}

/// Tells the cost where it is known before the body is handed on.
fn write_cost(reply: &mut Reply, call: &Call) {
    let cost = call.receipt.read(|facts| facts.cost);
    if cost.source.label().is_none() || reply.status() != StatusCode::OK {
        return;
    }
    let usd = match cost.custom_usd {
        Some(usd) => HeaderValue::try_from(format!("{usd:.9}")),
        None => HeaderValue::try_from(cost.neurons.usd_decimal()),
    };
    for (name, value) in
        [(X_TOLLGATE_NEURONS, HeaderValue::try_from(cost.neurons.decimal())), (X_TOLLGATE_COST_USD, usd)]
    {
        if let Ok(value) = value {
            reply.headers_mut().insert(name, value);
        }
    }
}
