//! Which side of the gate a call came to, and what its caller expects there.

use super::formats::{SpeechFormat, TranscriptFormat};
use crate::endpoint::ErrorForm;

/// Which side of the gate a call came to. It decides the form of the reply and of its errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Face {
    /// The vendor's: the reply passes byte for byte.
    #[default]
    Vendor,
    /// OpenAI's, for a caller who expects this.
    OpenAi(Answer),
}

/// What a caller of OpenAI's routes expects, as far as the request decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// `chat.completion`, or a stream of its chunks.
    Chat {
        /// `stream_options.include_usage`.
        usage_asked: bool,
    },
    /// A list of embeddings.
    Embeddings {
        /// `encoding_format: "base64"`: little-endian 32-bit floats in base64.
        is_base64: bool,
    },
    /// A `response`, or the stream of its events.
    Responses,
    /// Anthropic's `message`, or the stream of its events.
    Messages,
    /// `text_completion`, or a stream of such.
    Completion {
        /// `stream_options.include_usage`.
        usage_asked: bool,
    },
    /// A list of one picture, in base64.
    Images,
    /// A sound.
    Speech {
        /// `response_format`.
        format: SpeechFormat,
    },
    /// What was said.
    Transcript {
        /// `response_format`.
        format: TranscriptFormat,
        /// `timestamp_granularities` holds `word`.
        words: bool,
        /// Into English.
        is_translation: bool,
    },
    /// Documents by their worth.
    Rerank {
        /// With their texts.
        return_documents: bool,
    },
    /// Which hazards a text holds.
    Moderation,
}

impl Face {
    /// What is expected on OpenAI's side; `None` on the vendor's.
    pub fn answer(self) -> Option<Answer> {
        match self {
            Self::Vendor => None,
            Self::OpenAi(answer) => Some(answer),
        }
    }
}

impl Answer {
    /// The model's own reply is no chat's, and becomes OpenAI's as a whole, whatever its content type is.
    pub(crate) fn is_converted(self) -> bool {
        !matches!(
            self,
            Self::Chat { .. } | Self::Completion { .. } | Self::Embeddings { .. } | Self::Responses | Self::Messages
        )
    }

    /// How a refusal is told to this caller.
    pub(crate) fn error_form(self) -> ErrorForm {
        if self == Self::Messages { ErrorForm::Anthropic } else { ErrorForm::OpenAi }
    }
}
