//! One call on an HTTP/2 connection: it ends where its client takes nothing of its reply, though the connection goes on.
//!
//! A client holds up a stream by giving it no window; the connection's bytes flow on, so its socket cannot tell. hyper
//! drives each stream as a task of its own and polls the reply's body only when there is window for it. A body that gave a
//! piece and is not polled again is therefore held up by its client, and one that was polled and had nothing waits for
//! us. [`Served`] notes which of the two it was, and [`Stream`], which is polled around it on the same thread, reads it.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::activity::{InCall, Limits};
use crate::pace::Progress;

/// A reply's body on its way to the client, and the call that ends with it.
#[derive(Debug)]
pub(super) struct Served<B> {
    body: B,
    _call: InCall,
}

/// Drives streams as tasks, each within the limits.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) Limits);

/// A stream's task.
struct Stream<F> {
    inner: Pin<Box<F>>,
    limits: Limits,
    ends_at: Instant,
    /// Begun when the body gave a piece and was not asked for more since.
    held_up: Option<Progress>,
    timer: Pin<Box<Sleep>>,
}

/// What the body that is polled on this thread did last.
#[derive(Clone, Copy)]
enum Did {
    /// So many bytes, since the stream is polled.
    Gave(u64),
    Waited,
}

thread_local! {
    static LAST: Cell<Option<Did>> = const { Cell::new(None) };
}

// === impl Served ===

impl<B> Served<B> {
    pub(super) fn new(body: B, call: InCall) -> Self {
        Self { body, _call: call }
    }
}

impl<B: Body<Data = bytes::Bytes> + Unpin> Body for Served<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let did = match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let before = if let Some(Did::Gave(bytes)) = LAST.get() { bytes } else { 0 };
                Did::Gave(before + frame.data_ref().map_or(0, |data| data.len() as u64))
            }
            _ => Did::Waited,
        };
        LAST.set(Some(did));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Streams ===

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Stream::new(stream, self.0));
    }
}

// === impl Stream ===

impl<F: Future<Output = ()>> Stream<F> {
    fn new(inner: F, limits: Limits) -> Self {
        let ends_at = Instant::now() + limits.call_limit();
        let timer = Box::pin(tokio::time::sleep_until(ends_at));
        Self { inner: Box::pin(inner), limits, ends_at, held_up: None, timer }
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    /// Ends with the stream, or at its limit: dropping the stream resets it, and lets go of its body.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        LAST.set(None);
        if this.inner.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match LAST.take() {
            Some(Did::Gave(bytes)) => this.held_up.get_or_insert_with(Progress::begin).moved(bytes),
            Some(Did::Waited) => this.held_up = None,
            None => {}
        }
        let held_until = this.held_up.as_ref().map(|progress| this.limits.send.deadline(progress));
        let deadline = held_until.map_or(this.ends_at, |held_until| held_until.min(this.ends_at));
        if this.timer.deadline() != deadline {
            this.timer.as_mut().reset(deadline);
        }
        this.timer.as_mut().poll(cx)
    }
}
