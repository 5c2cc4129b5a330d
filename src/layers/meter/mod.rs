//! Reads what each call used off the reply as it passes, and prices it.
//!
//! The vendor's own figure comes first: `usage.neurons` in the body, then the header `cf-ai-neurons`, then the tokens it
//! reports times the [catalogue](crate::catalogue), and where it reports nothing, an estimate from what flowed. Which of
//! these it was stands on the receipt, as [`Source`](crate::receipt::Source); where two disagree, both do.
//!
//! A stream passes piece by piece as it comes; only its opening is held back until its first event is known, for a stream
//! may open with status 200 and an error. A short JSON reply is taken in whole, so that its cost is known before it is
//! handed on: it goes into `x-tollgate-neurons` and `x-tollgate-cost-usd`. Whatever is said to go wrong by the vendor is
//! put into the reply's extensions as a [`VendorError`], so that no layer above reads bodies.
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

mod bill;
mod body;
mod events;
mod scan;
mod tally;
#[cfg(test)]
mod wire_tests;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header, response};
use http_body::Body as _;
use tokio::time::Instant;
use tower::{Layer, Service};

use self::bill::HeadWord;
use self::body::{Metered, Reading, Resumed};
use self::events::Events;
use self::scan::Scanner;
use self::tally::Tally;
use super::{Reply, ReplyFuture};
use crate::Error;
use crate::body::{Body, TooLong};
use crate::call::{Call, Endpoint};
use crate::departure::Departure;
use crate::headers::{
    CF_AI_NEURONS, CF_AI_REQ_ID, CF_AIG_CACHE_STATUS, CF_RAY, X_TOLLGATE_COST_USD, X_TOLLGATE_NEURONS, is_json,
};
use crate::memory::{Memory, SMALL_BYTES};
use crate::neurons::Neurons;
use crate::receipt::{Attempt, Estimate};
use crate::vendor_error::VendorError;

/// Applies [`Meter`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MeterLayer {
    /// What the replies that are taken in may fill, with all else that counts there. Where it is full, a reply that is over
    /// [`SMALL_BYTES`] passes piece by piece.
    pub memory: Memory,
}

/// Reads the reply of each attempt: see the [module](self).
#[derive(Clone, Debug)]
pub struct Meter<S> {
    inner: S,
    memory: Memory,
}

/// A JSON reply up to this size is taken in before it is handed on.
const WHOLE_BYTES: usize = 256 * 1024;
/// How far an opening stream is searched for its first event, and an error's body for its code.
const OPENING_BYTES: usize = 64 * 1024;

impl<S> Layer<S> for MeterLayer {
    type Service = Meter<S>;

    fn layer(&self, inner: S) -> Meter<S> {
        Meter { inner, memory: self.memory.clone() }
    }
}

// === impl Meter ===

