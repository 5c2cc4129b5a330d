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
    /// It broke off, and that is told with the next poll.
    broken: Option<BoxError>,
}

impl ReplyBody {
    pub(super) fn new(inner: Body, receipt: Receipt, outcome: Outcome, copying: Option<Copying>) -> Self {
        let copying = copying.map(Box::new);
        let mut body = Self { inner, receipt: Some(receipt), outcome, bytes: 0, copying, broken: None };
        if body.inner.is_end_stream() {
            body.close(outcome);
        }
        body
    }

    /// A reply that is no call's: passed through, or refused before a call was known.
    pub(crate) fn unmetered(inner: Body) -> Self {
        Self { inner, receipt: None, outcome: Outcome::Ok, bytes: 0, copying: None, broken: None }
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
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        let polled = match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Err(broken)) => {
                self.close(Outcome::UpstreamError);
                // A server that hears of it drops what it has not written yet, the reply's head with it. While a body is
                // pending it writes.
                self.broken = Some(broken);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            polled => polled,
        };
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
            _ => {
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

#[cfg(all(test, feature = "sidecar"))]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::{Request, Response};
    use http_body_util::StreamBody;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_came_before_a_break_leaves_before_it() {
        let (mut client, server) = tokio::io::duplex(4096);
        let serve = service_fn(|_: Request<hyper::body::Incoming>| async {
            let pieces = [Ok(Frame::data(Bytes::from_static(b"data: one\n\n"))), Err(BoxError::from("broken"))];
            let body = Body::stream(StreamBody::new(stream::iter(pieces)));
            Ok::<_, Infallible>(Response::new(ReplyBody::unmetered(body)))
        });
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), serve);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(served.await.is_err(), "the connection is cut");
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.contains("data: one"), "{reply:?}");
        assert!(!reply.ends_with("0\r\n\r\n"), "it does not look whole: {reply:?}");
    }
}
