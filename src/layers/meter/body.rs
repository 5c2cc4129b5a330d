//! A reply's body while the meter reads along.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::bill::{self, HeadWord};
use super::events::Events;
use super::scan::Scanner;
use super::tally::Tally;
use crate::body::{Body, BoxError};
use crate::call::Call;

/// Hands on what was already taken in, then the rest as it comes.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) begun: VecDeque<Bytes>,
    pub(super) rest: Body,
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

/// Hands on each piece as it comes and reads the usage off it. When the body ends, or is dropped, the call is settled: for
/// what was said by then, or for what flowed.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Resumed,
    reading: Reading,
    tally: Tally,
    head: HeadWord,
    /// Taken when it is settled.
    call: Option<Call>,
}

#[derive(Debug)]
pub(super) enum Reading {
    Events(Events),
    Document(Scanner),
}

impl Metered {
    pub(super) fn new(inner: Resumed, reading: Reading, head: HeadWord, mut call: Call) -> Self {
        // A stream may last for minutes; the request has done its work, and its headers hold the buffer they came in.
        (call.body, call.decoded) = (Bytes::new(), None);
        call.head = Arc::default();
        Self { inner, reading, tally: Tally::default(), head, call: Some(call) }
    }

    fn read(&mut self, bytes: &[u8]) {
        match &mut self.reading {
            Reading::Events(events) => events.push(bytes, &mut self.tally),
            Reading::Document(scanner) => scanner.push(bytes),
        }
    }

    fn settle(&mut self, whole: bool) -> Option<Call> {
        let call = self.call.take()?;
        let is_cut = match &mut self.reading {
            Reading::Events(events) => {
                events.finish(&mut self.tally);
                !whole && !events.done
            }
            Reading::Document(scanner) => {
                self.tally.add(scanner.finish());
                // The head tells the cost of the whole.
                !whole && self.head.neurons.is_none()
            }
        };
        bill::settle(&call, &self.tally, self.head, whole);
        if is_cut {
            call.receipt.note(|facts| facts.cost.is_partial = true);
        }
        Some(call)
    }

    /// A comment, which every client of a stream skips, for callers who asked to be told the cost.
    fn closing_comment(call: &Call) -> Option<Bytes> {
        if !call.options.stream_cost || !call.stream {
            return None;
        }
        let cost = call.receipt.read(|facts| facts.cost);
        let source = cost.source.label().unwrap_or("none");
        Some(format!(": tollgate neurons={} cost_usd={:.9} source={source}\n\n", cost.neurons, cost.usd()).into())
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    let bytes = bytes.clone();
                    self.read(&bytes);
                }
            }
            Some(Err(_)) => drop(self.settle(false)),
            None => {
                let comment = self.settle(true).as_ref().and_then(Self::closing_comment);
                return Poll::Ready(comment.map(|comment| Ok(Frame::data(comment))));
            }
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
        // A body of known length is dropped when its last byte is out, without being asked for more.
        let whole = self.inner.is_end_stream();
        self.settle(whole);
    }
}
