//! What a value counts for, by where it stands in a reply.
//!
//! The forms are the vendor's envelope (`result`), OpenAI's chat and completions (`choices`), OpenAI's Responses (`output`, in
//! `response` where it streams), and a batch (`responses`). Whatever is in none of the places named here is either an answer's
//! own or bookkeeping, and is not looked into.

use super::found::{Found, ScopeName};
use super::keys::Key;
use super::place::{Kept, Kind, Place};

/// How documents are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// `response` holds an answer with its usage: on `/v1/responses`. Elsewhere it holds what a model wrote.
    pub(super) unwraps_response: bool,
    /// `responses` holds the answers of a batch.
    pub(super) is_batch: bool,
    /// The documents are events of a stream.
    pub(super) is_stream: bool,
    /// Which model answered is not known from what was asked.
    pub(super) wants_model: bool,
}

/// What a scalar counts for that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Nothing,
    Answer(ScopeName),
    /// Of an item, whose kind is known at its end.
    Item,
}

/// What a value counts for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    /// Its own place, where it is a container.
    pub(super) place: Place,
    pub(super) scope: ScopeName,
    pub(super) leaf: Leaf,
    pub(super) kept: Option<Kept>,
    /// Text that a model made.
    pub(super) is_generated: bool,
}

impl Reading {
    /// What a value of this key counts for in the container `around` it. What it takes the place of is forgotten.
    pub(super) fn value(self, around: Option<(Place, ScopeName)>, key: Key, kind: Kind, found: &mut Found) -> Value {
        let Some((around, scope)) = around else {
            let place = if kind == Kind::Object { Place::Root } else { Place::Answer };
            return Value::new(place, ScopeName::Root);
        };
        let value = match around {
            Place::Root | Place::Wrap => self.of_envelope(around, scope, key, kind, found),
            Place::Choices => {
                let is_first = !std::mem::replace(&mut found.has_choice, true);
                Value::new(Place::Choice { is_first }.of_object(kind), ScopeName::Choice)
            }
            Place::Choice { is_first } => of_choice(is_first, key, kind),
            Place::Message => match key {
                Key::Written | Key::Tools | Key::Speech => Value::new(Place::Answer, scope),
                _ => Value::new(Place::Aside, scope),
            },
            Place::Output => Value::new(Place::Item.of_object(kind), scope),
            Place::Item => match key {
                Key::Type => Value::new(Place::Aside, scope).kept(Kept::ItemType),
                Key::Label | Key::Model | Key::Status => Value::new(Place::Aside, scope),
                _ => Value::new(Place::WithinItem, scope),
            },
            Place::Batch => Value::new(Place::BatchItem.of_object(kind), scope),
            // Some have one result within another.
            Place::BatchItem | Place::BatchResult if key == Key::Result => {
                Value::new(Place::BatchResult.of_object(kind), scope)
            }
            Place::BatchItem | Place::BatchResult if key == Key::Usage => {
                Value::new(Place::Aside, scope).kept(Kept::ItemUsage)
            }
            Place::BatchItem | Place::BatchResult => Value::new(Place::Answer, scope),
            within @ (Place::WithinItem | Place::Answer | Place::Aside) => Value::new(within, scope),
        };
        let is_counted = if self.is_stream && self.unwraps_response {
            // A stream of a response tells each text again at its end, and once more in the whole.
            around == Place::Root && key == Key::Delta
        } else {
            key.is_generated()
        };
        Value { is_generated: is_counted, ..value }
    }

    fn of_envelope(self, around: Place, scope: ScopeName, key: Key, kind: Kind, found: &mut Found) -> Value {
        let is_root = around == Place::Root;
        let is_scalar = matches!(kind, Kind::Text | Kind::Literal);
        let aside = Value::new(Place::Aside, scope);
        match key {
            Key::Usage => aside.kept(Kept::Usage),
            Key::Metrics => aside.kept(Kept::Metrics),
            // A response gives back the request's own `metadata`.
            Key::Sound if !self.unwraps_response => Value::new(Place::Aside, scope).kept(Kept::Sound),
            Key::Error => aside.kept(Kept::Error),
            Key::Errors if is_root => aside.kept(Kept::Errors),
            Key::Success if is_root => aside.kept(Kept::Success),
            Key::Type if is_root && is_scalar => aside.kept(Kept::Type),
            Key::Code if is_root && is_scalar => aside.kept(Kept::Code),
            Key::Message if is_root && is_scalar => aside.kept(Kept::Message),
            Key::Status if is_scalar => aside.kept(Kept::Status),
            Key::Object if is_scalar => aside.kept(Kept::Object),
            Key::Model if is_scalar && self.wants_model => aside.kept(Kept::Model),
            Key::FinishReason if is_scalar => aside.kept(Kept::FinishReason),
            Key::Result if is_root => {
                *found.scope(ScopeName::Wrap) = Default::default();
                Value::new(Place::Wrap.of_object(kind), ScopeName::Wrap)
            }
            Key::Response if is_root && self.unwraps_response => {
                *found.scope(ScopeName::Wrap) = Default::default();
                Value::new(if kind == Kind::Object { Place::Wrap } else { Place::Aside }, ScopeName::Wrap)
            }
            // Anthropic's stream opens with a message that has no word yet, and what was read.
            Key::Message if is_root && self.is_stream && kind == Kind::Object => {
                *found.scope(ScopeName::Wrap) = Default::default();
                found.opens_message = true;
                Value::new(Place::Wrap, ScopeName::Wrap)
            }
            Key::Choices => {
                found.open_choices();
                Value::new(Place::Choices.of_list(kind), ScopeName::Choice)
            }
            Key::Output => {
                (found.has_output, found.item) = (true, Default::default());
                found.scope(scope).is_output_usable = false;
                Value::new(Place::Output.of_list(kind), scope)
            }
            Key::Items if self.is_batch => {
                (found.items, found.batch_items) = (None, 0);
                Value::new(Place::Batch.of_list(kind), scope)
            }
            Key::Speech if kind == Kind::Text => Value::new(Place::Answer, scope).kept(Kept::Speech),
            Key::Response => {
                found.has_response = true;
                Value::new(Place::Answer, scope)
            }
            Key::Delta | Key::Written => Value::new(Place::Answer, scope),
            Key::Label
            | Key::Name
            | Key::Thought
            | Key::Type
            | Key::Status
            | Key::Object
            | Key::Model
            | Key::FinishReason
            | Key::Success => aside,
            // A response gives back all that the request asked for.
            _ if self.unwraps_response => aside,
            _ => Value::new(Place::Answer, scope),
        }
    }
}

fn of_choice(is_first: bool, key: Key, kind: Kind) -> Value {
    let aside = Value::new(Place::Aside, ScopeName::Choice);
    match key {
        Key::Usage if is_first => aside.kept(Kept::Usage),
        Key::Error => aside.kept(Kept::Error),
        Key::FinishReason if matches!(kind, Kind::Text | Kind::Literal) => aside.kept(Kept::FinishReason),
        Key::Message | Key::Delta if kind == Kind::Object => Value::new(Place::Message, ScopeName::Choice),
        Key::Written => Value::new(Place::Answer, ScopeName::Choice),
        _ => aside,
    }
}

impl Value {
    fn new(place: Place, scope: ScopeName) -> Self {
        let leaf = match place {
            Place::Answer => Leaf::Answer(scope),
            Place::WithinItem => Leaf::Item,
            _ => Leaf::Nothing,
        };
        Self { place, scope, leaf, kept: None, is_generated: false }
    }

    fn kept(self, what: Kept) -> Self {
        Self { kept: Some(what), ..self }
    }
}
