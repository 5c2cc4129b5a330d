//! Gives the short routes `/v1/…` what OpenAI's documentation promises.
//!
//! The vendor's replies on OpenAI's routes differ from OpenAI's in many small things, and with each model in others: usage in
//! every chunk, a closing chunk of the vendor's own, content that is an object, refusals in an envelope. A call that came to
//! [`Face::OpenAi`](crate::openai::Face::OpenAi) has its reply mended here, outside all that keeps or counts; on the vendor's own paths every byte passes
//! as it came.
//!
//! A stream's event is passed on as soon as it is whole; one that needs no mending is neither copied nor, where it is like the
//! one before, read. What the gate has to say itself, such as usage that the vendor does not tell, is marked by the field
//! `x_tollgate`.
//!
//! # What it does not do
//! It changes no request, and asks the vendor for nothing more than the client did.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::layers::{compat::CompatLayer, identify};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let vendor = service_fn(|_: Call| async {
//!     let events = "data: {\"response\":\"Hi\",\"p\":\"abc\"}\n\ndata: {\"response\":\"\",\"usage\":{\"prompt_tokens\":3}}\n\n\
//!         data: [DONE]\n\n";
//!     let reply = Response::builder().header("content-type", "text/event-stream").body(Body::from(events));
//!     Ok::<_, tollgate::Error>(reply.unwrap())
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = identify::Settings::default();
//! (settings.account, settings.has_token) = (Some("023e".into()), true);
//! let compat = CompatLayer::new(settings.openai);
//! let stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(settings, rest))
//!     .layer(compat)
//!     .service(vendor);
//!
//! let request = Request::post("/v1/chat/completions");
//! let request = request.body(Body::from(r#"{"model": "@cf/meta/llama-3.2-1b-instruct", "messages": [], "stream": true}"#));
//! let reply = stack.oneshot(request.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
//! let reply = std::str::from_utf8(&reply).unwrap();
//! assert!(reply.contains(r#""delta":{"content":"Hi","role":"assistant"}"#) && !reply.contains("response"));
//! # });
//! ```

mod begun;
mod body;
mod chat;
mod chunks;
mod embeddings;
mod errors;
mod events;
mod frame;
mod message;
mod messages;
mod responses;
#[cfg(test)]
mod tests;
mod tool_calls;
mod usage;

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use tower::{Layer, Service};

use self::body::{Judge, Mended};
use self::chunks::{Chunks, Stamp};
use super::inner::{Inner, InnerFuture, access};
use super::{Relayed, Reply};
use crate::Error;
use crate::body::Body;
use crate::call::Call;
use crate::headers::is_json;
use crate::memory::{Memory, SMALL_BYTES, Share};
use crate::openai::object::Object;
use crate::openai::{self, Answer, Settings, completions};
use crate::vendor_error::{Meaning, VendorError};

/// Applies [`Compat`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CompatLayer {
    settings: Settings,
    /// What large replies take a part of while they are mended; by default without a bound.
    pub memory: Memory,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Compat<S> {
    inner: Inner<S>,
    settings: Settings,
    memory: Memory,
}

/// A reply that is not streamed is taken in to be mended; no model's is larger than this.
const MAX_WHOLE_BYTES: usize = 64 << 20;

impl CompatLayer {
    /// With the settings that the door has, which decides who came to which face.
    pub fn new(settings: Settings) -> Self {
        Self { settings, memory: Memory::default() }
    }
}

impl<S> Layer<S> for CompatLayer {
    type Service = Compat<S>;

    fn layer(&self, inner: S) -> Compat<S> {
        Compat { inner: Inner(inner), settings: self.settings, memory: self.memory.clone() }
    }
}

// === impl Compat ===

access!(Compat);

impl<S> Service<Call> for Compat<S>
where
    S: Service<Call, Response = Reply>,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = Relayed<InnerFuture<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let Some(answer) = call.face.answer() else { return Relayed::inner(self.inner.call(call)) };
        let request = if answer.is_converted() { call.body.clone() } else { Bytes::new() };
        let (stamp, settings) = (stamp(&call), self.settings);
        let memory = self.memory.clone();
        let mending = Mending { answer, is_stream: call.stream, request, stamp, settings, memory };
        let reply = self.inner.call(call);
        Relayed::own(async move { mending.reply(reply.await?).await })
    }
}

