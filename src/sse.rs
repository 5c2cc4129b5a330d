//! Server-sent events (WHATWG HTML, 9.2.6), fed in pieces of any size.
//!
//! A [`Splitter`] finds the values of fields as they pass and keeps nothing, for those who only look. [`Events`] gathers whole
//! events with their bytes as they came, for those who change or parse them. Lines end with LF, CR or CRLF, also where a piece
//! ends between the two; a byte order mark at the beginning is skipped.
//!
//! # What it does not do
//! It knows no JSON and no `[DONE]`, and it sets no bound: who gathers events asks [`Events::len`] and gives up in time.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// `data`.
    Data,
    /// `event`: the name of the event.
    Event,
    /// A comment, `id`, `retry`, or what no reader knows.
    Other,
}

/// The next part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Some bytes of a field's value; never empty.
    Value(Field, &'a [u8]),
    /// The line has ended, and with it the field's value.
    LineEnd(Field),
    /// An empty line: the event is whole.
    EventEnd,
}

/// Takes a stream apart, piece by piece: see the [module](self).
#[derive(Debug)]
pub(crate) struct Splitter {
    line: Line,
    /// The last byte was a CR: an LF after it ends no line of its own.
    after_cr: bool,
    /// How many bytes of a byte order mark the stream has begun with; `None` once it cannot be one any more.
    mark: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    /// In the field's name: so much of it is here. A longer name than any that is known is cut off.
    Name { name: [u8; NAME_BYTES], length: usize },
    /// Behind the colon; the first space of the value is not part of it.
    Value { field: Field, begun: bool },
}

/// One more than the longest name that is known.
const NAME_BYTES: usize = 6;
const MARK: &[u8] = b"\xef\xbb\xbf";

// === impl Field ===

impl Field {
    fn of(name: &[u8]) -> Self {
        match name {
            b"data" => Self::Data,
            b"event" => Self::Event,
            _ => Self::Other,
        }
    }
}

// === impl Line ===

impl Line {
    const EMPTY: Self = Self::Name { name: [0; NAME_BYTES], length: 0 };

    /// The field of a line that ends here; `None` for an empty line.
    fn ended(self) -> Option<Field> {
        match self {
            Self::Name { length: 0, .. } => None,
            Self::Name { name, length } => Some(Field::of(name.get(..length).unwrap_or_default())),
            Self::Value { field, .. } => Some(field),
        }
    }
}

// === impl Splitter ===

impl Default for Splitter {
    fn default() -> Self {
        Self { line: Line::EMPTY, after_cr: false, mark: Some(0) }
    }
}

impl Splitter {
    /// The next part of these bytes, which it takes off them; `None` when they are used up.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        loop {
            let (&byte, rest) = bytes.split_first()?;
            let is_second = std::mem::take(&mut self.after_cr) && byte == b'\n';
            if is_second || self.is_mark(byte) {
                *bytes = rest;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                *bytes = rest;
                self.after_cr = byte == b'\r';
                return Some(self.end_line());
            }
            match &mut self.line {
                Line::Name { name, length } => {
                    *bytes = rest;
                    if byte == b':' {
                        let field = Field::of(name.get(..*length).unwrap_or_default());
                        self.line = Line::Value { field, begun: false };
                    } else if let Some(place) = name.get_mut(*length) {
                        *place = byte;
                        *length += 1;
                    }
                }
                Line::Value { field, begun } => {
                    if !std::mem::replace(begun, true) && byte == b' ' {
                        *bytes = rest;
                        continue;
                    }
                    let end = memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                    let (value, rest) = bytes.split_at(end);
                    *bytes = rest;
                    return Some(Part::Value(*field, value));
                }
            }
        }
    }

    /// The stream is over: the field of a last line that did not end.
    pub(crate) fn finish(&mut self) -> Option<Field> {
        std::mem::replace(&mut self.line, Line::EMPTY).ended()
    }

    fn end_line(&mut self) -> Part<'static> {
        self.finish().map_or(Part::EventEnd, Part::LineEnd)
    }

    fn is_mark(&mut self, byte: u8) -> bool {
        let Some(matched) = self.mark else { return false };
        let is_next = MARK.get(matched) == Some(&byte);
        self.mark = is_next.then_some(matched + 1);
        is_next
    }
}

/// The bytes of a stream until they make a whole event.
#[derive(Debug, Default)]
pub(crate) struct Events {
    bytes: BytesMut,
    splitter: Splitter,
    /// How many of the bytes the splitter has seen.
    seen: usize,
    has_begun: bool,
}

/// One event, or what stood between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// All of its lines as they came, comments and the empty line at its end among them.
    pub(crate) raw: Bytes,
    /// It begins the stream, and so perhaps with a byte order mark.
    is_first: bool,
}

