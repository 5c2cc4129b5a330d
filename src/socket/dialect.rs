//! What is said on a model's WebSocket.

use serde::{Deserialize, Serialize};

/// A model's messages. They are the partner's own, which the vendor relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dialect {
    /// Audio in, `Results` out: Deepgram's `/v1/listen` (nova-3).
    Listen,
    /// Audio in, `TurnInfo` out: Deepgram's `/v2/listen` (flux).
    Turns,
    /// `Speak` in, audio out: Deepgram's `/v1/speak` (aura).
    Speak,
    /// Audio in, and words that nobody has written down (smart-turn).
    Audio,
}

#[cfg(feature = "sockets")]
impl Dialect {
    /// What asks the vendor to say its last words and end.
    pub(crate) fn finish(self) -> Option<&'static str> {
        match self {
            Self::Listen | Self::Turns => Some(r#"{"type":"CloseStream"}"#),
            Self::Speak => Some(r#"{"type":"Close"}"#),
            Self::Audio => None,
        }
    }

    /// A message of the gate's to the client, as the vendor would say it.
    pub(crate) fn message(self, code: &str, why: &str) -> Option<String> {
        let message = match self {
            Self::Listen => serde_json::json!({"type": "Error", "err_code": code, "err_msg": why, "description": why}),
            // Its sequence numbers are the vendor's; the client reads on by the type.
            Self::Turns => serde_json::json!({"type": "Error", "sequence_id": 0, "code": code, "description": why}),
            Self::Speak => serde_json::json!({"type": "Warning", "code": code, "description": why}),
            Self::Audio => return None,
        };
        Some(message.to_string())
    }
}
