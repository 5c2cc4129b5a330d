//! What becomes of each event of a stream, whatever pieces the stream comes in.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::sse::{self, Event};

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

/// The events of a stream, each as soon as it is whole.
#[derive(Debug, Default)]
pub(super) struct Events {
    gathered: sse::Events,
    /// An event was too long to be looked at.
    has_given_up: bool,
}

/// What has been judged and can be passed on. Most often that is one event, which is then not copied.
#[derive(Default)]
struct Passed {
    first: Option<Bytes>,
    more: Option<BytesMut>,
}

impl Events {
    /// What can be passed on now that this piece is here: whole events, each as `judge` wants it.
    pub(super) fn push(&mut self, piece: Bytes, mut judge: impl FnMut(&Event) -> Verdict) -> Bytes {
        if self.has_given_up {
            return piece;
        }
        self.gathered.push(&piece);
        let mut passed = Passed::default();
        while let Some(event) = self.gathered.next() {
            self.has_given_up |= event.raw.len() > MAX_EVENT_BYTES;
            let verdict = if self.has_given_up { Verdict::Same } else { judge(&event) };
            passed.add(event, verdict);
        }
        if self.has_given_up || self.gathered.len() > MAX_EVENT_BYTES {
            self.has_given_up = true;
            if let Some(rest) = self.gathered.rest() {
                passed.add(rest, Verdict::Same);
            }
        }
        passed.finish()
    }

    /// What is left when the stream has ended: an event without its blank line.
    pub(super) fn finish(&mut self, judge: impl FnOnce(&Event) -> Verdict) -> Bytes {
        let mut passed = Passed::default();
        if let Some(rest) = self.gathered.rest() {
            let verdict = judge(&rest);
            passed.add(rest, verdict);
        }
        passed.finish()
    }
}

impl Passed {
    fn add(&mut self, event: Event, verdict: Verdict) {
        let bytes = match verdict {
            Verdict::Same => event.raw,
            Verdict::Left => return,
            Verdict::Bytes(bytes) => bytes.freeze(),
        };
        match (&self.first, &mut self.more) {
            (None, _) => self.first = Some(bytes),
            (Some(first), None) => {
                let mut more = BytesMut::from(&first[..]);
                more.extend_from_slice(&bytes);
                self.more = Some(more);
            }
            (Some(_), Some(more)) => more.extend_from_slice(&bytes),
        }
    }

    fn finish(self) -> Bytes {
        self.more.map(BytesMut::freeze).or(self.first).unwrap_or_default()
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

/// An event of this name and data.
pub(super) fn named_event_of(name: &str, data: &str) -> BytesMut {
    let mut event = BytesMut::from("event: ");
    for part in [name, "\ndata: ", data, "\n\n"] {
        event.put_slice(part.as_bytes());
    }
    event
}

/// Where in the event a piece of it stands; `None` where it is none.
pub(super) fn place(event: &[u8], piece: &str) -> Option<Range<usize>> {
    let start = (piece.as_ptr() as usize).checked_sub(event.as_ptr() as usize)?;
    let end = start.checked_add(piece.len())?;
    (end <= event.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Events that hold an `x` are left out, those that hold a `y` are replaced.
    fn judge(event: &Event) -> Verdict {
        match &event.raw[..] {
            raw if raw.contains(&b'x') => Verdict::Left,
            raw if raw.contains(&b'y') => Verdict::Bytes(BytesMut::from(&b"data: Y\n\n"[..])),
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
    fn an_event_passes_as_soon_as_it_is_whole() {
        let mut events = Events::default();
        let mut push = |piece: &'static str| events.push(Bytes::from_static(piece.as_bytes()), judge);
        assert_eq!(push("data: a\n"), "");
        assert_eq!(push("\nda"), "data: a\n\n");
        assert_eq!(push("ta: b\r\n\r\n: wait\n\n"), "data: b\r\n\r\n: wait\n\n");
    }

    #[test]
    fn a_long_event_and_what_follows_it_pass_as_they_came() {
        let long = format!("data: a\n\ndata: x{}\n\ndata: x\n\n", "-".repeat(MAX_EVENT_BYTES));
        assert_eq!(pass(&[long.as_bytes()]), long);
        let pieces: Vec<_> = long.as_bytes().chunks(100_000).collect();
        assert_eq!(pass(&pieces), long);
    }

    const PARTS: [&str; 11] =
        ["data: a", "data: x", "data: y", "\n", "\n", "\r\n", "\n\n", "\r\n\r\n", ": comment", "event: e", "é"];

    proptest! {
        #[test]
        fn every_cut_gives_the_same(parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..30), size in 1usize..9) {
            let text = parts.concat();
            let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
            // Where a line break is cut in two, its second half may come as an empty line.
            let lines = |text: &str| text.split(['\r', '\n']).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(lines(&pass(&[text.as_bytes()])), lines(&pass(&pieces)));
        }
    }
}