impl Events {
    /// Takes in the next piece.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next event that is whole.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut unseen = &self.bytes[self.seen..];
        while let Some(part) = self.splitter.next(&mut unseen) {
            if part == Part::EventEnd {
                // The LF of a CRLF that is cut here comes with the next event.
                let end = self.bytes.len() - unseen.len() + usize::from(is_crlf(&self.bytes, unseen));
                return Some(self.take(end));
            }
        }
        self.seen = self.bytes.len();
        None
    }

    /// What stands behind the last whole event, when no more comes.
    pub(crate) fn rest(&mut self) -> Option<Event> {
        (!self.bytes.is_empty()).then(|| self.take(self.bytes.len()))
    }

    fn take(&mut self, end: usize) -> Event {
        self.seen = 0;
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        Event { raw: self.bytes.split_to(end).freeze(), is_first }
    }

    /// How many bytes wait for their event to become whole.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn is_crlf(bytes: &[u8], unseen: &[u8]) -> bool {
    unseen.first() == Some(&b'\n') && bytes[..bytes.len() - unseen.len()].last() == Some(&b'\r')
}

impl Event {
    /// Its data: the values of all its `data` lines, with an LF between each two. `None` where it has none, as a comment.
    pub(crate) fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mark = self.is_first.then_some(0);
        let (mut splitter, mut bytes) = (Splitter { mark, ..Splitter::default() }, &self.raw[..]);
        let mut data: Option<Cow<'_, [u8]>> = None;
        let mut line: &[u8] = b"";
        loop {
            let part = splitter.next(&mut bytes);
            let ended = match part {
                Some(Part::Value(Field::Data, value)) => {
                    line = value;
                    continue;
                }
                Some(Part::LineEnd(field)) => Some(field),
                Some(_) => continue,
                None => splitter.finish(),
            };
            if ended == Some(Field::Data) {
                let line = std::mem::take(&mut line);
                data = Some(match data {
                    Some(before) => [&before, &b"\n"[..], line].concat().into(),
                    None => line.into(),
                });
            }
            if part.is_none() {
                return data;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each event of a stream that is cut into these pieces.
    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut events, mut found, mut raw, mut all) = (Events::default(), Vec::new(), Vec::new(), Vec::new());
        let mut note = |event: Event| {
            raw.extend_from_slice(&event.raw);
            found.extend(event.data().map(|data| String::from_utf8_lossy(&data).into_owned()));
        };
        for piece in pieces {
            all.extend_from_slice(piece);
            events.push(piece);
            while let Some(event) = events.next() {
                note(event);
            }
        }
        events.rest().map(&mut note);
        assert_eq!(raw, all, "every byte is in an event");
        found
    }

    #[test]
    fn fields_are_read_as_the_standard_has_them() {
        for (text, wanted) in [
            ("data: a\n\ndata:b\n\n", &["a", "b"][..]),
            ("data: a\r\rdata: b\r\n\r\ndata: c", &["a", "b", "c"]),
            ("event: x\ndata: 1\ndata:  2\ndata\n\n", &["1\n 2\n"]),
            (": comment\n\nid: 7\nretry: 1\n\n", &[]),
            ("\u{feff}data: marked\n\n", &["marked"]),
            ("database: no\ndat: no\nDATA: no\n data: no\n\n", &[]),
            ("event\ndata:\n\n", &[""]),
        ] {
            assert_eq!(events([text.as_bytes()]), wanted, "{text:?}");
        }
    }

    const PARTS: [&str; 12] =
        ["data:", "data", "event:", "event: x", " ", "\n", "\r", "\r\n", "{\"a\":1}", ": c", "\u{feff}", "é"];

    proptest::proptest! {
        #[test]
        fn every_cut_reads_the_same(
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..40), size in 1usize..9
        ) {
            let text = parts.concat();
            proptest::prop_assert_eq!(events([text.as_bytes()]), events(text.as_bytes().chunks(size)));
        }

        #[test]
        fn the_splitter_agrees_with_a_reading_of_the_whole(
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..40), size in 1usize..9
        ) {
            let text = parts.concat();
            let whole = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
            let (mut wanted, mut data) = (Vec::new(), Vec::new());
            for line in whole.split('\n') {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                match name {
                    "data" => data.push(value.strip_prefix(' ').unwrap_or(value)),
                    "" if line.is_empty() => wanted.extend((!data.is_empty()).then(|| std::mem::take(&mut data).join("\n"))),
                    _ => {}
                }
            }
            wanted.extend((!data.is_empty()).then(|| data.join("\n")));
            proptest::prop_assert_eq!(events(text.as_bytes().chunks(size)), wanted);
        }
    }
}
