//! What one JSON document of a reply was found to say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::StatusCode;
use serde_json::Value;

use super::keys::EventType;
use super::place::{Kept, Place};
use super::usage::{self, Counts};
use crate::audio;
use crate::vendor_error::{VendorError, is_nothing};

/// See the [module](self).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// It is one JSON value from its beginning to its end. What is not has told nothing, but text may have flowed.
    pub(super) is_whole: bool,
    root: Scope,
    wrap: Scope,
    choice: Scope,
    /// Of the choices that are over.
    choice_error: Option<Box<[u8]>>,
    has_failed_choice: bool,
    /// A batch's items.
    pub(super) batch_items: u64,
    /// The sum of a batch's items.
    pub(super) items: Option<Counts>,
    /// Of a batch's item, while it comes.
    item_usage: Option<Counts>,
    /// Of an `output`, while it comes.
    pub(super) item: Item,
    /// Bytes of generated text, as they are written in JSON.
    pub(super) text_bytes: u64,
    /// Milliseconds of a sound that it holds.
    speech_ms: Option<u64>,
    /// `type`.
    pub(super) event: EventType,
    is_no_success: bool,
    /// `model`, where it was looked for.
    pub(super) model: Option<Box<str>>,
    /// `code` and `message` beside each other, in an event that is an error as a whole.
    code: Value,
    message: Value,
    pub(super) has_choices: bool,
    pub(super) has_choice: bool,
    pub(super) has_response: bool,
    pub(super) has_output: bool,
    /// Its usage is that of a message that has only begun.
    pub(super) opens_message: bool,
}

/// What one object of the envelope says: the outermost, the one within, or a choice.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scope {
    usage: Option<Counts>,
    metrics: Option<Counts>,
    sound_ms: Option<u64>,
    error: Option<Box<[u8]>>,
    errors: Option<Box<[u8]>>,
    status: Status,
    /// `"object": "response"`.
    is_response: bool,
    /// `"finish_reason": "error"`.
    has_finished_in_error: bool,
    /// It holds something that a client may use.
    pub(super) is_usable: bool,
    /// The same of its `output`.
    pub(super) is_output_usable: bool,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Item {
    pub(super) is_usable: bool,
    is_thought: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeName {
    Root,
    Wrap,
    Choice,
}

/// What a document says in `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    None,
    Pending,
    Failed,
    Incomplete,
    Other,
}

impl Found {
    pub(super) fn scope(&mut self, name: ScopeName) -> &mut Scope {
        match name {
            ScopeName::Root => &mut self.root,
            ScopeName::Wrap => &mut self.wrap,
            ScopeName::Choice => &mut self.choice,
        }
    }

    fn scopes(&self) -> [&Scope; 3] {
        [&self.wrap, &self.root, &self.choice]
    }

    /// A list of choices begins, in the place of any before it.
    pub(super) fn open_choices(&mut self) {
        (self.choice, self.choice_error, self.has_failed_choice) = Default::default();
        (self.has_choices, self.has_choice) = (true, false);
    }

    /// Takes the JSON of a value that was looked for; of `length` bytes these are the first.
    pub(super) fn keep(&mut self, what: Kept, scope: ScopeName, json: &[u8], length: usize) {
        let is_whole = json.len() == length;
        match what {
            Kept::Usage => self.scope(scope).usage = is_whole.then(|| Counts::read(json)).flatten(),
            Kept::Metrics => self.scope(scope).metrics = is_whole.then(|| Counts::read(json)).flatten(),
            Kept::Sound => {
                let told = is_whole.then(|| usage::duration_ms(json)).flatten();
                let sound = &mut self.scope(scope).sound_ms;
                *sound = told.or(*sound);
            }
            Kept::Speech => self.speech_ms = Some(speech_ms(json, length)),
            Kept::Error => self.scope(scope).error = error(json),
            Kept::Errors => self.scope(scope).errors = error(json),
            Kept::Success => self.is_no_success = json == b"false",
            Kept::Type => self.event = EventType::of(&text(json)),
            Kept::Status => self.scope(scope).status = Status::of(&text(json)),
            Kept::Object => self.scope(scope).is_response = json == b"\"response\"",
            Kept::Model => self.model = serde_json::from_slice(json).ok().or(self.model.take()),
            Kept::FinishReason => self.scope(scope).has_finished_in_error = json == b"\"error\"",
            Kept::Code => self.code = serde_json::from_slice(json).unwrap_or_default(),
            Kept::Message => self.message = serde_json::from_slice(json).unwrap_or_default(),
            Kept::ItemType => self.item.is_thought = json == b"\"reasoning\"",
            Kept::ItemUsage => self.item_usage = Counts::read(json).or(self.item_usage),
        }
    }

    /// A container of this place is over.
    pub(super) fn close(&mut self, place: Place, scope: ScopeName) {
        match place {
            Place::Item => {
                let item = std::mem::take(&mut self.item);
                self.scope(scope).is_output_usable |= item.is_usable && !item.is_thought;
            }
            // Another choice comes, and a good one does not mend a failed one.
            Place::Choice { .. } => {
                let choice = &mut self.choice;
                self.choice_error = self.choice_error.take().or_else(|| choice.error.take());
                self.has_failed_choice |= std::mem::take(&mut choice.has_finished_in_error);
            }
            Place::BatchItem => {
                self.batch_items += 1;
                if let Some(counts) = self.item_usage.take() {
                    match &mut self.items {
                        Some(sum) => sum.add(&counts),
                        none => *none = Some(counts),
                    }
                }
            }
            _ => {}
        }
    }

