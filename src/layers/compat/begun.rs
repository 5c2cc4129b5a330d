//! A body whose first bytes were looked at.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BoxError};

/// Hands on what was looked at, then the rest.
#[derive(Debug)]
struct Begun {
    first: Bytes,
    rest: Body,
}

/// Whether a body is a document of JSON, from its first byte that is no space, whatever its content type says; and the body as
/// it was. An empty one is taken for one.
pub(super) async fn is_document(mut body: Body) -> Result<(bool, Body), BoxError> {
    let begins = |bytes: &[u8]| bytes.iter().find(|byte| !byte.is_ascii_whitespace()).copied();
    if let Some(bytes) = body.as_bytes() {
        return Ok((begins(bytes).is_none_or(|byte| matches!(byte, b'{' | b'[' | b'"')), body));
    }
    let mut first = BytesMut::new();
    let first_byte = loop {
        match begins(&first) {
            Some(byte) => break Some(byte),
            None if body.is_end_stream() => break None,
            None => {}
        }
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => break None,
            Some(frame) => first.extend_from_slice(&frame?.into_data().unwrap_or_default()),
        }
    };
    let is_document = first_byte.is_none_or(|byte| matches!(byte, b'{' | b'[' | b'"'));
    Ok((is_document, Body::stream(Begun { first: first.freeze(), rest: body })))
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
