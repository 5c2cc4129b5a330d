//! A model's own reply, and what it becomes in OpenAI's form.

use bytes::Bytes;

use super::object::{Object, count};

/// A model's own reply, to a call of one of the gate's own routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeReply<'a> {
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
pub(crate) struct Converted {
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

impl Converted {
    pub(super) fn json(json: String) -> Self {
        Self { content_type: "application/json", body: json.into() }
    }

    pub(super) fn events(events: String) -> Self {
        Self { content_type: "text/event-stream", body: events.into() }
    }

    pub(super) fn text(text: String) -> Self {
        Self { content_type: "text/plain; charset=utf-8", body: text.into() }
    }
}

impl NativeReply<'_> {
    /// The inside of Cloudflare's envelope, or the whole where there is none.
    pub(super) fn result(&self) -> Option<Vec<u8>> {
        let reply = Object::read(self.body)?;
        Some(reply.get("result").map_or_else(|| self.body.to_vec(), |result| result.as_bytes().to_vec()))
    }

    pub(super) fn id(&self, kind: &str) -> String {
        format!("{kind}-{}", self.id)
    }

    /// The tokens that were read.
    pub(super) fn tokens(&self, result: &Object<'_>) -> u64 {
        let told = result.object("usage").and_then(|usage| usage.get("prompt_tokens").and_then(count));
        told.unwrap_or(self.likely_tokens)
    }

    #[cfg(test)]
    pub(super) fn of_json(body: &[u8]) -> NativeReply<'_> {
        NativeReply { body, is_json: true, request: b"", model: "m", id: "7", created: 7, likely_tokens: 1 }
    }
}
