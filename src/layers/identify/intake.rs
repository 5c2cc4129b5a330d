//! Takes in a request's body, as far and as patiently as the settings let it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use super::settings::Settings;
use crate::Error;
use crate::body::BoxError;
use crate::memory::{SMALL_BYTES, Share};
use crate::pace::{Pace, Progress};

/// The whole body, at most [`Settings::max_body`] of it.
pub(super) async fn read_body<B>(settings: &Settings, headers: &HeaderMap, body: B) -> Result<Bytes, Error>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let too_large = || Error::BodyTooLarge { max_bytes: settings.max_body };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > settings.max_body) {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let mut progress = Progress::begin();
    let mut room = Room { settings, announced, granted: SMALL_BYTES, share: None };
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = next_frame(settings.body_pace, &progress, body.as_mut()).await? {
        let Ok(mut data) = frame.into_data() else { continue };
        let piece = data.remaining() as u64;
        length += piece;
        if length > settings.max_body {
            return Err(too_large());
        }
        if !body.is_end_stream() {
            // Nobody waits for what comes after the last piece, so that one needs no clock.
            progress.moved(piece);
        }
        if length > room.granted {
            let asked = Instant::now();
            room.grow(length).await?;
            // A client that waits for our memory is not slow.
            progress.excuse(asked.elapsed());
            let so_far = first.as_ref().map_or(0, Bytes::len).max(rest.len());
            rest.reserve((room.granted as usize).saturating_sub(so_far));
        }
        let data = data.copy_to_bytes(data.remaining());
        match &first {
            // Most bodies come in one piece, which is then not copied.
            None => first = Some(data),
            Some(begun) => {
                if rest.is_empty() {
                    rest.extend_from_slice(begun);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    let whole = if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() };
    Ok(room.hold(whole))
}

async fn next_frame<B>(
    pace: Pace,
    progress: &Progress,
    mut body: Pin<&mut B>,
) -> Result<Option<http_body::Frame<B::Data>>, Error>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Ok(None);
    }
    let mut poll = |cx: &mut Context<'_>| {
        let broken = |error: B::Error| Error::BodyIncomplete(error.into().to_string());
        body.as_mut().poll_frame(cx).map(|frame| frame.transpose().map_err(broken))
    };
    // What is here already needs no timer.
    if let Poll::Ready(frame) = poll_fn(|cx| Poll::Ready(poll(cx))).await {
        return frame;
    }
    let next = tokio::time::timeout_at(pace.deadline(progress), poll_fn(poll));
    next.await.unwrap_or_else(|_| Err(Error::BodyIncomplete(too_slow(pace, progress))))
}

/// What a client is told that is too slow.
pub(super) fn too_slow(pace: Pace, progress: &Progress) -> String {
    let Pace { pause, min_rate, .. } = pace;
    if progress.has_paused(pause) {
        return format!("nothing came for {} s ([timeouts] body)", pause.as_secs_f64());
    }
    let (bytes, seconds) = (progress.bytes(), progress.begun().elapsed().as_secs_f64());
    format!("{bytes} bytes came in {seconds:.1} s; the least is {min_rate} bytes a second ([timeouts] body_min_rate)")
}

/// The part of the [memory](crate::memory) that a body has.
struct Room<'a> {
    settings: &'a Settings,
    announced: Option<u64>,
    granted: u64,
    share: Option<Share>,
}

/// A body that does not say how long it is gets this much first, in bytes, and then as much as a body may have.
const FIRST_STEP_BYTES: u64 = 1 << 20;

impl Room<'_> {
    /// Makes the body's part large enough for `length` bytes. A body gets all that it has announced at once: two that wait
    /// for each other's second half would both wait in vain.
    async fn grow(&mut self, length: u64) -> Result<(), Error> {
        let Settings { memory, body_queue, max_body, .. } = self.settings;
        let wanted = match self.announced {
            Some(announced) => announced.max(length),
            None if length <= FIRST_STEP_BYTES => FIRST_STEP_BYTES.min(*max_body),
            None => *max_body,
        };
        let taken = if self.share.is_some() { self.granted } else { 0 };
        let share = memory.take(wanted - taken, *body_queue).await;
        let share = share.ok_or_else(|| overloaded(self.settings, wanted, *body_queue))?;
        match &mut self.share {
            Some(held) => held.merge(share),
            none => *none = Some(share),
        }
        self.granted = wanted;
        Ok(())
    }

    /// The body keeps its part until nobody holds it any more.
    fn hold(self, body: Bytes) -> Bytes {
        let Some(mut share) = self.share else { return body };
        share.shrink(body.len() as u64);
        share.hold(body)
    }
}

/// There was no memory for a body of so many bytes, however long it waited.
pub(super) fn overloaded(settings: &Settings, wanted: u64, waited: Duration) -> Error {
    Error::Overloaded {
        what: format!(
            "the bodies that are being handled fill the {} bytes that they may (max_body_memory), and this one, of {wanted} \
             bytes, had no turn within {} s ([timeouts] body_queue)",
            settings.memory.max_bytes(),
            waited.as_secs_f64()
        ),
        retry_after: RETRY_AFTER,
    }
}

/// Bodies come and go in seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);
