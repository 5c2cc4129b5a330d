//! What form a reply has, as far as its head and its first byte tell.

use http::{HeaderMap, header};

use super::reading::Reading;
use crate::call::{Call, Endpoint};
use crate::catalogue::Slot;
use crate::headers::is_json;

/// What was asked for, as far as the reading of its reply depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    reading: Reading,
    wants_stream: bool,
}

/// How a reply is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(super) content: Content,
    pub(super) asked: Asked,
}

/// What a reply's head says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Server-sent events.
    Events,
    /// JSON, or a page where JSON was to be.
    Json,
    /// Text of any kind, or nobody says what.
    Text,
    /// A picture, a sound.
    Opaque,
    /// In an encoding, which hides what it is.
    Encoded,
}

/// What a body is, once its first byte is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Events,
    Document,
    Opaque,
}

impl Asked {
    /// By this call.
    pub(crate) fn by(call: &Call) -> Self {
        let unwraps_response = call.endpoint == Endpoint::Responses;
        let wants_model = call.model.slot == Slot::OTHER;
        let reading = Reading { unwraps_response, is_batch: call.ask.batch, is_stream: false, wants_model };
        Self { reading, wants_stream: call.stream }
    }

    /// The form of a reply with these headers.
    pub(crate) fn form(self, headers: &HeaderMap) -> Form {
        Form { content: Content::of(headers), asked: self }
    }
}

impl Form {
    pub(super) fn reading(self) -> Reading {
        self.asked.reading
    }

    /// Nothing in the body tells more than the request did.
    pub(crate) fn is_opaque(self) -> bool {
        matches!(self.content, Content::Opaque | Content::Encoded)
    }

    /// The body is to come piece by piece, whatever its head says.
    pub(crate) fn is_stream(self) -> bool {
        self.asked.wants_stream || self.content == Content::Events
    }

    /// What a body is that begins with this byte; a wish for a stream may be answered with JSON, and an error's type is not
    /// always right.
    pub(super) fn kind(self, first: u8) -> Kind {
        let begins_event = matches!(first, b'd' | b'e' | b'i' | b'r' | b':');
        match self.content {
            Content::Opaque | Content::Encoded => Kind::Opaque,
            _ if first == b'{' => Kind::Document,
            Content::Events => Kind::Events,
            Content::Json | Content::Text if self.asked.wants_stream && begins_event => Kind::Events,
            Content::Json => Kind::Document,
            Content::Text => Kind::Opaque,
        }
    }
}

impl Content {
    fn of(headers: &HeaderMap) -> Self {
        let is_encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
        if is_encoded {
            return Self::Encoded;
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if is_json(kind) {
            return Self::Json;
        }
        match kind.to_ascii_lowercase().as_str() {
            kind if kind.starts_with("text/event-stream") => Self::Events,
            // A page of a proxy's, where an answer was to be.
            kind if is_json(kind) || kind.starts_with("text/html") => Self::Json,
            kind if kind.is_empty() || kind.starts_with("text/") => Self::Text,
            _ => Self::Opaque,
        }
    }
}
