//! The forms that a call may have.

use serde::Serialize;

use crate::catalogue::Task;

/// The form of a request, which is also the form of its reply and of its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Endpoint {
    /// `…/ai/run`: the vendor's own form.
    Run,
    /// `…/v1/chat/completions`.
    ChatCompletions,
    /// `…/v1/embeddings`.
    Embeddings,
    /// `…/v1/responses`.
    Responses,
    /// `…/v1/messages`: Anthropic's form.
    Messages,
}

impl Endpoint {
    /// Errors are wrapped in Cloudflare's envelope; else they have OpenAI's form.
    pub fn is_native(self) -> bool {
        self == Self::Run
    }

    /// What a model in no table probably does, asked this way.
    pub fn guess(self) -> Task {
        match self {
            Self::Run => Task::Unknown,
            Self::ChatCompletions | Self::Responses | Self::Messages => Task::TextGeneration,
            Self::Embeddings => Task::TextEmbeddings,
        }
    }

    /// Its name in the records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::ChatCompletions => "chat/completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }
}
