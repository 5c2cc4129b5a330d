//! Lets the client of a stream hear that it is waited for.
//!
//! Proxies and clients give up a connection on which nothing comes for a while, and a call may wait long for its turn or for
//! its first token. With [`Settings::keepalive`](super::Settings::keepalive) set, a call for a stream that has no answer by
//! then is answered all the same, with status 200 and a comment (`: waiting`), and then with one more each such while until
//! its first piece is here. Every client of an event stream skips comments.
//!
//! # What changes for the client
//! Once a comment has left, the status is 200 whatever comes of the call. What would have been an error's body, or an answer
//! that is no stream, comes as one event instead: in the form of the route, as data without a name, and as `event: error`
//! on `…/responses` and `…/messages`, whose events have names. Headers that would have told of the answer (its cost, its rate limits) are
//! not sent. A call that is answered within the first while is answered as always.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep};

use super::refusal::write_id;
use super::reply::ReplyBody;
use crate::body::{Body, BoxError};
use crate::call::Endpoint;
use crate::receipt::CallId;

/// What comes of a call.
pub(super) type Answering = Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>;

const COMMENT: &[u8] = b": waiting\n\n";

/// The answer, if it is here within `every`; else a stream of comments that ends in it.
pub(super) async fn answer(
    mut answering: Answering,
    every: Duration,
    endpoint: Endpoint,
    id: CallId,
) -> Response<ReplyBody> {
    if let Ok(answer) = tokio::time::timeout(every, answering.as_mut()).await {
        let streamed = |body| waiting(Stage::Streaming { body, has_begun: false }, every, true);
        return if is_events(&answer) { answer.map(streamed) } else { answer };
    }
    let mut reply = Response::new(waiting(Stage::Answering(answering, endpoint), every, false));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    write_id(headers, id);
    reply
}

fn waiting(stage: Stage, every: Duration, is_fresh: bool) -> ReplyBody {
    let first = if is_fresh { every } else { Duration::ZERO };
    ReplyBody::unmetered(Body::stream(Waiting { stage, every, timer: Box::pin(tokio::time::sleep(first)) }))
}

struct Waiting {
    stage: Stage,
    every: Duration,
    timer: Pin<Box<Sleep>>,
}

enum Stage {
    /// There is no answer yet.
    Answering(Answering, Endpoint),
    /// A stream; it has begun with its first piece.
    Streaming {
        body: ReplyBody,
        has_begun: bool,
    },
    /// An answer that is no stream, taken in to be told as an event.
    Telling(ReplyBody, BytesMut, Endpoint),
    Over,
}

impl Waiting {
    /// The next piece of what comes of the call, without comments.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match &mut self.stage {
                Stage::Answering(answering, endpoint) => {
                    let answer = ready!(answering.as_mut().poll(cx));
                    let is_stream = is_events(&answer);
                    let (endpoint, body) = (*endpoint, answer.into_body());
                    self.stage = match is_stream {
                        true => Stage::Streaming { body, has_begun: false },
                        false => Stage::Telling(body, BytesMut::new(), endpoint),
                    };
                }
                Stage::Streaming { body, has_begun } => {
                    let polled = ready!(Pin::new(body).poll_frame(cx));
                    *has_begun = true;
                    return Poll::Ready(polled);
                }
                Stage::Telling(body, taken, endpoint) => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    Some(frame) => taken.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                    None => {
                        let event = event(taken, *endpoint);
                        self.stage = Stage::Over;
                        return Poll::Ready(Some(Ok(Frame::data(event))));
                    }
                },
                Stage::Over => return Poll::Ready(None),
            }
        }
    }
}

impl HttpBody for Waiting {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(polled) = this.poll_answer(cx) {
            return Poll::Ready(polled);
        }
        if let Stage::Streaming { has_begun: true, .. } = this.stage {
            return Poll::Pending;
        }
        ready!(this.timer.as_mut().poll(cx));
        this.timer.as_mut().reset(Instant::now() + this.every);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))))
    }
}

fn is_events<B>(reply: &Response<B>) -> bool {
    let content_type = reply.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    reply.status() == StatusCode::OK && content_type.starts_with(b"text/event-stream")
}

/// A body as one event, line by line.
fn event(body: &[u8], endpoint: Endpoint) -> Bytes {
    let mut event = BytesMut::with_capacity(body.len() + 32);
    if matches!(endpoint, Endpoint::Responses | Endpoint::Messages) {
        event.extend_from_slice(b"event: error\n");
    }
    for line in body.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.extend_from_slice(b"\n");
    }
    event.extend_from_slice(b"\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::Error;

    const EVERY: Duration = Duration::from_secs(15);

    fn after(seconds: u64, answer: Response<Body>) -> Answering {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            answer.map(ReplyBody::unmetered)
        })
    }

    fn stream() -> Response<Body> {
        let pieces = ["data: 1\n\n", "data: 2\n\n"].map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
        let body = Body::stream(http_body_util::StreamBody::new(futures_util::stream::iter(pieces)));
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    }

    async fn told(answering: Answering, endpoint: Endpoint) -> (u16, String) {
        let id = crate::layers::testing::call("@cf/a/b", "{}").receipt.read(|facts| facts.id);
        let reply = answer(answering, EVERY, endpoint, id).await;
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_comes_late_is_announced_by_comments() {
        let (status, text) = told(after(40, stream()), Endpoint::Run).await;
        assert_eq!((status, text.as_str()), (200, ": waiting\n\n: waiting\n\ndata: 1\n\ndata: 2\n\n"));
        assert_eq!(told(after(3, stream()), Endpoint::Run).await.1, "data: 1\n\ndata: 2\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_comes_late_is_an_event_in_the_form_of_the_route() {
        let error = Error::RateLimited { what: "no turn".into(), retry_after: EVERY, limit: None };
        for (endpoint, begins) in [
            (Endpoint::Run, "data: {\"errors\":["),
            (Endpoint::ChatCompletions, "data: {\"error\":{"),
            (Endpoint::Responses, "event: error\ndata: {\"error\":{"),
            (Endpoint::Messages, "event: error\ndata: {\"error\":{"),
        ] {
            let answering = after(20, error.response(endpoint.error_form()));
            let (status, text) = told(answering, endpoint).await;
            let event = text.strip_prefix(": waiting\n\n").unwrap();
            assert!(status == 200 && event.starts_with(begins) && event.ends_with("}\n\n"), "{event}");
            let early = told(after(3, error.response(endpoint.error_form())), endpoint).await;
            assert_eq!(early.0, 429, "an error in time keeps its status");
        }
    }
}
