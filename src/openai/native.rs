//! A request of OpenAI's form on its way to a model: what it becomes, and what cannot be had.

use std::borrow::Cow;

use bytes::Bytes;

use super::face::Answer;
use super::object::Object;
use crate::Error;

/// A request as the vendor takes it.
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) body: Bytes,
    pub(crate) content_type: Cow<'static, str>,
    /// Absent where the body names it.
    pub(crate) model: Option<String>,
    /// The caller's name for it, where one was given.
    pub(crate) asked: Option<String>,
    pub(crate) answer: Answer,
}

impl Native {
    /// A JSON body for a model that the path names.
    pub(super) fn json(fields: &Object<'_>, model: String, answer: Answer) -> Self {
        Self {
            body: fields.json().into(),
            content_type: "application/json".into(),
            model: Some(model),
            asked: None,
            answer,
        }
    }
}

/// Says what a request asks for that the model cannot do, and what to do instead.
pub(super) fn cannot(what: impl Into<String>) -> Error {
    Error::Malformed(what.into())
}

/// Takes a field out that the vendor does not know. Refuses any value but these, given as JSON text, with what to do instead.
pub(super) fn only(fields: &mut Object<'_>, name: &str, allowed: &[&str], instead: &str) -> Result<(), Error> {
    match fields.remove(name) {
        Some(value) if !allowed.contains(&&*value) => {
            Err(cannot(format!("\"{name}\": {value} cannot be had from Workers AI; {instead}")))
        }
        _ => Ok(()),
    }
}

/// A field that must be a text, as JSON.
pub(super) fn required<'a>(fields: &'a Object<'_>, name: &str) -> Result<&'a str, Error> {
    let value = fields.get(name).filter(|value| value.starts_with('"'));
    value.ok_or_else(|| cannot(format!("\"{name}\" is missing: give a text")))
}