/// What is to be made of a call's reply.
struct Mending {
    answer: Answer,
    /// A stream was asked for.
    is_stream: bool,
    /// What was sent, where the reply is made of it, too.
    request: Bytes,
    stamp: Stamp,
    settings: Settings,
    memory: Memory,
}

/// What a reply that is not said to be a stream turns out to be.
enum Unlabelled {
    Stream(Reply),
    Document(http::response::Parts, Body),
}

fn stamp(call: &Call) -> Stamp {
    let (id, received_at) = call.receipt.read(|facts| (facts.id, facts.received_at));
    let created = received_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Stamp { id: format!("chatcmpl-{id}"), created, model: call.model.clone(), read: call.ask.text }
}

impl Stamp {
    /// A reply of which another is to be made.
    fn reply<'a>(&'a self, body: &'a [u8], is_json: bool, request: &'a [u8]) -> openai::NativeReply<'a> {
        openai::NativeReply {
            body,
            is_json,
            request,
            model: &self.model.id,
            id: self.id.trim_start_matches("chatcmpl-"),
            created: self.created,
            likely_tokens: self.model.tokens.input_tokens(&self.read),
        }
    }
}

impl Mending {
    async fn reply(self, reply: Reply) -> Result<Reply, Error> {
        let is_stream = is_kind(reply.headers(), |kind| kind.starts_with("text/event-stream"));
        if reply.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            // Upstream is asked for none; what comes in one all the same cannot be read.
            return Ok(reply);
        }
        // A response that ran into its limit is OpenAI's `incomplete`, and no error to a client.
        let told = reply.extensions().get::<VendorError>().filter(|error| error.meaning != Meaning::Incomplete);
        let is_refusal = !reply.status().is_success() || told.is_some();
        let (head, body) = reply.into_parts();
        if is_stream && !is_refusal {
            return Ok(Reply::from_parts(without_length(head), self.stream(body)));
        }
        if is_stream {
            // Its first event told the error, which the meter has read.
            return Ok(errors::reply(head, &Bytes::new(), self.answer.error_form(), self.settings.budget_status));
        }
        let (head, body) = match self.unlabelled_stream(head, body, is_refusal).await? {
            Unlabelled::Stream(reply) => return Ok(reply.map(|body| self.stream(body))),
            Unlabelled::Document(head, body) => (head, body),
        };
        let is_json = is_kind(&head.headers, is_json);
        if let (Answer::Speech { format }, false, false) = (self.answer, is_refusal, is_json) {
            let mut head = head;
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            return Ok(Reply::from_parts(head, body));
        }
        if !is_refusal && !is_json && !self.answer.is_converted() {
            return Ok(Reply::from_parts(head, body));
        }
        let whole = take_in(body, &self.memory).await?;
        let is_error = |error: &VendorError| error.meaning != Meaning::Incomplete;
        if is_refusal || is_json && VendorError::in_event(&whole.bytes).as_ref().is_some_and(is_error) {
            return Ok(errors::reply(head, &whole.bytes, self.answer.error_form(), self.settings.budget_status));
        }
        if !self.answer.is_converted() {
            return Ok(self.whole(head, whole));
        }
        let converted = self.answer.converted(&self.stamp.reply(&whole.bytes, is_json, &self.request));
        let Some(converted) = converted else { return Ok(as_it_is(head, whole)) };
        let mut head = without_length(head);
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(converted.content_type));
        Ok(Reply::from_parts(head, whole.become_body(converted.body)))
    }

    /// A stream that was asked for may come under another content type: what begins as no document is one all the same.
    async fn unlabelled_stream(
        &self,
        head: http::response::Parts,
        body: Body,
        is_refusal: bool,
    ) -> Result<Unlabelled, Error> {
        if !self.is_stream || is_refusal {
            return Ok(Unlabelled::Document(head, body));
        }
        let (is_document, body) = begun::is_document(body).await.map_err(|why| broken(&why.to_string()))?;
        if is_document {
            return Ok(Unlabelled::Document(head, body));
        }
        let mut head = without_length(head);
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(Unlabelled::Stream(Reply::from_parts(head, body)))
    }

    fn stream(self, body: Body) -> Body {
        let judge = match self.answer {
            Answer::Chat { usage_asked } => {
                Judge::Chat(Box::new(Chunks::new(self.stamp, usage_asked, self.settings.reasoning)))
            }
            Answer::Completion { usage_asked } => {
                let chunks = Chunks::new(self.stamp, usage_asked, self.settings.reasoning);
                Judge::Completion(Box::new(chunks))
            }
            Answer::Responses => Judge::Responses,
            Answer::Messages => Judge::Messages(Box::new(messages::Messages::new(self.stamp))),
            _ => return body,
        };
        Body::stream(Mended::new(body, judge))
    }

    fn whole(self, head: http::response::Parts, whole: Whole) -> Reply {
        let body = &whole.bytes;
        let mended = match self.answer {
            Answer::Chat { .. } => chat::mend(body, &self.stamp, self.settings.reasoning),
            Answer::Embeddings { is_base64 } => embeddings::mend(body, &self.stamp, is_base64),
            Answer::Completion { .. } => {
                chat::mend(body, &self.stamp, self.settings.reasoning).and_then(|chat| completions::made(&chat))
            }
            Answer::Messages => messages::mend(body, &self.stamp),
            Answer::Responses => responses::mend(body),
            _ => None,
        };
        let Some(mended) = mended else { return as_it_is(head, whole) };
        let mut head = without_length(head);
        let events = match self.answer {
            Answer::Chat { usage_asked } if self.is_stream => chat::as_stream(&mended, usage_asked),
            _ => None,
        };
        let kind = if events.is_some() { "text/event-stream" } else { "application/json" };
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Reply::from_parts(head, whole.become_body(events.unwrap_or(mended)))
    }
}

