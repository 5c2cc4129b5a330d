//! Cuts a stream of server-sent events where each one ends, whatever pieces it comes in.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// An event longer than this, and all that follows it, is passed on as it is.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What is to become of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It passes as it came.
    Same,
    /// It is left out.
    Left,
    /// These bytes take its place, whole events with their blank lines.
    Bytes(BytesMut),
}

/// The beginning of an event whose end has not come.
#[derive(Debug, Default)]
pub(super) struct Events {
    begun: BytesMut,
    /// How far `begun` has been searched for its end, and where its last line begins.
    searched: usize,
    line: usize,
    /// An event was too long to be looked at.
    has_given_up: bool,
}

/// The bytes of a piece, with what takes the place of some.
struct Passed {
    source: Bytes,
    /// Absent as long as all that was passed is the source's beginning.
    out: Option<BytesMut>,
    /// How much of the source has been passed or replaced.
    done: usize,
}

impl Events {
    /// What can be passed on now that this piece is here: whole events, each as `judge` wants it.
    pub(super) fn push(&mut self, piece: Bytes, mut judge: impl FnMut(&[u8]) -> Verdict) -> Bytes {
        let source = if self.begun.is_empty() {
            piece
        } else {
            self.begun.extend_from_slice(&piece);
            std::mem::take(&mut self.begun).freeze()
        };
        if self.has_given_up {
            return source;
        }
        let mut passed = Passed { source: source.clone(), out: None, done: 0 };
        while let Some(end) = self.next_end(&source, passed.done) {
            let event = &source[passed.done..end];
            if event.len() > MAX_EVENT_BYTES {
                break;
            }
            let verdict = if is_empty(event) { Verdict::Same } else { judge(event) };
            passed.to(end, verdict);
        }
        if source.len() - passed.done > MAX_EVENT_BYTES {
            self.has_given_up = true;
            passed.to(source.len(), Verdict::Same);
            return passed.finish();
        }
        self.begun = BytesMut::from(&source[passed.done..]);
        (self.searched, self.line) = (self.searched - passed.done, self.line - passed.done);
        passed.finish()
    }

    /// What is left when the stream has ended: an event without its blank line.
    pub(super) fn finish(&mut self, judge: impl FnOnce(&[u8]) -> Verdict) -> Bytes {
        let rest = std::mem::take(&mut self.begun).freeze();
        if is_empty(&rest) {
            return rest;
        }
        match judge(&rest) {
            Verdict::Same => rest,
            Verdict::Left => Bytes::new(),
            Verdict::Bytes(bytes) => bytes.freeze(),
        }
    }

    /// Where the event that begins at `start` ends, its blank line included. A comment is an event of its own, for it
    /// should not wait for the one behind it.
    fn next_end(&mut self, bytes: &[u8], start: usize) -> Option<usize> {
        loop {
            let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[self.searched..]) else {
                self.searched = bytes.len();
                return None;
            };
            let end = self.searched + found;
            let after = match (bytes[end], bytes.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                // Whether this is half of a line break is known with the next byte.
                (b'\r', None) => {
                    self.searched = end;
                    return None;
                }
                _ => end + 1,
            };
            let line = &bytes[self.line..end];
            let is_comment = self.line == start && line.first() == Some(&b':');
            let is_blank = line.is_empty();
            (self.searched, self.line) = (after, after);
            if is_blank || is_comment {
                return Some(after);
            }
        }
    }
}

impl Passed {
    fn to(&mut self, end: usize, verdict: Verdict) {
        match verdict {
            Verdict::Same => {
                if let Some(out) = &mut self.out {
                    out.extend_from_slice(&self.source[self.done..end]);
                }
            }
            Verdict::Left => drop(self.own()),
            Verdict::Bytes(bytes) => self.own().extend_from_slice(&bytes),
        }
        self.done = end;
    }

