//! OpenAI's forms over the vendor's.
//!
//! The gate has two faces. The short routes `/v1/…` are its own, and give what OpenAI's documentation promises of them; the
//! vendor's paths are the vendor's, byte for byte. [`Face`] tells which one a call came to, and [`Answer`] what its caller
//! expects there; [`Settings`] choose otherwise.
//!
//! # What it does not do
//! It sends nothing and holds nothing: [`Identify`](crate::layers::identify) makes the calls, and
//! [`Compat`](crate::layers::compat) mends their replies.

pub(crate) mod completions;
mod form;
mod images;
pub(crate) mod models;
mod moderations;
mod native;
pub(crate) mod object;
pub(crate) mod request;
mod rerank;
mod route;
mod speech;
mod transcriptions;

use bytes::Bytes;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use self::object::{Object, count};
pub(crate) use self::route::Route;
pub use self::speech::SpeechFormat;
pub use self::transcriptions::TranscriptFormat;
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

/// How OpenAI's routes answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose form `/v1/…` has.
    pub v1: Form,
    /// Whose form OpenAI's routes on the vendor's own paths have: `/client/v4/…/ai/v1/…` and the AI Gateway's.
    pub vendor_paths: Form,
    /// Under which name a model's reasoning is told.
    pub reasoning: Reasoning,
    /// The status of a refusal for money, which no early retry mends.
    pub budget_status: StatusCode,
}

/// Whose form a reply has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As OpenAI documents it.
    OpenAi,
    /// As the vendor sends it.
    Vendor,
}

/// The field of a message or delta that holds the model's reasoning. OpenAI has none; clients look for one of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// Both of them, with the same text.
    #[default]
    Both,
    /// `reasoning` alone.
    Reasoning,
    /// `reasoning_content` alone.
    ReasoningContent,
}

/// A model's own reply, to a call of one of the gate's own routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) is_json: bool,
    /// The body that was sent to the model.
    pub(crate) request: &'a [u8],
    /// The model that was asked.
    pub(crate) model: &'a str,
    /// The call's name.
    pub(crate) id: &'a str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// What was probably read, where the model does not tell.
    pub(crate) likely_tokens: u64,
}

/// A reply in OpenAI's form.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The model's own reply is no chat's, and becomes OpenAI's as a whole, whatever its content type is.
    pub(crate) fn is_made(self) -> bool {
        !matches!(
            self,
            Self::Chat { .. } | Self::Completion { .. } | Self::Embeddings { .. } | Self::Responses | Self::Messages
        )
    }

    /// How a refusal is told to this caller.
    pub(crate) fn error_form(self) -> ErrorForm {
        if self == Self::Messages { ErrorForm::Anthropic } else { ErrorForm::OpenAi }
    }

    /// The reply that the caller expects; `None` where the model's is already so, or nothing can be made of it.
    pub(crate) fn made(self, reply: &Reply<'_>) -> Option<Made> {
        match self {
            Self::Images => images::made(reply),
            Self::Speech { format } => speech::made(reply, format),
            Self::Transcript { format, words, is_translation } => {
                transcriptions::made(reply, format, words, is_translation)
            }
            Self::Rerank { return_documents } => rerank::made(reply, return_documents),
            Self::Moderation => moderations::made(reply),
            Self::Chat { .. }
            | Self::Completion { .. }
            | Self::Embeddings { .. }
            | Self::Responses
            | Self::Messages => None,
        }
    }
}

impl Made {
    fn json(json: String) -> Self {
        Self { content_type: "application/json", body: json.into() }
    }

    fn text(text: String) -> Self {
        Self { content_type: "text/plain; charset=utf-8", body: text.into() }
    }
}

impl Reply<'_> {
    /// The inside of Cloudflare's envelope, or the whole where there is none.
    fn result(&self) -> Option<Vec<u8>> {
        let reply = Object::read(self.body)?;
        Some(reply.get("result").map_or_else(|| self.body.to_vec(), |result| result.as_bytes().to_vec()))
    }

    fn id(&self, kind: &str) -> String {
        format!("{kind}-{}", self.id)
    }

    /// The tokens that were read.
    fn tokens(&self, result: &Object<'_>) -> u64 {
        let told = result.object("usage").and_then(|usage| usage.get("prompt_tokens").and_then(count));
        told.unwrap_or(self.likely_tokens)
    }

    #[cfg(test)]
    fn of_json(body: &[u8]) -> Reply<'_> {
        Reply { body, is_json: true, request: b"", model: "m", id: "7", created: 7, likely_tokens: 1 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            v1: Form::OpenAi,
            vendor_paths: Form::Vendor,
            reasoning: Reasoning::default(),
            budget_status: StatusCode::PAYMENT_REQUIRED,
        }
    }
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

impl Reasoning {
    /// The names, each of which is to hold the text.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Both => &["reasoning", "reasoning_content"],
            Self::Reasoning => &["reasoning"],
            Self::ReasoningContent => &["reasoning_content"],
        }
    }
}
