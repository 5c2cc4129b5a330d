//! A reply's body that fails where upstream takes too long over it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::Target;
use crate::body::{Body, BoxError, TooLong};
use crate::pace::LONGEST;

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two pieces.
    idle: Duration,
    /// For what comes first, or for all of it.
    whole: Whole,
}

#[derive(Clone, Copy, Debug)]
enum Whole {
    /// A stream of events has so long until its first event, and no end.
    FirstEvent(Duration),
    /// Any other body has so long until its end, and a second more for each KiB.
    End(Duration),
}

/// The least rate of a body that is no stream of events, in bytes a second, once its time is up.
const MIN_RATE: f64 = 1024.0;

impl Patience {
    /// With a reply that has these headers.
    pub(super) fn of(target: &Target, headers: &HeaderMap) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let is_events = content_type.get(..EVENTS.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(EVENTS));
        let whole = match is_events {
            true => Whole::FirstEvent(target.first_byte_timeout.min(LONGEST)),
            false => Whole::End(target.body_timeout.min(LONGEST)),
        };
        Self { idle: target.idle_timeout.min(LONGEST), whole }
    }
}

const EVENTS: &[u8] = b"text/event-stream";

/// Fails a body that takes longer. Bytes that are all here already cannot be late.
pub(super) fn limit(body: Body, patience: Patience) -> Body {
    if body.is_end_stream() || body.as_bytes().is_some() {
        return body;
    }
    let waiting = Waiting { spent: Duration::ZERO, since: None };
    Body::stream(Limited { inner: body, patience, bytes: 0, has_event: false, waiting, timer: None })
}

struct Limited {
    inner: Body,
    patience: Patience,
    bytes: u64,
    /// A stream's first event has begun.
    has_event: bool,
    waiting: Waiting,
    /// Made when a piece is first waited for; many replies are here at once.
    timer: Option<Pin<Box<Sleep>>>,
}

/// How long upstream has been waited for. The time in which nobody asks, because the client is slow, is not upstream's.
struct Waiting {
    /// Before the piece that is waited for now.
    spent: Duration,
    /// For the piece that is waited for now.
    since: Option<Instant>,
}

// === impl Limited ===

impl Limited {
    /// What runs out first from here on, and in how long.
    fn left(&self) -> (Duration, TooLong) {
        let idle = self.patience.idle;
        let next = TooLong { what: "nothing came", limit: idle, setting: "[upstream] idle_timeout" };
        match self.patience.whole {
            Whole::FirstEvent(limit) if !self.has_event => {
                let first = TooLong { what: "no event came", limit, setting: "[upstream] first_byte_timeout" };
                (limit.saturating_sub(self.waiting.spent), first)
            }
            Whole::FirstEvent(_) => (idle, next),
            Whole::End(limit) => {
                let earned = Duration::from_secs_f64(self.bytes as f64 / MIN_RATE).min(LONGEST);
                let left = (limit + earned).saturating_sub(self.waiting.spent);
                let end = TooLong { what: "it did not end", limit, setting: "[upstream] body_timeout" };
                if idle <= left { (idle, next) } else { (left, end) }
            }
        }
    }

    fn came(&mut self, polled: &Option<Result<Frame<Bytes>, BoxError>>) {
        if let Some(since) = self.waiting.since.take() {
            self.waiting.spent += since.elapsed();
        }
        if let Some(Ok(frame)) = polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
            self.has_event = self.has_event || begins_event(data);
        }
    }
}

/// Whether a piece of a stream's opening holds more than comments and empty lines.
fn begins_event(data: &[u8]) -> bool {
    data.split(|byte| matches!(byte, b'\n' | b'\r')).any(|line| !line.is_empty() && line[0] != b':')
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(polled) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.came(&polled);
            return Poll::Ready(polled);
        }
        let (left, why) = this.left();
        let deadline = *this.waiting.since.get_or_insert_with(Instant::now) + left;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| Some(Err(why.into())))
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
    use http_body_util::{BodyExt, StreamBody};

    fn patience(content_type: &'static str) -> Patience {
        let target = Target::default();
        let headers = [(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type))].into_iter().collect();
        Patience::of(&target, &headers)
    }

    /// A body of pieces, each so many seconds after the one before, that never ends.
    fn pieces(pieces: impl IntoIterator<Item = (u64, &'static str)> + Send + 'static) -> Body
    where
        <Vec<(u64, &'static str)> as IntoIterator>::IntoIter: Send,
    {
        let pieces: Vec<_> = pieces.into_iter().collect();
        Body::stream(StreamBody::new(futures_util::stream::unfold(pieces.into_iter(), |mut left| async move {
            let Some((after, piece)) = left.next() else { return std::future::pending().await };
            tokio::time::sleep(Duration::from_secs(after)).await;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece.as_bytes()))), left))
        })))
    }

    async fn fails(body: Body, patience: Patience) -> (u64, String) {
        let begun = Instant::now();
        let error = limit(body, patience).collect().await.unwrap_err();
        (begun.elapsed().as_secs(), error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_fails_in_time() {
        let (after, why) = fails(pieces([(0, "{")]), patience("application/json")).await;
        assert!(after == 60 && why.contains("idle_timeout"), "{after} s: {why}");
        let (after, why) = fails(pieces([(0, "data: x\n\n")]), patience("text/event-stream")).await;
        assert!(after == 60 && why.contains("idle_timeout"), "{after} s: {why}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_drips_fails_in_time_and_a_stream_may() {
        let drip = || (0..400).map(|_| (1, "."));
        let (after, why) = fails(pieces(drip()), patience("application/json")).await;
        assert!(after == 300 && why.contains("body_timeout"), "{after} s: {why}");
        let (after, _) = fails(pieces(drip()), patience("text/event-stream; charset=utf-8")).await;
        assert_eq!(after, 460);
    }

    #[tokio::test(start_paused = true)]
    async fn a_streams_first_event_may_take_as_long_as_the_vendor_has() {
        let late = limit(pieces([(0, ": thinking\n\n"), (240, "data: x\n\n")]), patience("text/event-stream"));
        let mut late = std::pin::pin!(late);
        assert!(late.frame().await.unwrap().is_ok());
        assert_eq!(late.frame().await.unwrap().unwrap().into_data().unwrap(), "data: x\n\n");
        let comments = (0..400).map(|_| (1, ": still\n"));
        let (after, why) = fails(pieces(comments), patience("text/event-stream")).await;
        assert!(after == 250 && why.contains("first_byte_timeout"), "{after} s: {why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_late_does_not_make_upstream_late() {
        let mut body = std::pin::pin!(limit(pieces((0..10).map(|_| (1, "."))), patience("application/json")));
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(100)).await;
            body.frame().await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_timeout_there_is_breaks_nothing() {
        let longest = Duration::MAX;
        let target =
            Target { first_byte_timeout: longest, idle_timeout: longest, body_timeout: longest, ..Target::default() };
        for content_type in ["application/json", "text/event-stream"] {
            let headers = [(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type))].into_iter().collect();
            let mut body = std::pin::pin!(limit(pieces([(1, "late")]), Patience::of(&target, &headers)));
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "late");
        }
    }
}
