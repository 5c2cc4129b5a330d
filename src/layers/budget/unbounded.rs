//! Calls whose cost nothing bounds, and those that only their model's whole window does.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::Error;
use crate::amount::Amount;
use crate::call::Call;
use crate::estimate::{Unbounded, is_unlimited, unbounded};
use crate::neurons::Neurons;

/// What becomes of a call whose cost nothing bounds, where a budget that refuses counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Unpriced {
    /// It is refused, with what to add.
    #[default]
    Refuse,
    /// It passes while the budget is not used up, reserves what is likely, and may overspend.
    Allow,
    /// It reserves this much, and may overspend where it costs more.
    AtMost(Neurons),
}

/// The refusal, with what to add to the request or to the config. `is_clamped`: the gate writes limits into requests.
pub(super) fn error(call: &Call, rule: &Rule, is_clamped: bool) -> Error {
    let otherwise =
        ", or set [reservations] unpriced to \"allow\", or to what such a call is to reserve, such as \"50 neurons\"";
    let mend = mend(call, is_clamped) + otherwise;
    Error::CostUnbounded { budget: rule.name.clone(), model: call.model.id.to_string(), mend }
}

/// What to add to the request or to the config, so that the call has a bound.
pub(super) fn mend(call: &Call, is_clamped: bool) -> String {
    let model = &*call.model.id;
    let entry = format!("[models.\"{model}\"]");
    match unbounded(call) {
        Some(Unbounded::Answer) => {
            let clamp = if is_clamped { "" } else { ", or set clamp_max_tokens = true in [reservations]" };
            format!(
                "give max_tokens as a positive whole number{clamp}, or add `context` or `max_output_tokens` to {entry}"
            )
        }
        Some(Unbounded::Translation) => {
            format!("add `max_output_tokens`, the most tokens that it makes of a text, to {entry}")
        }
        Some(Unbounded::Sound) => {
            format!("add `max_audio_seconds`, the longest sound of a call, to {entry}")
        }
        Some(Unbounded::Media) => {
            format!("send pictures themselves instead of links to them, or add `context` to {entry}")
        }
        Some(Unbounded::Prices) if model.eq_ignore_ascii_case("cloudflare/auto") => {
            "name the models that it may choose from in the header cf-aig-allowed-models, each of them one that is listed".into()
        }
        Some(Unbounded::Prices) | None => format!("add its `prices` to {entry}"),
    }
}

/// For a call that may use its model's whole window because it names no limit.
pub(super) fn limit_hint(call: &Call, is_clamped: bool) -> Option<String> {
    let window = call.model.context.filter(|_| !is_clamped && is_unlimited(call))?;
    Some(format!(
        "without a limit an answer may have all of the model's window of {window} tokens: give max_tokens, or set \
         clamp_max_tokens = true in [reservations]; "
    ))
}

impl TryFrom<String> for Unpriced {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match &*text {
            "refuse" => Ok(Self::Refuse),
            "allow" => Ok(Self::Allow),
            amount => match amount.parse::<Amount>() {
                Ok(Amount { neurons, .. }) => Ok(Self::AtMost(neurons)),
                Err(_) => {
                    Err(format!("`{text}` is neither `refuse` nor `allow` nor a sum of money, such as `50 neurons`"))
                }
            },
        }
    }
}

impl From<Unpriced> for String {
    fn from(unpriced: Unpriced) -> Self {
        unpriced.to_string()
    }
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Allow => f.write_str("allow"),
            Self::AtMost(neurons) => Amount::from(*neurons).fmt(f),
        }
    }
}
