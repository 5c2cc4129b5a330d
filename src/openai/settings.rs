//! How OpenAI's routes answer.

use http::StatusCode;
use serde::{Deserialize, Serialize};

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
