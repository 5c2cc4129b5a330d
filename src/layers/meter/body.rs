//! A reply's body while the meter reads along.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::bill::HeadWord;
use super::opening::Opening;
use super::settle::settle;
use crate::body::{Body, BoxError};
use crate::call::Call;
use crate::receipt::Ending;
use crate::reply::Reader;

/// Hands on what was already taken in, then the rest as it comes.
#[derive(Debug)]
pub(super) struct Resumed {
    begun: VecDeque<Bytes>,
    rest: Body,
}

impl Resumed {
    pub(super) fn new(opening: Opening) -> Self {
        Self { begun: opening.begun, rest: opening.rest }
    }
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.begun.pop_front() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let begun: u64 = self.begun.iter().map(|bytes| bytes.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(begun));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(begun)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Hands on each piece as it comes and reads it. When the reply ends, or is dropped, the call is settled: for what was said by
/// then, or for what flowed.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Resumed,
    /// It has read what `inner` has of the beginning.
    reader: Reader,
    head: HeadWord,
    has_ended: bool,
    /// Taken when it is settled.
    call: Option<Call>,
}

impl Metered {
    /// Goes on with a reply whose beginning the reader has read.
    pub(super) fn new(opening: Opening, reader: Reader, head: HeadWord, mut call: Call) -> Self {
        // A stream may last for minutes; the request has done its work, and its headers hold the buffer they came in.
        (call.body, call.decoded) = (Bytes::new(), None);
        call.head = Arc::default();
        Self { inner: Resumed::new(opening), reader, head, has_ended: false, call: Some(call) }
    }

    /// Notes on the receipt that the reply has said its own end, so that the cache, which holds the receipt too, learns of it at
    /// once.
    fn note_ending(&mut self) {
        let ending = self.reader.ending();
        if ending == Ending::Open || std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let code = self.reader.error().and_then(|error| error.code);
        if let Some(call) = &self.call {
            call.receipt.note(|facts| {
                facts.ending = ending;
                if let Some(attempt) = facts.attempts.last_mut() {
                    attempt.code = attempt.code.or(code);
                }
            });
        }
    }

    fn settle(&mut self, is_over: bool) -> Option<Call> {
        let call = self.call.take()?;
        if is_over {
            self.reader.finish();
        } else {
            self.reader.give_up();
        }
        settle(&call, &self.reader, &self.head);
        Some(call)
    }

    fn end(&mut self, is_over: bool) -> Option<Result<Frame<Bytes>, BoxError>> {
        let comment = self.settle(is_over).as_ref().and_then(Self::closing_comment);
        comment.map(|comment| Ok(Frame::data(comment)))
    }

    /// A comment, which every client of a stream skips, for callers who asked to be told the cost.
    fn closing_comment(call: &Call) -> Option<Bytes> {
        if !wants_comment(call) {
            return None;
        }
        let cost = call.receipt.read(|facts| facts.cost);
        let source = cost.source.label().unwrap_or("none");
        Some(format!(": tollgate neurons={} cost_usd={:.9} source={source}\n\n", cost.neurons, cost.usd()).into())
    }
}

fn wants_comment(call: &Call) -> bool {
    call.options.stream_cost && call.stream
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let is_read = !self.inner.begun.is_empty();
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref().filter(|_| !is_read) {
                    self.reader.push(bytes);
                }
                if self.inner.begun.is_empty() {
                    self.note_ending();
                }
                // A body of known length is dropped when its last byte is out, without being asked for more.
                if self.inner.is_end_stream() && self.call.as_ref().is_some_and(|call| !wants_comment(call)) {
                    self.settle(true);
                }
            }
            // What has come to its own end is all there, however the connection ends.
            Some(Err(_)) if self.reader.ending() != Ending::Open => return Poll::Ready(self.end(false)),
            Some(Err(_)) => {
                if let Some(call) = self.settle(false) {
                    call.receipt.note(|facts| facts.ending = Ending::CUT_OFF);
                }
            }
            None => return Poll::Ready(self.end(true)),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // The comment is not counted: it is for streams, whose length nobody knows.
        self.inner.size_hint()
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let is_over = self.inner.is_end_stream();
        self.settle(is_over);
    }
}
