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
    /// `…/ai/run`, as a WebSocket.
    Socket,
}

/// The form in which an error is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorForm {
    /// Cloudflare's envelope.
    Cloudflare,
    /// OpenAI's `{"error": {…}}`.
    OpenAi,
    /// Anthropic's `{"type": "error", "error": {…}}`.
    Anthropic,
}

impl Endpoint {
    /// The vendor's own form.
    pub fn is_native(self) -> bool {
        matches!(self, Self::Run | Self::Socket)
    }

    /// How errors are told to who asks in this form.
    pub fn error_form(self) -> ErrorForm {
        match self {
            Self::Run | Self::Socket => ErrorForm::Cloudflare,
            Self::ChatCompletions | Self::Embeddings | Self::Responses => ErrorForm::OpenAi,
            Self::Messages => ErrorForm::Anthropic,
        }
    }

    /// What a model in no table probably does, asked this way.
    pub fn guess(self) -> Task {
        match self {
            Self::Run | Self::Socket => Task::Unknown,
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
            Self::Socket => "socket",
        }
    }
}

// === impl ErrorForm ===

impl ErrorForm {
    /// Of a path, where no endpoint is known.
    pub(crate) fn of_path(path: &str) -> Self {
        let ends = |with: &str| {
            path.len() >= with.len() && path.as_bytes()[path.len() - with.len()..].eq_ignore_ascii_case(with.as_bytes())
        };
        match path.get(..4) {
            _ if ends("/v1/messages") => Self::Anthropic,
            Some(begin) if begin.eq_ignore_ascii_case("/v1/") => Self::OpenAi,
            _ => Self::Cloudflare,
        }
    }
}
