//! Finds the few facts worth knowing in JSON that flies by, in pieces of any size, without keeping it.
//!
//! A reply may be megabytes of vectors with its usage at the very end. The scanner follows the nesting byte by byte, knows the
//! [place](super::place) of each value in the forms that replies have, and keeps only the small ones it is after. What a model
//! wrote is in no such place, whatever it is called and however deep it nests. Of a name that comes twice the last value counts.
//!
//! It never fails: bytes that are no JSON find nothing, and are told to be [not whole](Found::is_whole).

use super::found::{Found, ScopeName};
use super::keys::{KEY_BYTES, Key};
use super::place::{Kept, Kind, Place};
use super::reading::{Leaf, Reading, Value};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Scanner {
    reading: Reading,
    found: Found,
    state: State,
    /// The containers around the current byte, innermost last.
    containers: Vec<Container>,
    /// How many containers are around it within the innermost of these, which are not looked into.
    skipped: usize,
    key: Key,
    key_text: [u8; KEY_BYTES],
    key_length: usize,
    key_has_escape: bool,
    /// What the scalar at hand counts for, if it is not empty.
    leaf: Leaf,
    capture: Option<Capture>,
    /// The bytes of the value that is kept, while it comes.
    kept: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Container {
    is_object: bool,
    place: Place,
    scope: ScopeName,
    /// Of a list: the key that its elements stand for.
    key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// A value comes next; the end of an empty list may.
    Value {
        or_end: bool,
    },
    /// A key comes next; the end of an empty object may.
    KeyNext {
        or_end: bool,
    },
    Key {
        escaped: bool,
    },
    Colon,
    Text {
        escaped: bool,
        counts: bool,
    },
    Literal,
    /// A value is over.
    After,
    /// Within what is nested too deep to be looked into.
    Deep,
    /// It is no JSON.
    Broken,
}

/// A value that is kept.
#[derive(Clone, Copy, Debug)]
struct Capture {
    what: Kept,
    scope: ScopeName,
    depth: usize,
    length: usize,
}

/// A usage object is some 300 bytes at most.
const MOST_KEPT: usize = 4096;
/// An error may quote what it is about.
const MOST_KEPT_OF_ERRORS: usize = 64 * 1024;
/// What is nested deeper is not looked into.
const MAX_DEPTH: usize = 64;
const USUAL_DEPTH: usize = 8;
const USUAL_KEPT: usize = 512;

impl Scanner {
    pub(super) fn new(reading: Reading) -> Self {
        Self {
            reading,
            found: Found::default(),
            state: State::Value { or_end: false },
            containers: Vec::with_capacity(USUAL_DEPTH),
            skipped: 0,
            key: Key::Other,
            key_text: [0; KEY_BYTES],
            key_length: 0,
            key_has_escape: false,
            leaf: Leaf::Nothing,
            capture: None,
            kept: Vec::new(),
        }
    }

    /// Whether anything of a document is here.
    pub(super) fn has_begun(&self) -> bool {
        self.state != State::Value { or_end: false } || !self.containers.is_empty()
    }

    /// Whether the document is over, by its own brackets.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Broken || self.state == State::After && self.containers.is_empty()
    }

    /// From here on `response` holds an answer.
    pub(super) fn unwraps_response(&mut self) {
        self.reading.unwraps_response = true;
    }

    /// Whether the documents are events of a stream.
    pub(super) fn reads_events(&mut self, is_stream: bool) {
        self.reading.is_stream = is_stream;
    }

    /// Ends a document: what it held, and the scanner is ready for the next one.
    pub(super) fn finish(&mut self) -> Found {
        if self.state == State::Literal {
            self.end_value();
        }
        self.found.is_whole = self.state == State::After && self.containers.is_empty();
        self.state = State::Value { or_end: false };
        self.containers.clear();
        self.skipped = 0;
        self.capture = None;
        std::mem::take(&mut self.found)
    }

    /// The next piece of the document.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Text { escaped, counts } => self.text(bytes, escaped, counts),
                State::Key { escaped } => self.key(bytes, escaped),
                State::Literal => self.literal(bytes),
                State::Deep => self.deep(bytes),
                State::Broken => return,
                _ => self.structure(bytes),
            };
            bytes = &bytes[taken..];
        }
    }

    fn text(&mut self, bytes: &[u8], escaped: bool, counts: bool) -> usize {
        let (taken, next) = in_string(bytes, escaped);
        let ended = next == InString::Ended;
        self.keep(&bytes[..taken]);
        let length = taken - usize::from(ended);
        if length > 0 {
            self.mark_leaf();
        }
        if counts {
            self.found.text_bytes += length as u64;
        }
        if ended {
            self.end_value();
        } else {
            self.state = State::Text { escaped: next == InString::Escaped, counts };
        }
        taken
    }

    fn key(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (taken, next) = in_string(bytes, escaped);
        let ended = next == InString::Ended;
        self.keep(&bytes[..taken]);
        let name = &bytes[..taken - usize::from(ended)];
        self.key_has_escape |= next == InString::Escaped;
        if ended && self.key_length == 0 {
            self.key = Key::of(name);
        } else {
            // The key comes in pieces. One that is too long becomes none of those looked for.
            if let Some(room) = self.key_text.get_mut(self.key_length..self.key_length + name.len()) {
                room.copy_from_slice(name);
            }
            self.key_length += name.len();
        }
        if !ended {
            self.state = State::Key { escaped: next == InString::Escaped };
            return taken;
        }
        if self.key_length > 0 {
            let name = self.key_text.get(..self.key_length).unwrap_or_default();
            self.key = if self.key_has_escape { Key::of_escaped(name) } else { Key::of(name) };
        }
        self.state = State::Colon;
        taken
    }

    /// Numbers, `true`, `false` and `null`.
    fn literal(&mut self, bytes: &[u8]) -> usize {
        let length = bytes.iter().position(|byte| !is_of_literal(*byte)).unwrap_or(bytes.len());
        self.keep(&bytes[..length]);
        if length < bytes.len() {
            self.end_value();
        }
        length
    }

    fn deep(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'));
        let run = &bytes[..end.unwrap_or(bytes.len())];
        if run.iter().any(|byte| is_of_literal(*byte)) {
            self.mark_leaf();
        }
        self.keep(run);
        let Some(at) = end else { return bytes.len() };
        self.keep(&bytes[at..=at]);
        match bytes[at] {
            b'"' => self.state = State::Text { escaped: false, counts: false },
            b'{' | b'[' => self.skipped += 1,
            _ => {
                self.skipped -= 1;
                if self.skipped == 0 {
                    self.end_value();
                }
            }
        }
        at + 1
    }

    fn structure(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        match (self.state, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => self.keep(&[byte]),
            (State::KeyNext { .. }, b'"') => {
                (self.key_length, self.key_has_escape) = (0, false);
                self.state = State::Key { escaped: false };
                self.keep(&[byte]);
            }
            (State::Colon, b':') => {
                self.state = State::Value { or_end: false };
                self.keep(&[byte]);
            }
            (State::Value { .. }, b'"') => self.begin_text(),
            (State::Value { .. }, b'{' | b'[') => self.open(byte),
            (State::Value { .. }, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.begin_value(Kind::Literal);
                if byte != b'n' {
                    self.mark_leaf();
                }
                self.state = State::Literal;
                return self.literal(bytes);
            }
            (State::After | State::Value { or_end: true }, b']') => self.close(false),
            (State::After | State::KeyNext { or_end: true }, b'}') => self.close(true),
            (State::After, b',') => {
                self.state = match self.containers.last() {
                    Some(Container { is_object: true, .. }) => State::KeyNext { or_end: false },
                    Some(_) => State::Value { or_end: false },
                    None => State::Broken,
                };
                self.keep(&[byte]);
            }
            _ => self.state = State::Broken,
        }
        1
    }

    fn begin_text(&mut self) {
        let value = self.begin_value(Kind::Text);
        self.keep(b"\"");
        self.state = State::Text { escaped: false, counts: value.is_generated && self.capture.is_none() };
    }

    fn open(&mut self, byte: u8) {
        let is_object = byte == b'{';
        let value = self.begin_value(if is_object { Kind::Object } else { Kind::List });
        self.keep(&[byte]);
        if self.containers.len() == MAX_DEPTH {
            self.skipped = 1;
            self.state = State::Deep;
            return;
        }
        let key = self.key_of_value();
        self.containers.push(Container { is_object, place: value.place, scope: value.scope, key });
        self.state = if is_object { State::KeyNext { or_end: true } } else { State::Value { or_end: true } };
    }

    fn close(&mut self, is_object: bool) {
        self.keep(if is_object { b"}" } else { b"]" });
        match self.containers.pop() {
            Some(closed) if closed.is_object == is_object => {
                self.found.close(closed.place, closed.scope);
                self.end_value();
            }
            _ => self.state = State::Broken,
        }
    }

    /// A value begins: what it counts for, by its place.
    fn begin_value(&mut self, kind: Kind) -> Value {
        let around = self.containers.last().map(|container| (container.place, container.scope));
        let value = self.reading.value(around, self.key_of_value(), kind, &mut self.found);
        self.leaf = value.leaf;
        if let Some(what) = value.kept.filter(|_| self.capture.is_none()) {
            self.kept.clear();
            self.kept.reserve(USUAL_KEPT);
            self.capture = Some(Capture { what, scope: value.scope, depth: self.containers.len(), length: 0 });
        }
        value
    }

    fn key_of_value(&self) -> Key {
        match self.containers.last() {
            Some(Container { is_object: false, key, .. }) => *key,
            _ => self.key,
        }
    }

    /// A scalar or a container is over.
    fn end_value(&mut self) {
        if self.skipped > 0 {
            self.state = State::Deep;
            return;
        }
        self.state = State::After;
        let depth = self.containers.len();
        if let Some(capture) = self.capture.take_if(|capture| capture.depth == depth) {
            self.found.keep(capture.what, capture.scope, &self.kept, capture.length);
        }
    }

    /// The scalar at hand is not empty.
    fn mark_leaf(&mut self) {
        match self.leaf {
            Leaf::Nothing => {}
            Leaf::Answer(scope) => self.found.scope(scope).is_usable = true,
            Leaf::Item => self.found.item.is_usable = true,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(capture) = &mut self.capture {
            let most = if capture.what.is_of_error() { MOST_KEPT_OF_ERRORS } else { MOST_KEPT };
            let room = most - self.kept.len();
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            capture.length += bytes.len();
        }
    }
}

#[derive(PartialEq)]
enum InString {
    Goes,
    Escaped,
    Ended,
}

/// How many bytes of a string are dealt with, and how it stands then.
fn in_string(bytes: &[u8], escaped: bool) -> (usize, InString) {
    if escaped {
        return (1, InString::Goes);
    }
    match memchr::memchr2(b'"', b'\\', bytes) {
        Some(at) if bytes[at] == b'"' => (at + 1, InString::Ended),
        Some(at) => (at + 1, InString::Escaped),
        None => (bytes.len(), InString::Goes),
    }
}

fn is_of_literal(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')
}
