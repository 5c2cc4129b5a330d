//! From a model's own reply to the one that a caller of OpenAI's routes expects.

use super::face::Answer;
use super::reply::{Converted, NativeReply};
use super::{images, moderations, rerank, speech, transcriptions};

impl Answer {
    /// The reply that the caller expects; `None` where the model's is already so, or nothing can be made of it.
    pub(crate) fn converted(self, reply: &NativeReply<'_>) -> Option<Converted> {
        match self {
            Self::Images => images::converted(reply),
            Self::Speech { format } => speech::converted(reply, format),
            Self::Transcript { format, words, is_translation } => {
                transcriptions::converted(reply, format, words, is_translation)
            }
            Self::Rerank { return_documents } => rerank::converted(reply, return_documents),
            Self::Moderation => moderations::converted(reply),
            Self::Chat { .. }
            | Self::Completion { .. }
            | Self::Embeddings { .. }
            | Self::Responses
            | Self::Messages => None,
        }
    }
}
