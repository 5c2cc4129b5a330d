//! OpenAI's forms over the vendor's.
//!
//! The gate has two faces. The short routes `/v1/…` are its own, and give what OpenAI's documentation promises of them; the
//! vendor's paths are the vendor's, byte for byte. [`Face`] tells which one a call came to, and [`Answer`] what its caller
//! expects there; [`Settings`] choose otherwise.
//!
//! # What it does not do
//! It sends nothing and holds nothing: [`Identify`](crate::layers::identify) makes the calls, and
//! [`Compat`](crate::layers::compat) mends their replies.

pub(crate) mod object;
pub(crate) mod request;

use http::StatusCode;
use serde::{Deserialize, Serialize};

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
}

/// How OpenAI's routes answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
