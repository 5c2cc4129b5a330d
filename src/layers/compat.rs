//! Turns the native chunk that closes some `/v1` streams into OpenAI's form.
//!
//! Some models end a stream of OpenAI chunks with one of the vendor's own, `{"response":"","usage":{…}}`. It has no
//! `choices`, and strict clients fail on it. This layer rewrites that one event; every other byte passes as it came.
//!
//! # What it does not do
//! It is off unless `[compat] openai_streams` is set, and it leaves native routes and replies that are no streams alone.
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
//!     let events = "data: {\"id\":\"x\",\"choices\":[]}\n\ndata: {\"response\":\"\",\"usage\":{\"prompt_tokens\":3}}\n\n";
//!     let reply = Response::builder().header("content-type", "text/event-stream").body(Body::from(events));
//!     Ok::<_, tollgate::Error>(reply.unwrap())
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = identify::Settings::default();
//! (settings.account, settings.has_token) = (Some("023e".into()), true);
//! let mut compat = CompatLayer::default();
//! compat.openai_streams = true;
//! let stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(settings, rest))
//!     .layer(compat)
//!     .service(vendor);
//!
//! let request = Request::post("/v1/chat/completions");
//! let request = request.body(Body::from(r#"{"model": "@cf/meta/llama-3.2-1b-instruct", "messages": [], "stream": true}"#));
//! let reply = stack.oneshot(request.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
//! assert!(!reply.windows(8).any(|bytes| bytes == b"response"));
//! # });
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header;
use http_body::{Body as HttpBody, Frame};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower::{Layer, Service};

use super::{Relayed, Reply};
use crate::Error;
use crate::body::{Body, BoxError};
use crate::call::Call;

/// Applies [`Compat`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CompatLayer {
    /// Rewrite the closing chunk.
    pub openai_streams: bool,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Compat<S> {
    inner: S,
    openai_streams: bool,
}

impl<S> Layer<S> for CompatLayer {
    type Service = Compat<S>;

    fn layer(&self, inner: S) -> Compat<S> {
        Compat { inner, openai_streams: self.openai_streams }
    }
}

// === impl Compat ===

impl<S> Service<Call> for Compat<S>
where
    S: Service<Call, Response = Reply, Error = Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = Relayed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let applies = self.openai_streams && call.stream && !call.endpoint.is_native();
        let reply = self.inner.call(call);
        if !applies {
            return Relayed::inner(reply);
        }
        Relayed::own(async move {
            let reply = reply.await?;
            let content_type = reply.headers().get(header::CONTENT_TYPE);
            let is_events = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
            Ok(if is_events { reply.map(|body| Body::stream(Rewritten::new(body))) } else { reply })
        })
    }
}

/// A stream whose closing native chunk is rewritten. Only the line at hand is held back.
struct Rewritten {
    inner: Body,
    line: BytesMut,
    /// The latest OpenAI chunk, for the fields that the closing one must repeat.
    latest: Bytes,
    ended: bool,
}

/// A line longer than this is passed on in pieces, as it is.
const MAX_LINE_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    created: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

impl Rewritten {
    fn new(inner: Body) -> Self {
        Self { inner, line: BytesMut::new(), latest: Bytes::new(), ended: false }
    }

    /// What can be passed on now that these bytes are here: whole lines.
    fn push(&mut self, bytes: &[u8]) -> Bytes {
        self.line.extend_from_slice(bytes);
        let whole = match memchr::memrchr(b'\n', &self.line) {
            Some(end) => self.line.split_to(end + 1).freeze(),
            None if self.line.len() > MAX_LINE_BYTES => return self.line.split().freeze(),
            None => return Bytes::new(),
        };
        let mut out = BytesMut::new();
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            match self.rewrite(line) {
                Some(rewritten) => out.extend_from_slice(rewritten.as_bytes()),
                None => out.extend_from_slice(line),
            }
        }
        out.freeze()
    }

    fn rewrite(&mut self, line: &[u8]) -> Option<String> {
        let data = line.strip_prefix(b"data:")?;
        let chunk: Chunk<'_> = serde_json::from_slice(data).ok()?;
        if chunk.choices.is_some() {
            self.latest = Bytes::copy_from_slice(data);
            return None;
        }
        let usage = chunk.usage.filter(|_| chunk.response.is_some())?;
        let latest = serde_json::from_slice::<Chunk<'_>>(&self.latest).ok();
        let value = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        let closing = json!({
            "id": value(latest.as_ref().and_then(|chunk| chunk.id)),
            "object": "chat.completion.chunk",
            "created": value(latest.as_ref().and_then(|chunk| chunk.created)),
            "model": value(latest.as_ref().and_then(|chunk| chunk.model)),
            "choices": [],
            "usage": value(Some(usage)),
        });
        let end = if line.ends_with(b"\r\n") { "\r\n" } else { "\n" };
        Some(format!("data: {closing}{end}"))
    }
}

impl HttpBody for Rewritten {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.ended {
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
                self.ended = true;
                break;
            };
            let Ok(bytes) = frame?.into_data() else { continue };
            let out = self.push(&bytes);
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
        // A last line without its line break.
        let rest = self.line.split().freeze();
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"id\":\"x\",\"created\":7,\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"response\":\"\",\"usage\":{\"prompt_tokens\":147}}\n\ndata: [DONE]\n\n";

    #[test]
    fn the_closing_chunk_becomes_openais_at_every_split() {
        for at in 0..STREAM.len() {
            let mut body = Rewritten::new(Body::empty());
            let mut out = body.push(&STREAM.as_bytes()[..at]).to_vec();
            out.extend_from_slice(&body.push(&STREAM.as_bytes()[at..]));
            let out = String::from_utf8(out).unwrap();
            let lines: Vec<_> = out.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(lines.len(), 3, "{out}");
            let closing: Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!((&closing["id"], &closing["choices"]), (&json!("x"), &json!([])));
            assert_eq!(closing["usage"]["prompt_tokens"], 147);
            assert_eq!(lines[2], "data: [DONE]");
        }
    }
}
