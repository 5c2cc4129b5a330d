//! A request's body on its way in, of which nothing is left lying when it was refused.
//!
//! A socket that is closed with unread bytes in it takes back what it has sent: a client that is still sending when it is
//! refused would see a reset and not the reason. So the rest of a body that its reader has dropped is read and thrown away for
//! a while, as nginx does (`lingering_close`).
//!
//! A client that waits for `100 Continue` has sent nothing, and is not asked to: a body that nobody looked at is only read out
//! where it was not announced so.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// See the [module](self).
#[derive(Debug)]
pub(in crate::sidecar) struct Upload {
    /// `None` once its rest has nobody to read it.
    body: Option<Incoming>,
    linger: Duration,
    /// The client sends nothing before it is asked to, and was not yet.
    is_held_back: bool,
}

/// How long a client may pause while the rest of its body is read, as nginx's `lingering_timeout`.
const PAUSE: Duration = Duration::from_secs(5);
/// More than this is not read only to be thrown away.
const MOST_BYTES: usize = 64 << 20;

impl Upload {
    /// Its rest is read for as long as `linger`.
    pub(super) fn new(body: Incoming, headers: &HeaderMap, linger: Duration) -> Self {
        let is_held_back =
            headers.get(header::EXPECT).is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { body: Some(body), linger, is_held_back }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        this.is_held_back = false;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if self.is_held_back || self.linger.is_zero() {
            return;
        }
        // Outside a runtime nothing is served any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(self.linger, throw_away(body)));
        }
    }
}

/// Reads to the end, to the most that is read, or to the first long pause.
async fn throw_away(mut body: Incoming) {
    let mut read = 0;
    while read < MOST_BYTES {
        match timeout(PAUSE, body.frame()).await {
            Ok(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}
