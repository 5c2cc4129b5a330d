//! Where a reply's body ends (RFC 9112, section 6.3).

use bytes::BytesMut;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use http_body::SizeHint;

use super::broken::Broken;
use super::chunked::Chunks;
use super::part::{Part, split};

/// What is left of a reply's body.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes; 0 is the end.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

impl Framing {
    pub(super) fn of(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<Self, Broken> {
        if *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Length(0));
        }
        if let Some(coding) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
            // Whatever else the body is encoded with, its last coding says where it ends.
            let last = coding.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            return Ok(if is_chunked { Self::Chunked(Chunks::default()) } else { Self::UntilClose });
        }
        match length(headers)? {
            Some(length) => Ok(Self::Length(length)),
            None => Ok(Self::UntilClose),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_over(),
            Self::UntilClose => false,
        }
    }

    /// Takes the next part of the body from what was read.
    pub(super) fn take(&mut self, unread: &mut BytesMut) -> Result<Part, Broken> {
        match self {
            _ if self.is_over() => Ok(Part::End),
            _ if unread.is_empty() => Ok(Part::Incomplete),
            Self::Length(left) => {
                let bytes = split(unread, *left);
                *left -= bytes.len() as u64;
                Ok(Part::Data(bytes))
            }
            Self::Chunked(chunks) => chunks.take(unread),
            Self::UntilClose => Ok(Part::Data(split(unread, u64::MAX))),
        }
    }

    /// Nothing comes any more.
    pub(super) fn close(&mut self) -> Result<(), Broken> {
        match self {
            Self::UntilClose => {
                *self = Self::Length(0);
                Ok(())
            }
            _ => Err(Broken::Closed),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(chunks) if chunks.is_over() => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }
}

/// `Content-Length`, which may stand there several times as long as it says the same.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Broken> {
    const WRONG: Broken = Broken::Malformed("its content-length is no length");
    let values = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(|text| {
        let text = text.trim_ascii();
        let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        is_number.then(|| std::str::from_utf8(text).ok()?.parse::<u64>().ok()).flatten()
    });
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = first.ok_or(WRONG)?;
    if lengths.any(|other| other != first) {
        return Err(WRONG);
    }
    Ok(Some(length))
}
