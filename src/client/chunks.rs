//! An answer in pieces, as it is written.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::{Response, header};
use http_body::Body as _;
use serde::Deserialize;
use serde_json::Value;

use super::events::Events;
use super::{Failure, Pending};
use crate::layers::identify::ReplyBody;
use crate::receipt::Facts;
use crate::vendor_error::VendorError;

/// A piece of an answer. Models write in the vendor's shape or in OpenAI's; both come out the same.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Chunk {
    /// What was written; may be empty.
    pub text: String,
    /// What a reasoning model thought; billed as output.
    pub reasoning: String,
    /// Parts of calls of tools, as they came.
    pub tool_calls: Vec<Value>,
    /// Why it ended, on the piece that says so.
    pub finish_reason: Option<String>,
    /// The vendor's usage, on the pieces that have one. How to add these up is the meter's matter: see
    /// [`Chunks::receipt`].
    pub usage: Option<Value>,
}

/// The pieces of an answer, as a stream. Dropping it ends the call, which is charged what flowed.
#[derive(Debug)]
pub struct Chunks {
    /// Gone after the last piece.
    body: Option<ReplyBody>,
    /// Some models answer the wish for a stream with plain JSON.
    is_events: bool,
    events: Events,
    ready: VecDeque<Result<Chunk, Failure>>,
    pending: Option<Pending>,
    receipt: Option<Box<Facts>>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    response: Option<Value>,
    #[serde(default)]
    tool_calls: Option<Vec<Value>>,
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    result: Option<Box<Event>>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default, alias = "message")]
    delta: Delta,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Value>>,
}

// === impl Chunks ===

impl Chunks {
    pub(super) fn new(reply: Response<ReplyBody>, pending: Pending) -> Self {
        let kind = reply.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        Self {
            is_events: kind.starts_with("text/event-stream"),
            body: Some(reply.into_body()),
            events: Events::default(),
            ready: VecDeque::new(),
            pending: Some(pending),
            receipt: None,
        }
    }

    /// The call's sealed receipt, after the last piece.
    pub fn receipt(&self) -> Option<&Facts> {
        self.receipt.as_deref()
    }

    /// Reads until something is ready or all has been read.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(body) = &mut self.body
            && self.ready.is_empty()
        {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => self.take_in(&frame.into_data().unwrap_or_default()),
                Some(Err(why)) => self.end(Some(Failure::broken(why.to_string(), None))),
                None => {
                    let rest = if self.is_events { self.events.rest() } else { self.events.all() };
                    if let Some(data) = rest {
                        self.take(&data);
                    }
                    self.end(None);
                }
            }
        }
        Poll::Ready(())
    }

    fn take_in(&mut self, bytes: &Bytes) {
        if !self.events.push(bytes) {
            self.end(Some(Failure::unexpected("an event without an end".into(), None)));
        }
        while self.is_events
            && self.body.is_some()
            && let Some(data) = self.events.next()
        {
            self.take(&data);
        }
    }

    fn take(&mut self, data: &[u8]) {
        if data == b"[DONE]" {
            return;
        }
        if let Some(error) = VendorError::in_event(data) {
            return self.end(Some(Failure::broken(error.message, None)));
        }
        match serde_json::from_slice::<Event>(data) {
            Ok(event) => self.ready.push_back(Ok(event.chunk())),
            Err(why) => self.end(Some(Failure::unexpected(format!("an event that is no JSON: {why}"), None))),
        }
    }

    /// Lets go of the body, which seals the receipt.
    fn end(&mut self, failure: Option<Failure>) {
        self.body = None;
        self.ready.extend(failure.map(Err));
    }
}

impl Stream for Chunks {
    type Item = Result<Chunk, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ready.is_empty() {
            ready!(self.poll_body(cx));
        }
        match self.ready.pop_front() {
            Some(Err(failure)) => {
                // Where it is not sealed by now, others read the same call on.
                let receipt = self.pending.take().and_then(|mut pending| pending.try_recv().ok());
                Poll::Ready(Some(Err(failure.with(receipt))))
            }
            Some(chunk) => Poll::Ready(Some(chunk)),
            None => {
                if let Some(pending) = &mut self.pending {
                    self.receipt = ready!(Pin::new(pending).poll(cx)).ok().map(Box::new);
                    self.pending = None;
                }
                Poll::Ready(None)
            }
        }
    }
}

// === impl Event ===

impl Event {
    fn chunk(self) -> Chunk {
        let mut chunk = self.result.map(|result| result.chunk()).unwrap_or_default();
        chunk.text.push_str(&self.response.map(words).unwrap_or_default());
        chunk.tool_calls.extend(self.tool_calls.unwrap_or_default());
        chunk.usage = self.usage.or(chunk.usage);
        for choice in self.choices {
            let delta = choice.delta;
            chunk.text.push_str(&delta.content.or(choice.text).unwrap_or_default());
            chunk.reasoning.push_str(&delta.reasoning_content.or(delta.reasoning).unwrap_or_default());
            chunk.tool_calls.extend(delta.tool_calls.unwrap_or_default());
            chunk.finish_reason = choice.finish_reason.or(chunk.finish_reason);
        }
        chunk
    }
}

fn words(response: Value) -> String {
    match response {
        Value::String(words) => words,
        Value::Null => String::new(),
        json => json.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(json: &str) -> Chunk {
        serde_json::from_str::<Event>(json).unwrap().chunk()
    }

    #[test]
    fn every_shape_comes_out_the_same() {
        for json in [
            r#"{"response":"sky","p":"abc"}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"sky","reasoning_content":null}}],"object":"chat.completion.chunk"}"#,
            r#"{"choices":[{"index":0,"text":"sky"}]}"#,
            r#"{"result":{"response":"sky"},"success":true,"errors":[]}"#,
            r#"{"result":{"choices":[{"message":{"role":"assistant","content":"sky"}}]}}"#,
        ] {
            assert_eq!(chunk(json).text, "sky", "{json}");
        }
        assert_eq!(chunk(r#"{"choices":[{"delta":{"reasoning":"hm"},"finish_reason":"stop"}]}"#).reasoning, "hm");
        assert!(chunk(r#"{"choices":[],"usage":{"prompt_tokens":3}}"#).usage.is_some());
        assert_eq!(chunk(r#"{"response":null,"usage":null}"#), Chunk::default());
    }

    proptest::proptest! {
        #[test]
        fn no_stream_breaks_it(bytes in proptest::collection::vec(proptest::sample::select(b"data: \n\r{}[]\":,response1".to_vec()), 0..200), is_events: bool) {
            let mut reply = Response::new(ReplyBody::unmetered(crate::body::Body::from(bytes)));
            let kind = if is_events { "text/event-stream" } else { "application/json" };
            reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
            let mut chunks = Chunks::new(reply, tokio::sync::oneshot::channel().1);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(_)) = Pin::new(&mut chunks).poll_next(&mut cx) {}
            proptest::prop_assert!(matches!(Pin::new(&mut chunks).poll_next(&mut cx), Poll::Ready(None)));
        }
    }
}
