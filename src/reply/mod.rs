//! Reads a reply as it passes: what it used, and how it ended by its own word.
//!
//! What is an answer is judged when it is over, and by its own end: `[DONE]`, `response.completed`, `message_stop`, or the last
//! bracket of a JSON document. The transport's end alone is none. An error may come in the body of a success, as a whole or in
//! any event of a stream; see [`VendorError`] for what it means.
//!
//! # What it does not do
//! It keeps no body, changes none and prices nothing: the [meter](crate::layers::meter) does.

mod form;
mod found;
mod keys;
#[cfg(test)]
mod messages_tests;
mod place;
mod reading;
mod scan;
mod tally;
#[cfg(test)]
mod tests;
mod usage;

use http::StatusCode;

pub(crate) use self::form::{Asked, Form};
use self::form::{Content, Kind};
use self::found::Found;
use self::keys::EventType;
use self::scan::Scanner;
pub(crate) use self::tally::Tally;
pub(crate) use self::usage::MOST_NEURONS;
use crate::receipt::Ending;
use crate::sse::{Field, Part, Splitter};
use crate::vendor_error::VendorError;

/// Reads one reply: see the [module](self).
#[derive(Debug)]
pub(crate) struct Reader {
    form: Form,
    /// Known when the first byte is here that is no white space.
    kind: Option<Kind>,
    scanner: Scanner,
    events: Events,
    tally: Tally,
    /// The model that answered, where the request does not tell it.
    model: Option<Box<str>>,
    /// Bytes have come, if only white space.
    is_begun: bool,
    /// More has been said than that an answer begins.
    has_told: bool,
    /// Text has been written that a client can read.
    has_written: bool,
    /// Something has been said that a client may use.
    is_usable: bool,
    /// It has come to its own end.
    is_ended: bool,
    /// Nothing more comes.
    is_over: bool,
    error: Option<VendorError>,
}

/// Where in a stream of events the reader is.
#[derive(Debug, Default)]
struct Events {
    splitter: Splitter,
    /// The event's name, as far as it matters.
    name: Name,
    /// Of the line at hand: so many bytes of `[DONE]` have matched, as long as nothing else has come.
    done: Option<usize>,
    in_line: bool,
    ends_as: EndsAs,
}

/// By what a stream ends, which its events tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum EndsAs {
    /// `[DONE]`.
    #[default]
    Chunks,
    /// `response.completed`, or the like.
    Response,
    /// `message_stop`.
    Message,
}

/// The name of an event.
#[derive(Debug, Default)]
struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
    is_whole: bool,
}

/// Longer than any name that is known as a whole.
const NAME_BYTES: usize = 32;
const DONE: &[u8] = b"[DONE]";
/// White space, and the bytes of a byte order mark.
const BEFORE: &[u8] = b" \t\r\n\xef\xbb\xbf";

