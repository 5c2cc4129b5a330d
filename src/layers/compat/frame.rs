//! The short way for a stream's usual chunk.
//!
//! One chunk after another differs in a piece of content alone. What stands before and behind the content in a chunk that was
//! read, and what became of both, is kept; a chunk with the same frame becomes the same, and is not read again.

use std::ops::Range;

use bytes::BytesMut;
use memchr::memchr2;

use super::events::Verdict;

/// What stands around the content of a chunk's event, as it came and as it is told.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
    told_before: Vec<u8>,
    told_after: Vec<u8>,
    is_same: bool,
}

impl Frame {
    /// Of an event and of what it became, each with the bytes that are its content's JSON string.
    pub(super) fn of(event: &[u8], content: Range<usize>, told: &[u8], told_content: Range<usize>) -> Self {
        let cut =
            |bytes: &[u8], content: Range<usize>| (bytes[..content.start].to_vec(), bytes[content.end..].to_vec());
        let ((before, after), (told_before, told_after)) = (cut(event, content), cut(told, told_content));
        let is_same = before == told_before && after == told_after;
        Self { before, after, told_before, told_after, is_same }
    }

    /// What becomes of an event with this frame, and how many bytes of content it has; `None` for any other event.
    pub(super) fn fit(&self, event: &[u8]) -> Option<(Verdict, usize)> {
        let rest = event.strip_prefix(&*self.before)?;
        let length = string_length(rest)?;
        if rest[length..] != self.after {
            return None;
        }
        if self.is_same {
            return Some((Verdict::Same, length - 2));
        }
        let mut told = BytesMut::with_capacity(self.told_before.len() + length + self.told_after.len());
        told.extend_from_slice(&self.told_before);
        told.extend_from_slice(&rest[..length]);
        told.extend_from_slice(&self.told_after);
        Some((Verdict::Bytes(told), length - 2))
    }
}

/// The length of the JSON string that these bytes begin with, its quotes included.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    bytes.strip_prefix(b"\"")?;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_its_own_quote() {
        assert_eq!(string_length(br#""a" "#), Some(3));
        assert_eq!(string_length(br#""a\"b\\" "#), Some(8));
        assert_eq!((string_length(br#""a\""#), string_length(b"\"\\"), string_length(b"7")), (None, None, None));
    }

    #[test]
    fn only_the_same_frame_fits() {
        let event = br#"data: {"c":"a","z":1}"#;
        let frame = Frame::of(event, 11..14, event, 11..14);
        assert_eq!(frame.fit(br#"data: {"c":"\"b","z":1}"#), Some((Verdict::Same, 3)));
        for other in [&br#"data: {"c":"a","z":2}"#[..], br#"data: {"c":null,"z":1}"#, br#"data: {"c":"a","z":1} "#] {
            assert_eq!(frame.fit(other), None);
        }
    }
}
