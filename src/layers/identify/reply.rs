//! The last wrapper around a reply: it sees each byte leave, and closes the receipt.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::outcome::ended;
use crate::body::{Body, BoxError};
use crate::payload::Copying;
use crate::receipt::{Outcome, Receipt};

/// The body that a client gets. When its last byte has left, the call's outcome is known; a body that is dropped before
/// that leaves the receipt as it was opened: aborted.
#[derive(Debug)]
pub struct ReplyBody {
    inner: Body,
    receipt: Option<Receipt>,
    outcome: Outcome,
    bytes: u64,
    copying: Option<Box<Copying>>,
}

impl ReplyBody {
    pub(super) fn new(inner: Body, receipt: Receipt, outcome: Outcome, copying: Option<Copying>) -> Self {
        let copying = copying.map(Box::new);
        let mut body = Self { inner, receipt: Some(receipt), outcome, bytes: 0, copying };
        if body.inner.is_end_stream() {
            body.close(outcome);
        }
        body
    }

    /// A reply that is no call's: passed through, or refused before a call was known.
    pub(crate) fn unmetered(inner: Body) -> Self {
        Self { inner, receipt: None, outcome: Outcome::Ok, bytes: 0, copying: None }
    }

    fn close(&mut self, outcome: Outcome) {
        if let Some(receipt) = self.receipt.take() {
            let copied = self.copying.take().map(|copying| copying.finish());
            receipt.note(|facts| {
                facts.reply_bytes = self.bytes;
                facts.outcome = ended(outcome, facts, self.bytes);
                if let (Some(payload), Some(part)) = (&mut facts.payload, copied) {
                    payload.response = part;
                }
            });
        }
    }
}

impl Default for ReplyBody {
    /// An empty one, of no call.
    fn default() -> Self {
        Self::unmetered(Body::empty())
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    if let Some(copying) = &mut self.copying {
                        copying.push(data);
                    }
                }
                // A server that knows the length does not ask again after the last byte.
                if self.inner.is_end_stream() {
                    let outcome = self.outcome;
                    self.close(outcome);
                }
            }
            Some(Err(_)) => self.close(Outcome::UpstreamError),
            None => {
                let outcome = self.outcome;
                self.close(outcome);
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.close(Outcome::Aborted);
    }
}
