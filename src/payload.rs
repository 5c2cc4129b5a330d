//! A call's bodies, where they are kept.
//!
//! Off by default, for they are the user's own words: see [`Payloads`]. A copy is at most so long as the setting says; the
//! rest of a body is not kept, and its whole length is told.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};

/// Which bodies are kept on the receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payloads {
    /// Of which calls.
    pub keep: Keep,
    /// Of each body at most this, in bytes.
    pub max_bytes: usize,
}

/// What the caller wants kept of a call; `None` leaves it to the config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collect {
    /// A record.
    pub log: Option<bool>,
    /// The bodies.
    pub payload: Option<bool>,
}

/// Whose bodies are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Nobody's, whatever they ask for.
    #[default]
    Never,
    /// Of calls with `cf-aig-collect-log-payload: true`.
    WhenAsked,
    /// Of all but those with `cf-aig-collect-log-payload: false`.
    Always,
}

/// What was asked and what was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payload {
    /// The request's body as it came in.
    pub request: Part,
    /// The reply's body as the client got it.
    pub response: Part,
}

/// One body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Its `content-type`; empty where there was none.
    pub content_type: String,
    /// Its beginning, or all of it.
    pub bytes: Bytes,
    /// How long it was, in bytes.
    pub length: u64,
}

/// A body's copy while it passes by.
#[derive(Debug)]
pub(crate) struct Copying {
    content_type: String,
    begun: BytesMut,
    length: u64,
    max_bytes: usize,
}

// === impl Payloads ===

impl Default for Payloads {
    fn default() -> Self {
        Self { keep: Keep::Never, max_bytes: 1 << 20 }
    }
}

impl Payloads {
    /// Whether a call's bodies are kept, whose caller wants this.
    pub fn wants(&self, collect: Collect) -> bool {
        let wanted = match self.keep {
            Keep::Never => false,
            Keep::WhenAsked => collect.payload == Some(true),
            Keep::Always => collect.payload != Some(false),
        };
        wanted && collect.log != Some(false)
    }

    pub(crate) fn copying(&self, headers: &HeaderMap) -> Copying {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Copying { content_type: content_type.into(), begun: BytesMut::new(), length: 0, max_bytes: self.max_bytes }
    }
}

// === impl Payload ===

impl Payload {
    /// What the copies weigh, in bytes.
    pub fn kept_bytes(&self) -> usize {
        self.request.bytes.len() + self.response.bytes.len()
    }
}

// === impl Part ===

impl Part {
    /// Less of it was kept than there was.
    pub fn is_cut(&self) -> bool {
        self.length > self.bytes.len() as u64
    }
}

// === impl Copying ===

impl Copying {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = self.max_bytes.saturating_sub(self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(&bytes[..room]);
        self.length += bytes.len() as u64;
    }

    pub(crate) fn finish(self) -> Part {
        Part { content_type: self.content_type, bytes: self.begun.freeze(), length: self.length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_only_where_both_sides_let_it() {
        let asked = |log, payload| Collect { log, payload };
        for (keep, collect, wanted) in [
            (Keep::Never, asked(Some(true), Some(true)), false),
            (Keep::WhenAsked, asked(None, None), false),
            (Keep::WhenAsked, asked(None, Some(true)), true),
            (Keep::WhenAsked, asked(Some(false), Some(true)), false),
            (Keep::Always, asked(None, None), true),
            (Keep::Always, asked(None, Some(false)), false),
            (Keep::Always, asked(Some(false), None), false),
        ] {
            assert_eq!(Payloads { keep, ..Payloads::default() }.wants(collect), wanted, "{keep:?} {collect:?}");
        }
    }

    #[test]
    fn a_copy_is_no_longer_than_it_may_be_and_tells_the_whole_length() {
        let mut copying = Payloads { max_bytes: 5, ..Payloads::default() }.copying(&HeaderMap::new());
        copying.push(b"abc");
        copying.push(b"defg");
        let part = copying.finish();
        assert_eq!((&part.bytes[..], part.length, part.is_cut()), (&b"abcde"[..], 7, true));
    }
}
