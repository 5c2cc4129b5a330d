//! What a model said, whole.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::receipt::Facts;

/// An answer, and what it cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// What kind of bytes `body` has: JSON for most models, a picture's or sound's type for some.
    pub content_type: String,
    /// The vendor's bytes, untouched.
    pub body: Bytes,
    /// The call's sealed receipt.
    pub receipt: Facts,
}

/// Vectors, one a text, and what they cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Embeddings {
    /// In the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// The call's sealed receipt.
    pub receipt: Facts,
}

/// The vendor's wrapping of what is native.
#[derive(Deserialize)]
pub(super) struct Envelope {
    pub(super) result: Vectors,
}

#[derive(Deserialize)]
pub(super) struct Vectors {
    pub(super) data: Vec<Vec<f32>>,
}

impl Answer {
    /// The vendor's `result`, or all of an answer that has none, read as what you expect.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.result()?)
    }

    /// What a language model wrote, in either of the shapes that the vendor's models answer in.
    pub fn text(&self) -> Option<String> {
        let result = self.result().ok()?;
        let words = result.get("response").or_else(|| result.pointer("/choices/0/message/content"))?;
        match words {
            Value::String(words) => Some(words.clone()),
            // JSON mode.
            Value::Object(_) | Value::Array(_) => Some(words.to_string()),
            _ => None,
        }
    }

    fn result(&self) -> Result<Value, serde_json::Error> {
        let mut whole: Value = serde_json::from_slice(&self.body)?;
        Ok(match whole.get_mut("result") {
            Some(result) => result.take(),
            None => whole,
        })
    }
}