impl<S> Service<Call> for Meter<S>
where
    S: Service<Call, Response = Reply, Error = Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> ReplyFuture {
        let sent = Instant::now();
        call.receipt.note(|facts| {
            facts.model = call.model.clone();
            facts.estimate.get_or_insert_with(|| Estimate::of(&call));
        });
        let departure = Departure::default();
        call.departure = Some(departure.clone());
        let (asked, memory) = (call.clone(), self.memory.clone());
        let reply = self.inner.call(call);
        Box::pin(async move {
            let sent = Sent { call: &asked, at: sent, departure, is_noted: false };
            let reply = reply.await;
            let read = match reply {
                Ok(reply) => read(reply, &asked, &memory).await,
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
    departure: Departure,
    is_noted: bool,
}

impl Sent<'_> {
    fn note(mut self, read: &Result<Reply, Error>) {
        self.is_noted = true;
        let may_have_cost = read.as_ref().is_err_and(|error| error.may_have_cost());
        note_attempt(self.call, read.as_ref().ok(), self.at, may_have_cost);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.is_noted {
            note_attempt(self.call, None, self.at, self.departure.may_have_left());
        }
    }
}

fn note_attempt(call: &Call, reply: Option<&Reply>, sent: Instant, may_have_cost: bool) {
    let attempt = Attempt {
        model: call.model.id.clone(),
        status: reply.map(Reply::status),
        code: reply.and_then(|reply| reply.extensions().get::<VendorError>()?.code),
        retried: None,
        may_have_cost,
    };
    let vendor_id = reply.and_then(|reply| vendor_id(reply.headers()));
    call.receipt.note(|facts| {
        facts.attempts.push(attempt);
        facts.vendor_id = vendor_id.or(facts.vendor_id.take());
        facts.upstream += sent.elapsed();
    });
}

fn vendor_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(CF_AI_REQ_ID).or_else(|| headers.get(CF_RAY))?;
    id.to_str().ok().map(|id| id.chars().take(128).collect())
}

async fn read(reply: Reply, call: &Call, memory: &Memory) -> Result<Reply, Error> {
    let (head, body) = reply.into_parts();
    if !head.status.is_success() {
        return read_error(head, body).await;
    }
    let word = head_word(&head.headers);
    match content(&head.headers) {
        Content::Events => read_stream(head, body, word, call).await,
        Content::Json => read_json(head, body, word, call, memory).await,
        Content::Opaque => {
            // Nothing in the body tells more than the request did: a picture, a sound.
            bill::settle(call, &Tally::default(), word, false);
            let mut reply = Reply::from_parts(head, body);
            write_cost(&mut reply, call);
            Ok(reply)
        }
    }
}

enum Content {
    Events,
    Json,
    Opaque,
}

fn content(headers: &HeaderMap) -> Content {
    let is_encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match content_type {
        _ if is_encoded => Content::Opaque,
        events if events.starts_with("text/event-stream") => Content::Events,
        json if is_json(json) || json.starts_with("text/") || json.is_empty() => Content::Json,
        _ => Content::Opaque,
    }
}

fn head_word(headers: &HeaderMap) -> HeadWord {
    let neurons = headers.get(CF_AI_NEURONS).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let cached = headers.get(CF_AIG_CACHE_STATUS).is_some_and(|status| status == "HIT");
    HeadWord { neurons: neurons.filter(|n| n.is_finite() && *n >= 0.0).map(Neurons::from_f64), cached }
}

async fn read_error(head: response::Parts, body: Body) -> Result<Reply, Error> {
    let taken = take_in(body, |taken| taken > OPENING_BYTES).await.map_err(|why| broken(&why))?;
    let error = VendorError::read(head.status, &taken.whole());
    let mut reply = Reply::from_parts(head, taken.into_body());
    reply.extensions_mut().insert(error);
    Ok(reply)
}

async fn read_json(
    head: response::Parts,
    body: Body,
    word: HeadWord,
    call: &Call,
    memory: &Memory,
) -> Result<Reply, Error> {
    let scanner = Scanner::new(call.endpoint == Endpoint::Responses);
    let (mut length, mut share) = (0, None);
    let has_room = |bytes: &Bytes| {
        length += bytes.len();
        if length > SMALL_BYTES as usize && share.is_none() {
            share = memory.try_take(WHOLE_BYTES as u64);
            return share.is_some();
        }
        length <= WHOLE_BYTES
    };
    let taken = take_in_while(body, has_room).await.map_err(|why| broken(&why))?;
    if !taken.is_whole {
        let body = Metered::new(taken.resumed(), Reading::Document(scanner), word, call.clone());
        return Ok(Reply::from_parts(head, Body::stream(body)));
    }
    let (mut scanner, mut tally) = (scanner, Tally::default());
    taken.begun.iter().for_each(|bytes| scanner.push(bytes));
    tally.add(scanner.finish());
    bill::settle(call, &tally, word, true);
    let whole = taken.whole();
    if call.ask.batch && !call.ask.is_poll() {
        bill::note_queued(call, &whole);
    }
    let whole = match share {
        Some(share) => share.hold(whole),
        None => whole,
    };
    let mut reply = Reply::from_parts(head, Body::from(whole));
    write_cost(&mut reply, call);
    Ok(reply)
}

async fn read_stream(head: response::Parts, body: Body, word: HeadWord, call: &Call) -> Result<Reply, Error> {
    let mut opening = Opening::default();
    let taken = take_in_while(body, |bytes| opening.push(bytes)).await.map_err(|why| broken(&why))?;
    let error = opening.event().and_then(|event| VendorError::in_event(event));
    let events = Events::new(call.endpoint == Endpoint::Responses);
    if let Some(error) = error {
        let mut reply = Reply::from_parts(head, Body::stream(taken.resumed()));
        reply.extensions_mut().insert(error);
        return Ok(reply);
    }
    let body = Metered::new(taken.resumed(), Reading::Events(events), word, call.clone());
    Ok(Reply::from_parts(head, Body::stream(body)))
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

/// The beginning of a body, and the rest of it.
struct TakenIn {
    begun: VecDeque<Bytes>,
    rest: Body,
    /// The beginning is all there is.
    is_whole: bool,
}

/// Takes in a body until it ends or so much of it is here that `enough` says so.
async fn take_in(body: Body, enough: impl Fn(usize) -> bool) -> Result<TakenIn, crate::body::BoxError> {
    let mut length = 0;
    take_in_while(body, |bytes| {
        length += bytes.len();
        !enough(length)
    })
    .await
}

async fn take_in_while(
    mut body: Body,
    mut wants_more: impl FnMut(&Bytes) -> bool,
) -> Result<TakenIn, crate::body::BoxError> {
    let mut begun = VecDeque::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(bytes) = frame?.into_data() else { continue };
        let more = wants_more(&bytes);
        begun.push_back(bytes);
        if body.is_end_stream() {
            break;
        }
        if !more {
            return Ok(TakenIn { begun, rest: body, is_whole: false });
        }
    }
    Ok(TakenIn { begun, rest: Body::empty(), is_whole: true })
}

impl TakenIn {
    /// What is here, in one piece; most bodies are.
    fn whole(&self) -> Bytes {
        match self.begun.len() {
            0 => Bytes::new(),
            1 => self.begun[0].clone(),
            _ => {
                let mut whole = BytesMut::new();
                self.begun.iter().for_each(|bytes| whole.extend_from_slice(bytes));
                whole.freeze()
            }
        }
    }

    fn into_body(self) -> Body {
        if self.is_whole { Body::from(self.whole()) } else { Body::stream(self.resumed()) }
    }

    fn resumed(self) -> Resumed {
        Resumed { begun: self.begun, rest: self.rest }
    }
}

/// A stream's opening, until its first event is here.
#[derive(Default)]
struct Opening {
    bytes: Vec<u8>,
    searched: usize,
    event: Option<std::ops::Range<usize>>,
}

impl Opening {
    /// True as long as the first event is not whole.
    fn push(&mut self, bytes: &Bytes) -> bool {
        self.bytes.extend_from_slice(bytes);
        while let Some(length) = memchr::memchr(b'\n', &self.bytes[self.searched..]) {
            let line = self.searched..self.searched + length;
            self.searched = line.end + 1;
            if self.bytes[line.clone()].starts_with(b"data:") {
                self.event = Some(line.start + 5..line.end);
                return false;
            }
        }
        self.bytes.len() <= OPENING_BYTES
    }

    fn event(&self) -> Option<&[u8]> {
        self.bytes.get(self.event.clone()?)
    }
}