impl Reader {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            kind: form.is_opaque().then_some(Kind::Opaque),
            form,
            scanner: Scanner::new(form.reading()),
            events: Events::default(),
            tally: Tally::default(),
            model: None,
            is_begun: false,
            has_told: false,
            has_written: false,
            is_usable: false,
            is_ended: false,
            is_over: false,
            error: None,
        }
    }

    /// How a reply ends that is here in one piece.
    pub(crate) fn judge(form: Form, body: &[u8]) -> Ending {
        let mut reader = Self::new(form);
        reader.push(body);
        reader.finish();
        reader.ending()
    }

    /// The next piece.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.is_begun |= !bytes.is_empty();
        let kind = match self.kind {
            Some(kind) => kind,
            None => {
                let Some(begun) = bytes.iter().position(|byte| !BEFORE.contains(byte)) else { return };
                bytes = &bytes[begun..];
                let kind = self.form.kind(bytes[0]);
                self.kind = Some(kind);
                self.scanner.reads_events(kind == Kind::Events);
                kind
            }
        };
        match kind {
            Kind::Events => self.read_events(bytes),
            Kind::Document => self.scanner.push(bytes),
            Kind::Opaque => {}
        }
    }

    /// Nothing more comes: the transport has ended well.
    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        match self.kind {
            Some(Kind::Events) => {
                if let Some(field) = self.events.splitter.finish() {
                    self.end_line(field);
                }
                self.end_event();
            }
            Some(Kind::Document) => self.end_document(),
            Some(Kind::Opaque) | None => {}
        }
    }

    /// What it used, by what came so far; all of it once it is [finished](Self::finish) or given up.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The model that it says has answered; looked for only where no model that is known was asked.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The reply is given up where it is; text of a document that is not whole has flowed all the same.
    pub(crate) fn give_up(&mut self) {
        if !self.is_over && self.scanner.has_begun() {
            let found = self.scanner.finish();
            self.tally.text_bytes += found.text_bytes;
        }
    }

    /// How it ended, by its own word; [`Ending::Open`] as long as that is not known.
    pub(crate) fn ending(&self) -> Ending {
        match (&self.error, self.kind) {
            (Some(error), _) => Ending::Failed(error.meaning),
            (None, Some(Kind::Opaque)) if self.form.content == Content::Encoded || !self.is_over => Ending::Open,
            (None, Some(Kind::Opaque)) if self.is_begun => Ending::Answer,
            (None, Some(Kind::Opaque)) => Ending::Empty,
            (None, None) if self.is_over && self.form.content == Content::Text && !self.form.is_stream() => {
                Ending::Empty
            }
            _ if self.is_ended && self.is_usable => Ending::Answer,
            _ if self.is_ended => Ending::Empty,
            _ if self.is_over => Ending::CUT_OFF,
            _ => Ending::Open,
        }
    }

    /// The error that it told of; what is over and has not come to its end is one too.
    pub(crate) fn error(&self) -> Option<VendorError> {
        let told = self.error.clone();
        told.or_else(|| (self.ending() == Ending::CUT_OFF).then(|| VendorError::cut_off(StatusCode::OK)))
            .map(|error| VendorError { has_run: self.has_run(), ..error })
    }

    /// A model has written something, which costs.
    pub(crate) fn has_run(&self) -> bool {
        self.has_written || self.is_usable || self.tally.output_tokens > 0
    }

    /// Whether more has been said than that an answer begins, so that it may be handed on.
    pub(crate) fn has_told(&self) -> bool {
        self.has_told
    }

    /// Something in it may tell how it ends and what it used: it is neither a picture nor in an encoding.
    pub(crate) fn is_readable(&self) -> bool {
        self.kind != Some(Kind::Opaque)
    }

    /// It is a stream of events.
    pub(crate) fn is_events(&self) -> bool {
        self.kind == Some(Kind::Events)
    }

    /// It is one JSON document, which tells its usage at any place.
    pub(crate) fn is_document(&self) -> bool {
        self.kind == Some(Kind::Document)
    }

    fn read_events(&mut self, mut bytes: &[u8]) {
        while let Some(part) = self.events.splitter.next(&mut bytes) {
            match part {
                Part::Value(Field::Data, value) => self.data(value),
                Part::Value(Field::Event, value) => self.events.name.push(value),
                Part::Value(Field::Other, _) => {}
                Part::LineEnd(field) => self.end_line(field),
                Part::EventEnd => self.end_event(),
            }
        }
    }

    fn data(&mut self, value: &[u8]) {
        if !std::mem::replace(&mut self.events.in_line, true) {
            // Some end an event with a single line break; a document over several lines is one all the same.
            if self.scanner.is_complete() {
                self.end_document();
            }
            self.events.done = (!self.scanner.has_begun()).then_some(0);
            if EventType::of(self.events.name.bytes()).is_of_response() {
                self.scanner.unwraps_response();
            }
        }
        let matched = self.events.done;
        self.events.done = matched.and_then(|matched| match_done(value, matched));
        if self.events.done.is_none() {
            self.scanner.push(&DONE[..matched.unwrap_or(0)]);
            self.scanner.push(value);
        }
    }

    fn end_line(&mut self, field: Field) {
        match field {
            Field::Data => {}
            Field::Event => return self.events.name.is_whole = true,
            Field::Other => return,
        }
        self.events.in_line = false;
        match self.events.done.take() {
            Some(matched) if matched == DONE.len() => self.is_ended |= self.events.ends_as == EndsAs::Chunks,
            _ => self.scanner.push(b"\n"),
        }
    }

    fn end_event(&mut self) {
        if self.scanner.has_begun() {
            self.end_document();
        }
        self.events.name = Name::default();
    }

    fn end_document(&mut self) {
        let mut found = self.scanner.finish();
        let named = EventType::of(self.events.name.bytes());
        self.tally.text_bytes += found.text_bytes;
        if found.is_whole {
            let event = if found.event == EventType::None { named } else { found.event };
            self.count(&found);
            self.model = self.model.take().or_else(|| found.model.take());
            self.has_told |= found.tells(event);
            self.has_written |= found.text_bytes > 0;
            self.is_usable |= found.is_usable(event);
            self.note(event, &found);
        } else {
            self.has_told = true;
            if named == EventType::Error {
                self.error = self.error.take().or_else(|| found.error(named));
            }
        }
        if self.kind == Some(Kind::Document) {
            self.is_ended = found.is_whole;
        }
    }

    fn count(&mut self, found: &Found) {
        if let Some(usage) = found.usage() {
            self.tally.add(&usage);
            self.tally.is_opening = found.opens_message;
        }
        if let Some(metrics) = found.metrics()
            && !self.tally.has_tokens
        {
            self.tally.add(&metrics);
        }
        self.tally.batch_items = self.tally.batch_items.max(found.batch_items);
        self.tally.is_pending = found.is_pending();
        let (told, held) = found.audio_ms();
        self.tally.audio_ms = told.or(self.tally.audio_ms).or(held);
    }

    /// What an event says of the stream, or a document of itself.
    fn note(&mut self, event: EventType, found: &Found) {
        if event.is_of_response() {
            self.events.ends_as = EndsAs::Response;
        } else if event.is_of_message() {
            self.events.ends_as = EndsAs::Message;
        }
        self.is_ended |= matches!(
            event,
            EventType::ResponseCompleted
                | EventType::ResponseFailed
                | EventType::ResponseIncomplete
                | EventType::MessageStop
        );
        if self.error.is_none() {
            self.error = found.error(event);
        }
    }
}

// === impl Name ===

impl Name {
    /// Of a name that is too long the beginning stays, which tells its family.
    fn push(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.is_whole) {
            self.length = 0;
        }
        let length = bytes.len().min(NAME_BYTES - self.length);
        self.bytes[self.length..self.length + length].copy_from_slice(&bytes[..length]);
        self.length += length;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn match_done(line: &[u8], mut matched: usize) -> Option<usize> {
    for byte in line {
        match byte {
            b' ' if matched == 0 || matched == DONE.len() => {}
            _ if DONE.get(matched) == Some(byte) => matched += 1,
            _ => return None,
        }
    }
    Some(matched)
}