    /// From here on the bytes are others than the source's.
    fn own(&mut self) -> &mut BytesMut {
        let (source, done) = (&self.source, self.done);
        self.out.get_or_insert_with(|| BytesMut::from(&source[..done]))
    }

    fn finish(self) -> Bytes {
        match self.out {
            Some(out) => out.freeze(),
            None => self.source.slice(..self.done),
        }
    }
}

/// What an event that is made here begins with.
pub(super) const FIELD: &[u8] = b"data: ";
/// The data of the event that ends a stream.
pub(super) const DONE: &[u8] = b"[DONE]";

/// An event of this data.
pub(super) fn event_of(data: &str) -> BytesMut {
    let mut event = BytesMut::with_capacity(FIELD.len() + data.len() + 2);
    event.put_slice(FIELD);
    event.put_slice(data.as_bytes());
    event.put_slice(b"\n\n");
    event
}

/// The data of an event; `None` where it has none.
pub(super) fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let mut data = lines.filter_map(|line| Some(line.strip_prefix(b"data:")?.trim_ascii()));
    let first = data.next()?;
    let mut rest = data.peekable();
    if rest.peek().is_none() {
        return Some(Cow::Borrowed(first));
    }
    let all: Vec<&[u8]> = std::iter::once(first).chain(rest).collect();
    Some(Cow::Owned(all.join(&b'\n')))
}

/// Where in the event a piece of it stands; `None` where it is none.
pub(super) fn place(event: &[u8], piece: &str) -> Option<Range<usize>> {
    let start = (piece.as_ptr() as usize).checked_sub(event.as_ptr() as usize)?;
    let end = start.checked_add(piece.len())?;
    (end <= event.len()).then_some(start..end)
}

/// Nothing but line breaks.
fn is_empty(event: &[u8]) -> bool {
    event.iter().all(|byte| matches!(byte, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Events that hold an `x` are left out, those that hold a `y` are replaced.
    fn judge(event: &[u8]) -> Verdict {
        match event {
            event if event.contains(&b'x') => Verdict::Left,
            event if event.contains(&b'y') => Verdict::Bytes(BytesMut::from(&b"data: Y\n\n"[..])),
            _ => Verdict::Same,
        }
    }

    fn pass(pieces: &[&[u8]]) -> String {
        let mut events = Events::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&events.push(Bytes::copy_from_slice(piece), judge));
        }
        out.extend_from_slice(&events.finish(judge));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_passes_as_soon_as_it_is_whole_and_a_comment_at_once() {
        let mut events = Events::default();
        let mut push = |piece: &'static str| events.push(Bytes::from_static(piece.as_bytes()), judge);
        assert_eq!(push("data: a\n"), "");
        assert_eq!(push("\nda"), "data: a\n\n");
        assert_eq!(push("ta: b\r\n\r\n: wait\n"), "data: b\r\n\r\n: wait\n");
    }

    #[test]
    fn what_is_untouched_is_not_copied() {
        let piece = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        let passed = Events::default().push(piece.clone(), judge);
        assert_eq!(passed.as_ptr(), piece.as_ptr());
    }

    #[test]
    fn a_long_event_and_what_follows_it_pass_as_they_came() {
        let long = format!("data: a\n\ndata: x{}\n\ndata: x\n\n", "-".repeat(MAX_EVENT_BYTES));
        assert_eq!(pass(&[long.as_bytes()]), long);
        let pieces: Vec<_> = long.as_bytes().chunks(100_000).collect();
        assert_eq!(pass(&pieces), long);
    }

    const PARTS: [&str; 12] =
        ["data: a", "data: x", "data: y", "\n", "\r", "\r\n", "\n\n", "\n\n", "\r\n\r\n", ": comment", "event: e", "é"];

    proptest! {
        #[test]
        fn every_cut_gives_the_same(parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..30), size in 1usize..9) {
            let text = parts.concat();
            let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(pass(&[text.as_bytes()]), pass(&pieces));
        }
    }
}
