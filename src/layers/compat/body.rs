//! The body of a stream whose events are mended as they pass.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};

use super::chunks::Chunks;
use super::events::{Events, Verdict, event_of};
use super::messages::Messages;
use super::responses;
use crate::body::{Body, BoxError};
use crate::openai::completions;
use crate::sse::Event;

/// Which events are judged by what.
#[derive(Debug)]
pub(super) enum Judge {
    Chat(Box<Chunks>),
    /// A chat's, told as a completion's.
    Completion(Box<Chunks>),
    Responses,
    /// Anthropic's.
    Messages(Box<Messages>),
}

/// Hands an event on as soon as it is whole.
#[derive(Debug)]
pub(super) struct Mended {
    inner: Body,
    events: Events,
    judge: Judge,
    has_ended: bool,
}

impl Judge {
    pub(super) fn judge(&mut self, event: &Event) -> Verdict {
        match self {
            Self::Chat(chunks) => chunks.judge(event),
            Self::Completion(chunks) => completion(event, chunks.judge(event)),
            Self::Responses => responses::judge(event),
            Self::Messages(messages) => messages.judge(event),
        }
    }
}

/// What becomes of an event that is told so in a chat.
fn completion(event: &Event, verdict: Verdict) -> Verdict {
    let told = match &verdict {
        Verdict::Left => return verdict,
        Verdict::Same => &event.raw[..],
        Verdict::Bytes(told) => told,
    };
    let mut out = BytesMut::new();
    for event in String::from_utf8_lossy(told).split_inclusive("\n\n") {
        match event.strip_prefix("data:").and_then(completions::made) {
            Some(made) => out.extend_from_slice(&event_of(&made)),
            None => out.extend_from_slice(event.as_bytes()),
        }
    }
    Verdict::Bytes(out)
}

impl Mended {
    pub(super) fn new(inner: Body, judge: Judge) -> Self {
        Self { inner, events: Events::default(), judge, has_ended: false }
    }
}

impl HttpBody for Mended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        while !this.has_ended {
            let out = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(frame) => {
                    let Ok(bytes) = frame?.into_data() else { continue };
                    this.events.push(bytes, |event| this.judge.judge(event))
                }
                None => {
                    this.has_ended = true;
                    this.events.finish(|event| this.judge.judge(event))
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
        Poll::Ready(None)
    }
}