    /// The usage that is told, once: the answer's own, else the outermost, else that of the first choice. Of a batch it is the sum
    /// of its items, or what is told beside them, whichever is more.
    pub(super) fn usage(&self) -> Option<Counts> {
        let told = self.scopes().into_iter().filter_map(|scope| scope.usage);
        let whole = told.clone().find(|counts| counts.is_told() || counts.is_absurd).or_else(|| { told }.next());
        match (whole, self.items) {
            (Some(whole), Some(items)) if !whole.is_absurd && items.tokens() > whole.tokens() => Some(items),
            (whole, items) => whole.or(items),
        }
    }

    /// Tokens told as `metrics`, where some models keep them.
    pub(super) fn metrics(&self) -> Option<Counts> {
        self.scopes().into_iter().find_map(|scope| scope.metrics)
    }

    /// Milliseconds of sound: told, or as long as the sound that is here.
    pub(super) fn audio_ms(&self) -> (Option<u64>, Option<u64>) {
        (self.scopes().into_iter().find_map(|scope| scope.sound_ms), self.speech_ms)
    }

    /// The error that it tells of.
    pub(super) fn error(&self, event: EventType) -> Option<VendorError> {
        const STATUS: StatusCode = StatusCode::OK;
        let told = [&self.root.errors, &self.root.error, &self.wrap.error, &self.choice_error];
        if let Some(json) = told.into_iter().flatten().next() {
            // An error that is too long to be kept has a code that is not known.
            let told = serde_json::from_slice(json).unwrap_or_default();
            return Some(VendorError::of(STATUS, &told));
        }
        let has_failed = self.is_no_success
            || self.has_failed_choice
            || matches!(event, EventType::Error | EventType::ResponseFailed)
            || self.scopes().iter().any(|scope| scope.status == Status::Failed || scope.has_finished_in_error);
        if has_failed {
            let told = serde_json::json!({ "code": self.code, "message": self.message });
            return Some(VendorError::of(STATUS, &told));
        }
        let is_incomplete = event == EventType::ResponseIncomplete
            || self.scopes().iter().any(|scope| scope.status == Status::Incomplete && scope.is_response);
        is_incomplete.then(|| VendorError::incomplete(STATUS))
    }

    /// Whether it holds something that a client may use: part of an answer, if not all of it.
    pub(super) fn is_usable(&self, event: EventType) -> bool {
        if matches!(event, EventType::ResponseOpening | EventType::ResponseThought | EventType::MessageOpening) {
            return false;
        }
        if self.has_choices {
            return self.choice.is_usable;
        }
        // A response gives back all that the request asked for; its answer is in `output`.
        self.scopes().iter().any(|scope| scope.is_output_usable || scope.is_usable && !scope.is_response)
    }

    /// The vendor says that the answer is still to come.
    pub(super) fn is_pending(&self) -> bool {
        self.root.status == Status::Pending || self.wrap.status == Status::Pending
    }

    /// Whether it says more than that an answer has begun.
    pub(super) fn tells(&self, event: EventType) -> bool {
        if self.text_bytes > 0 || self.is_usable(event) {
            return true;
        }
        let is_pending = self.root.status == Status::Pending;
        let is_opening = matches!(event, EventType::ResponseOpening | EventType::MessageOpening);
        let is_empty = self.has_choices || self.has_response || self.root.usage.is_some();
        !(is_opening || is_pending || is_empty)
    }
}

impl Status {
    fn of(name: &[u8]) -> Self {
        match name {
            b"" => Self::None,
            b"processing" | b"queued" | b"running" | b"in_progress" | b"starting" => Self::Pending,
            b"failed" => Self::Failed,
            b"incomplete" | b"cancelled" => Self::Incomplete,
            _ => Self::Other,
        }
    }
}

/// The JSON of an error; `None` where it holds nothing. One that is cut off is an error all the same.
fn error(json: &[u8]) -> Option<Box<[u8]>> {
    if matches!(json, b"null" | b"[]" | b"{}" | b"\"\"" | b"false" | b"0") {
        return None;
    }
    let is_empty = serde_json::from_slice(json).is_ok_and(|told: Value| is_nothing(&told));
    (!is_empty).then(|| json.into())
}

/// The text of a JSON string; of anything else none.
fn text(json: &[u8]) -> Vec<u8> {
    serde_json::from_slice::<String>(json).unwrap_or_default().into_bytes()
}

/// The length of a base64 sound of which the beginning is here, its opening quote included.
fn speech_ms(base64: &[u8], length: usize) -> u64 {
    let text = base64.strip_prefix(b"\"").unwrap_or(base64);
    let text = &text[..text.iter().position(|byte| matches!(byte, b'=' | b'"')).unwrap_or(text.len())];
    let head = STANDARD_NO_PAD.decode(&text[..text.len() / 4 * 4]).unwrap_or_default();
    audio::measure_head(&head, (length as u64).saturating_sub(2) * 3 / 4)
}
