//! The short way for a stream's usual chunk.
//!
//! One chunk after another differs in a piece of content alone, and perhaps in what is not told: its padding, and a running usage.
//! What stands around these in a chunk that was read, and what became of it, is kept; a chunk with the same frame becomes the
//! same, and is not read again, but for its usage.

use std::ops::Range;

use bytes::BytesMut;
use memchr::memchr2;

use super::events::Verdict;
use super::usage::Usage;

/// What stands around the content of a chunk's event, as it came and as it is told.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    before: Vec<u8>,
    /// Behind the content.
    after: Vec<Part>,
    told_before: Vec<u8>,
    told_after: Vec<u8>,
    is_same: bool,
}

/// Of what stands behind the content.
#[derive(Debug, PartialEq)]
enum Part {
    /// These very bytes.
    Fixed(Vec<u8>),
    /// A value that is not told, and may be another one in each chunk.
    Untold(Value),
}

/// A value behind the content that is not told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Usage,
    /// A string.
    Padding,
}

/// An event that has the frame.
#[derive(Debug, PartialEq)]
pub(super) struct Fit {
    pub(super) verdict: Verdict,
    pub(super) content_bytes: usize,
    /// What it tells of the usage, where the frame has a place for that.
    pub(super) usage: Option<Usage>,
}

impl Frame {
    /// Of an event and of what it became, each with the bytes that are its content's JSON string, and of the values in the event
    /// that are not told. `None` where one of these stands before the content.
    pub(super) fn of(
        (event, content): (&[u8], Range<usize>),
        (told, told_content): (&[u8], Range<usize>),
        mut untold: Vec<(Range<usize>, Value)>,
    ) -> Option<Self> {
        untold.sort_by_key(|(place, _)| place.start);
        let (mut after, mut at) = (Vec::new(), content.end);
        for (place, value) in untold {
            after.push(Part::Fixed(event.get(at..place.start)?.to_vec()));
            after.push(Part::Untold(value));
            at = place.end;
        }
        after.push(Part::Fixed(event.get(at..)?.to_vec()));
        let (before, told_before) = (event[..content.start].to_vec(), told[..told_content.start].to_vec());
        let told_after = told[told_content.end..].to_vec();
        let is_same = event == told;
        Some(Self { before, after, told_before, told_after, is_same })
    }

    /// What becomes of an event with this frame; `None` for any other event.
    pub(super) fn fit(&self, event: &[u8]) -> Option<Fit> {
        let rest = event.strip_prefix(&*self.before)?;
        let length = string_length(rest)?;
        let (content, mut rest) = rest.split_at(length);
        let mut usage = None;
        for part in &self.after {
            rest = match part {
                Part::Fixed(bytes) => rest.strip_prefix(&**bytes)?,
                Part::Untold(Value::Padding) => &rest[string_length(rest)?..],
                Part::Untold(Value::Usage) => {
                    let (told, length) = Usage::plain(rest).or_else(|| {
                        let length = object_length(rest)?;
                        Some((Usage::read(&rest[..length])?, length))
                    })?;
                    usage = Some(told);
                    &rest[length..]
                }
            };
        }
        if !rest.is_empty() {
            return None;
        }
        let content_bytes = length - 2;
        if self.is_same {
            return Some(Fit { verdict: Verdict::Same, content_bytes, usage });
        }
        let mut told = BytesMut::with_capacity(self.told_before.len() + length + self.told_after.len());
        told.extend_from_slice(&self.told_before);
        told.extend_from_slice(content);
        told.extend_from_slice(&self.told_after);
        Some(Fit { verdict: Verdict::Bytes(told), content_bytes, usage })
    }
}

/// The length of the JSON object that these bytes begin with; whether what is in it is JSON is for its reader to say.
fn object_length(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    loop {
        match bytes.get(at)? {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'"' => at += string_length(&bytes[at..])? - 1,
            _ if depth == 0 => return None,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
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
        let frame = Frame::of((event, 11..14), (event, 11..14), Vec::new()).unwrap();
        let fit = Fit { verdict: Verdict::Same, content_bytes: 3, usage: None };
        assert_eq!(frame.fit(br#"data: {"c":"\"b","z":1}"#), Some(fit));
        for other in [&br#"data: {"c":"a","z":2}"#[..], br#"data: {"c":null,"z":1}"#, br#"data: {"c":"a","z":1} "#] {
            assert_eq!(frame.fit(other), None);
        }
    }

    #[test]
    fn what_is_not_told_may_differ_and_its_usage_is_read() {
        let event = br#"data: {"c":"a","p":"xx","u":{"n":1},"z":1}"#;
        let untold = || vec![(28..35, Value::Usage), (19..23, Value::Padding)];
        let told = br#"data: {"c":"a","z":1}"#;
        let frame = Frame::of((event, 11..14), (told, 11..14), untold()).unwrap();
        let usage = Usage::read(br#"{"n":{"}":"\""}}"#);
        let fit =
            Fit { verdict: Verdict::Bytes(BytesMut::from(&br#"data: {"c":"","z":1}"#[..])), content_bytes: 0, usage };
        assert_eq!(frame.fit(br#"data: {"c":"","p":"y","u":{"n":{"}":"\""}},"z":1}"#), Some(fit));
        for other in [
            &br#"data: {"c":"a","p":1,"u":{},"z":1}"#[..],
            br#"data: {"c":"a","p":"","u":null,"z":1}"#,
            br#"data: {"c":"a","p":"","u":{"n":1,"z":1}"#,
            br#"data: {"c":"a","p":"","u":}"#,
        ] {
            assert_eq!(frame.fit(other), None);
        }
        assert_eq!(Frame::of((event, 37..40), (told, 11..14), untold()), None, "they stand before the content");
    }
}
