//! A body that fails when nothing comes for too long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BoxError};

/// Longer than anyone waits, and no more than a clock can tell.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Fails a body when `timeout` passes between two of its pieces. Bytes that are all here already cannot be late.
pub(super) fn limit(body: Body, timeout: Duration) -> Body {
    if body.is_end_stream() || body.as_bytes().is_some() {
        return body;
    }
    Body::stream(IdleLimited { inner: body, timeout: timeout.min(LONGEST), timer: None, armed: false })
}

struct IdleLimited {
    inner: Body,
    timeout: Duration,
    /// Made when a piece is first waited for; many replies are here at once.
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer runs for the piece that is waited for now.
    armed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("nothing came from upstream for {0:?} ([upstream] idle_timeout)")]
struct Idle(Duration);

impl HttpBody for IdleLimited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(polled) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.armed = false;
            return Poll::Ready(polled);
        }
        let timeout = this.timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if !this.armed {
            timer.as_mut().reset(Instant::now() + timeout);
            this.armed = true;
        }
        timer.as_mut().poll(cx).map(|()| Some(Err(Idle(timeout).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_fails_in_time() {
        let stalled =
            http_body_util::StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>());
        let begun = Instant::now();
        let error = limit(Body::stream(stalled), Duration::from_secs(60)).collect().await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        assert!(error.to_string().contains("idle_timeout"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_timeout_there_is_breaks_nothing() {
        let pieces = futures_util::stream::once(async {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"late")))
        });
        let body = Body::stream(http_body_util::StreamBody::new(pieces));
        assert_eq!(limit(body, Duration::MAX).collect().await.unwrap().to_bytes(), "late");
    }
}
