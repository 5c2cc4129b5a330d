//! How a reply tells what was used: when, and in which words.

use std::str::FromStr;

use serde_json::{Value, json};

use crate::neurons::Neurons;
use crate::usage::Usage;

/// How usage is told. As a header: `x-simulate-usage: running`, `none`, `end,strings`, `both`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UsageSettings {
    /// Absent: as the model does.
    pub(super) style: Option<UsageStyle>,
    pub(super) words: Words,
}

/// When a stream tells its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageStyle {
    /// In a chunk of its own at the end.
    End,
    /// In each chunk, the sum so far.
    Running,
    /// The prompt's in the first, one token in each, and a native chunk with the sum to close.
    Increments,
    Nowhere,
}

/// In which words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Words {
    /// `prompt_tokens` and `completion_tokens`.
    #[default]
    Chat,
    /// `input_tokens` and `output_tokens`.
    Responses,
    /// Both, with the same counts.
    Both,
    /// Counts are texts.
    Strings,
    /// Within the choice rather than beside it.
    InChoice,
    /// Figures that no call can have.
    Absurd,
}

impl FromStr for UsageSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut telling = Self::default();
        for word in text.split(',').map(str::trim) {
            match word {
                "end" => telling.style = Some(UsageStyle::End),
                "running" => telling.style = Some(UsageStyle::Running),
                "increments" => telling.style = Some(UsageStyle::Increments),
                "none" => telling.style = Some(UsageStyle::Nowhere),
                "chat" => telling.words = Words::Chat,
                "responses" => telling.words = Words::Responses,
                "both" => telling.words = Words::Both,
                "strings" => telling.words = Words::Strings,
                "in-choice" => telling.words = Words::InChoice,
                "absurd" => telling.words = Words::Absurd,
                _ => return Err(format!("{word:?} is no way to tell usage")),
            }
        }
        Ok(telling)
    }
}

impl Words {
    /// Usage in these words.
    pub(super) fn tell(self, usage: &Usage, neurons: Option<Neurons>) -> Value {
        let (read, written, cached) = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens);
        let mut told = match self {
            Self::Chat | Self::InChoice | Self::Both => usage_json(usage, None),
            Self::Responses => json!({}),
            Self::Strings => json!({
                "prompt_tokens": read.to_string(), "completion_tokens": written.to_string(),
                "total_tokens": (read + written).to_string(), "prompt_tokens_details": {"cached_tokens": cached.to_string()}
            }),
            Self::Absurd => json!({"prompt_tokens": 1e15, "completion_tokens": -7, "total_tokens": 9.1e18}),
        };
        if matches!(self, Self::Responses | Self::Both) {
            (told["input_tokens"], told["output_tokens"]) = (json!(read), json!(written));
            told["input_tokens_details"] = json!({"cached_tokens": cached});
            told["total_tokens"] = json!(read + written);
        }
        if let Some(neurons) = neurons {
            told["neurons"] = match self {
                Self::Strings => json!(neurons.as_f64().to_string()),
                Self::Absurd => json!(1e15),
                _ => json!(neurons.as_f64()),
            };
        }
        told
    }

    /// Puts told usage into a reply or a chunk.
    pub(super) fn put(self, reply: &mut Value, told: Value) {
        if self == Self::InChoice && reply["choices"][0].is_object() {
            reply["choices"][0]["usage"] = told;
        } else {
            reply["usage"] = told;
        }
    }
}

/// As the vendor tells it.
pub(super) fn usage_json(usage: &Usage, neurons: Option<Neurons>) -> Value {
    let (read, written) = (usage.input_tokens, usage.output_tokens);
    let mut json = json!({
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens}
    });
    if let Some(neurons) = neurons {
        json["neurons"] = json!(neurons.as_f64());
    }
    json
}
