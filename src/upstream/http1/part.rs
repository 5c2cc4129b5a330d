//! What the bytes that were read of a body hold.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// What lay in the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// More has to be read.
    Incomplete,
}

/// At most so many bytes of what was read; its buffer goes with the last of them.
pub(super) fn split(unread: &mut BytesMut, most: u64) -> Bytes {
    match usize::try_from(most) {
        Ok(most) if most < unread.len() => unread.split_to(most).freeze(),
        _ => std::mem::take(unread).freeze(),
    }
}
