//! Takes in a request's body, as far and as patiently as the settings let it.

use std::future::poll_fn;
use std::pin::{Pin, pin};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http_body::Body as HttpBody;

use super::Settings;
use crate::Error;
use crate::body::BoxError;

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
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = next_frame(settings, body.as_mut()).await? {
        let Ok(mut data) = frame.into_data() else { continue };
        length += data.remaining() as u64;
        if length > settings.max_body {
            return Err(too_large());
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
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

async fn next_frame<B>(settings: &Settings, mut body: Pin<&mut B>) -> Result<Option<http_body::Frame<B::Data>>, Error>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Ok(None);
    }
    let next = poll_fn(|cx| body.as_mut().poll_frame(cx));
    match tokio::time::timeout(settings.body_timeout, next).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => Err(Error::BodyIncomplete(error.into().to_string())),
        Err(_) => {
            let seconds = settings.body_timeout.as_secs_f64();
            Err(Error::BodyIncomplete(format!("nothing came for {seconds} s")))
        }
    }
}
