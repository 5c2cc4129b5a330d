//! A request's body that is passed on piece by piece, and fails where its client is too slow.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::intake::too_slow;
use crate::body::BoxError;
use crate::pace::{Pace, Progress};

/// See the [module](self).
pub(super) struct Paced<B> {
    body: Pin<Box<B>>,
    pace: Pace,
    progress: Progress,
    /// When the last piece was taken by upstream, unless the client is waited for.
    idle_since: Option<Instant>,
    /// Made when the client is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, pace: Pace) -> Self {
        let (progress, idle_since) = (Progress::begin(), Some(Instant::now()));
        Self { body: Box::pin(body), pace, progress, idle_since, timer: None }
    }
}

impl<B> HttpBody for Paced<B>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        // While upstream takes nothing, the client cannot send.
        if let Some(since) = this.idle_since.take() {
            this.progress.excuse(since.elapsed());
        }
        if let Poll::Ready(polled) = this.body.as_mut().poll_frame(cx) {
            let polled = polled.map(|frame| {
                let frame = frame.map_err(Into::into)?;
                Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            });
            if let Some(Ok(frame)) = &polled {
                this.progress.moved(frame.data_ref().map_or(0, |data| data.len() as u64));
            }
            this.idle_since = Some(Instant::now());
            return Poll::Ready(polled);
        }
        let deadline = this.pace.deadline(&this.progress);
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| Some(Err(too_slow(this.pace, &this.progress).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