fn is_kind(headers: &HeaderMap, is_it: impl Fn(&str) -> bool) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(is_it)
}

/// The body's length becomes another.
fn without_length(mut head: http::response::Parts) -> http::response::Parts {
    head.headers.remove(header::CONTENT_LENGTH);
    head
}

/// What is inside of Cloudflare's envelope, where there is one.
fn unwrapped(body: &[u8]) -> Cow<'_, [u8]> {
    let result = Object::read(body).filter(|reply| reply.get("choices").is_none());
    let result = result.and_then(|reply| reply.get("result").map(|result| result.as_bytes().to_vec()));
    result.map_or(Cow::Borrowed(body), Cow::Owned)
}

fn as_it_is(head: http::response::Parts, whole: Whole) -> Reply {
    let bytes = whole.bytes.clone();
    Reply::from_parts(head, whole.become_body(bytes))
}

/// A body that was taken in, with its part of the memory.
struct Whole {
    bytes: Bytes,
    share: Option<Share>,
}

impl Whole {
    /// What was made of it holds the memory instead.
    fn become_body(self, bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        Body::from(match self.share {
            Some(share) => share.hold(bytes),
            None => bytes,
        })
    }
}

async fn take_in(mut body: Body, memory: &Memory) -> Result<Whole, Error> {
    if let Some(bytes) = body.as_bytes() {
        return Ok(Whole { bytes: bytes.clone(), share: None });
    }
    let (mut bytes, mut share) = (BytesMut::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|why| broken(&why.to_string()))?;
        let Ok(piece) = frame.into_data() else { continue };
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_WHOLE_BYTES {
            return Err(broken(&format!("it is over {MAX_WHOLE_BYTES} bytes")));
        }
        if bytes.len() as u64 > SMALL_BYTES {
            take(&mut share, piece.len() as u64, memory)?;
        }
    }
    Ok(Whole { bytes: bytes.freeze(), share })
}

fn broken(why: &str) -> Error {
    Error::Unreachable { host: "upstream".into(), why: format!("the reply broke off: {why}"), was_sent: true }
}

/// Takes so many bytes more of the memory.
fn take(share: &mut Option<Share>, bytes: u64, memory: &Memory) -> Result<(), Error> {
    let full = || Error::Overloaded {
        what: format!(
            "the bodies that are being handled fill the {} bytes that they may (max_body_memory)",
            memory.max_bytes()
        ),
        retry_after: Duration::from_secs(1),
    };
    let more = memory.try_take(bytes).ok_or_else(full)?;
    match share {
        Some(share) => share.merge(more),
        None => *share = Some(more),
    }
    Ok(())
}
