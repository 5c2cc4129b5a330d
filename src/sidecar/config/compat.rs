//! `[compat]`: how the gate's own routes answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::openai::{self, Form, Reasoning};

/// `[compat]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Compat {
    /// Whose form the short routes `/v1/…` have: `openai` or `vendor`.
    pub v1: Form,
    /// The same of OpenAI's routes on the vendor's own paths.
    pub vendor_paths: Form,
    /// Under which name a model's reasoning is told on OpenAI's side: `both`, `reasoning` or `reasoning_content`.
    pub reasoning: Reasoning,
    /// The status of a refusal for money on OpenAI's side. Clients leave 402 and 403 alone, and try 429 again at once.
    pub budget_status: RefusalStatus,
    /// Send a comment to the client of a stream that has waited so long for its turn or its first token, and then again;
    /// `0s` sends none. The reply's status is 200 once a comment has left, and an error comes as an event.
    #[serde(with = "super::duration")]
    pub keepalive: Duration,
    /// Send replies in gzip or zstd to clients that ask for it. Only what is text and here as a whole: a stream would be held back.
    pub compress: bool,
    #[serde(skip_serializing)]
    openai_streams: Retired,
}

/// A status of 400 to 499.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RefusalStatus(http::StatusCode);

/// `openai_streams`, whose work `v1` does now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Retired;

impl Default for Compat {
    fn default() -> Self {
        let openai::Settings { v1, vendor_paths, reasoning, budget_status } = openai::Settings::default();
        Self {
            v1,
            vendor_paths,
            reasoning,
            budget_status: RefusalStatus(budget_status),
            keepalive: Duration::ZERO,
            compress: false,
            openai_streams: Retired,
        }
    }
}

impl Compat {
    /// As the door takes it.
    pub fn settings(&self) -> openai::Settings {
        let Self { v1, vendor_paths, reasoning, budget_status, .. } = *self;
        openai::Settings { v1, vendor_paths, reasoning, budget_status: budget_status.0 }
    }
}

impl TryFrom<u16> for RefusalStatus {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        let status = http::StatusCode::from_u16(code).ok().filter(http::StatusCode::is_client_error);
        status
            .map(Self)
            .ok_or_else(|| format!("{code} is no status of a refusal; give one from 400 to 499, such as 402"))
    }
}

impl From<RefusalStatus> for u16 {
    fn from(status: RefusalStatus) -> Self {
        status.0.as_u16()
    }
}

impl<'de> Deserialize<'de> for Retired {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "`openai_streams` is no more: /v1 streams have OpenAI's form by default; write `v1 = \"vendor\"` for the vendor's",
        ))
    }
}
