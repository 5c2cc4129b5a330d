//! One budget: how much, for how long, for whom.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::notice::Share;
use super::window::Period;
use super::zone::{Weekday, Zone};
use crate::amount::Amount;
use crate::call::Call;
use crate::receipt::{Facts, Metadatum};

/// A budget. `[[budgets]]` in the config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names it in refusals and metrics.
    pub name: String,
    /// What a window, or each bucket in it, may cost. Written `"10000 neurons"` or `"5 USD"`.
    pub limit: Amount,
    /// How long it lasts.
    #[serde(default)]
    pub window: Period,
    /// The window ends now, instead of beginning at 00:00 UTC.
    #[serde(default)]
    pub sliding: bool,
    /// Where days, weeks and months begin at midnight; UTC where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Zone>,
    /// The day that a week begins with; Monday where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Weekday>,
    /// The day that a month begins with, from 1 to 31; where the month is shorter, its last one. The first where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<u8>,
    /// The parts of the limit, spent, that are told once a window, such as `[0.5, 0.8]`: see [`Notice`](super::Notice).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warn_at: Vec<Share>,
    /// A bucket of its own, with all of the limit, for each value of these together.
    #[serde(default)]
    pub split_by: Vec<Split>,
    /// Whose spending counts.
    #[serde(default)]
    pub scope: Scope,
    /// Only calls to these models; empty is all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Only calls with these keys, by their names; empty is all.
    #[serde(default)]
    pub keys: Vec<String>,
    /// What becomes of a call that it has no room for.
    #[serde(default)]
    pub on_exceeded: OnExceeded,
}

/// Whose spending counts in a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scope {
    /// What passes the gate.
    #[default]
    Gate,
    /// What an account spends, here or elsewhere, as far as the vendor's books say: see [`Budgets::book`](super::Budgets::book).
    /// Each account has a bucket.
    Account,
}

/// What a budget is split by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Split {
    /// The account that pays, as [`Call::counted_as`] has it.
    Account,
    /// The client's key.
    Key,
    /// The model.
    Model,
    /// A label of the client's key, such as `label.team`. Calls without it share a bucket.
    Label(String),
    /// An entry of `cf-aig-metadata`. Calls without it share a bucket.
    Metadata(String),
}

/// What becomes of a call that a budget has no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum OnExceeded {
    /// It is refused.
    #[default]
    Reject,
    /// It passes: the budget only counts.
    Allow,
    /// It goes to this model, which reserves for itself.
    Model(String),
}

/// One value of a split.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Other(&'a Metadatum),
    Owned(Metadatum),
    /// The call has none.
    None(()),
}

/// Parts of a limit that are told.
pub(super) const MAX_WARNINGS: usize = 8;
const USUAL_NAME_BYTES: usize = 64;
/// Longer values of a split are told apart by a hash, so that no client decides how much memory a bucket takes.
const MAX_VALUE_BYTES: usize = 96;

// === impl Rule ===

impl Rule {
    /// Gates that share a store count it together.
    pub(super) fn is_shared(&self) -> bool {
        self.scope == Scope::Gate
    }

    /// A budget for all calls that refuses what it has no room for.
    pub fn new(name: impl Into<String>, limit: impl Into<Amount>, window: Period) -> Self {
        Self {
            name: name.into(),
            limit: limit.into(),
            window,
            sliding: false,
            timezone: None,
            starts: None,
            day: None,
            warn_at: Vec::new(),
            split_by: Vec::new(),
            scope: Scope::Gate,
            models: Vec::new(),
            keys: Vec::new(),
            on_exceeded: OnExceeded::Reject,
        }
    }

    /// Whether it counts this call.
    pub(super) fn applies(&self, call: &Call) -> bool {
        let key_is_named = |name: &String| call.key.as_deref() == Some(name);
        (self.models.is_empty() || self.models.iter().any(|model| **model == *call.model.id))
            && (self.keys.is_empty() || self.keys.iter().any(key_is_named))
    }

    /// The vendor's books can tell what it counts.
    fn is_the_vendors(&self) -> bool {
        self.split_by.is_empty()
            && self.keys.is_empty()
            && !self.sliding
            && self.timezone.is_none()
            && self.day.is_none()
            && matches!(self.window, Period::Day | Period::Month)
    }

    /// What makes its buckets.
    fn splits(&self) -> &[Split] {
        if self.scope == Scope::Account { &[Split::Account] } else { &self.split_by }
    }

    pub(super) fn is_split(&self) -> bool {
        !self.splits().is_empty()
    }

    /// Its name in the ledger: a rule that counts differently is another.
    pub(super) fn ledger_name(&self) -> String {
        let sliding = if self.sliding { "/sliding" } else { "" };
        let split: Vec<_> = self.splits().iter().cloned().map(String::from).collect();
        // A part that is not set adds nothing, so that leases keep their names.
        let zone = self.timezone.as_ref().map(|zone| format!("@{zone}")).unwrap_or_default();
        let starts = self.starts.map(|day| format!("+{}", day.label())).unwrap_or_default();
        let day = self.day.map(|day| format!("+{day}")).unwrap_or_default();
        format!("{}/{}{sliding}{zone}{starts}{day}/{}", self.name, self.window.label(), split.join(","))
    }

    /// The bucket of a call, as a JSON array of its values; empty for a rule that is not split.
    pub(super) fn bucket(&self, call: &Call) -> String {
        if !self.is_split() {
            return String::new();
        }
        call.receipt.read(|facts| array(self.splits().iter().map(|split| split.value(call, facts))))
    }

    /// The bucket that is named by these values, as [`bucket`](Self::bucket) names it. Another number of values than the rule
    /// is split by names none.
    pub(super) fn bucket_of_values(&self, values: &[Metadatum]) -> Option<String> {
        if values.len() != self.splits().len() {
            return None;
        }
        if values.is_empty() {
            return Some(String::new());
        }
        let value = |value: &'_ Metadatum| match value {
            Metadatum::String(text) => Value::Text(shorten(text).into_owned().into()),
            Metadatum::Null => Value::None(()),
            other => Value::Owned(other.clone()),
        };
        Some(array(values.iter().map(value)))
    }

    /// The bucket of an account, where the rule counts accounts.
    pub(super) fn bucket_of_account(&self, account: &str) -> Option<String> {
        (self.scope == Scope::Account).then(|| array([Value::Text(shorten(account))].into_iter()))
    }
}

// === impl Split ===

impl Split {
    fn value<'a>(&self, call: &'a Call, facts: &'a Facts) -> Value<'a> {
        let text = |text: &'a str| Value::Text(shorten(text));
        match self {
            Self::Account => text(call.counted_as()),
            Self::Key => call.key.as_deref().map_or(Value::None(()), text),
            Self::Model => text(&call.model.id),
            Self::Label(name) => {
                facts.labels.as_ref().and_then(|labels| labels.get(name)).map_or(Value::None(()), |value| text(value))
            }
            Self::Metadata(name) => match facts.metadata.iter().find(|(key, _)| key == name) {
                None => Value::None(()),
                Some((_, Metadatum::String(value))) => text(value),
                Some((_, other)) => Value::Other(other),
            },
        }
    }
}

/// As JSON, piece by piece: this is on every call's path.
fn array<'a>(values: impl Iterator<Item = Value<'a>>) -> String {
    let mut json = String::with_capacity(USUAL_NAME_BYTES);
    for (place, value) in values.enumerate() {
        json.push(if place == 0 { '[' } else { ',' });
        match value {
            Value::Text(text)
                if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@/-_.: ".contains(&byte)) =>
            {
                json.extend(["\"", &text, "\""]);
            }
            // Nothing that a value can be fails to be written.
            other => json.push_str(&serde_json::to_string(&other).unwrap_or_default()),
        }
    }
    json.push(']');
    json
}

fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_VALUE_BYTES {
        return text.into();
    }
    // FNV-1a: the same in every process, for the name is kept on disk.
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let head: String = text.chars().take(MAX_VALUE_BYTES / 2).collect();
    format!("{head}~{hash:016x}").into()
}

impl TryFrom<String> for Split {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match &*text {
            "account" => Ok(Self::Account),
            "key" => Ok(Self::Key),
            "model" => Ok(Self::Model),
            other => match other.split_once('.').filter(|(_, name)| !name.is_empty()) {
                Some(("metadata", name)) => Ok(Self::Metadata(name.to_owned())),
                Some(("label", name)) => Ok(Self::Label(name.to_owned())),
                _ => Err(format!(
                    "a budget cannot be split by `{text}`: by account, key, model, label.NAME or metadata.NAME"
                )),
            },
        }
    }
}

impl From<Split> for String {
    fn from(split: Split) -> Self {
        match split {
            Split::Account => "account".into(),
            Split::Key => "key".into(),
            Split::Model => "model".into(),
            Split::Label(name) => format!("label.{name}"),
            Split::Metadata(name) => format!("metadata.{name}"),
        }
    }
}

// === impl OnExceeded ===

impl TryFrom<String> for OnExceeded {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match &*text {
            "reject" => Ok(Self::Reject),
            "allow" => Ok(Self::Allow),
            // All models' names have one. A slip of the pen would else be asked instead, and nobody refused.
            model if model.contains('/') => Ok(Self::Model(text)),
            _ => Err(format!(
                "`{text}` is neither `reject` nor `allow` nor a model's name, such as @cf/meta/llama-3.2-1b-instruct"
            )),
        }
    }
}

impl From<OnExceeded> for String {
    fn from(what: OnExceeded) -> Self {
        match what {
            OnExceeded::Reject => "reject".into(),
            OnExceeded::Allow => "allow".into(),
            OnExceeded::Model(model) => model,
        }
    }
}

/// Why a set of budgets cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the budget {name:?} {why}")]
#[non_exhaustive]
pub struct RuleError {
    /// Which.
    pub name: String,
    /// What is wrong with it, and the mend.
    pub why: String,
}

/// Checks what a rule alone cannot tell.
pub(super) fn check(rules: &[Arc<Rule>]) -> Result<(), RuleError> {
    for (place, rule) in rules.iter().enumerate() {
        let wrong = |why: &str| Err(RuleError { name: rule.name.clone(), why: why.into() });
        if rule.name.is_empty() || rule.name.len() > 64 {
            return wrong("needs a name of at most 64 bytes");
        }
        if rules[..place].iter().any(|other| other.name == rule.name) {
            return wrong("is there twice; give each a name of its own");
        }
        if rule.limit.neurons.is_zero() {
            return wrong("has a limit of nothing; to refuse a model, leave it out of the keys' models");
        }
        let has_dates = !rule.sliding && matches!(rule.window, Period::Day | Period::Week | Period::Month);
        if rule.timezone.is_some() && !has_dates {
            return wrong(
                "has a timezone: only windows of a day, a week or a month that do not slide begin at a midnight; leave \
                 timezone out, or set window to day, week or month",
            );
        }
        if rule.starts.is_some() && (rule.window != Period::Week || rule.sliding) {
            return wrong("has `starts`, the day that a week begins with: set window = \"week\", or leave it out");
        }
        if rule.day.is_some() && (rule.window != Period::Month || rule.sliding) {
            return wrong("has `day`, the day that a month begins with: set window = \"month\", or leave it out");
        }
        if rule.day.is_some_and(|day| !(1..=31).contains(&day)) {
            return wrong("has a `day` that no month has: write it from 1 to 31");
        }
        if rule.warn_at.len() > MAX_WARNINGS {
            return wrong("has more than eight parts in warn_at; a few are enough");
        }
        if rule.scope == Scope::Account && !rule.is_the_vendors() {
            return wrong(
                "has scope = \"account\": the vendor counts days and months, and knows neither keys nor metadata; leave out \
                 split_by, keys, sliding, timezone and day, and set window to day or month",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_not_asked_instead() {
        assert_eq!(OnExceeded::try_from("@cf/a/b".to_owned()), Ok(OnExceeded::Model("@cf/a/b".into())));
        assert!(OnExceeded::try_from("rejct".to_owned()).is_err_and(|why| why.contains("`reject`")));
    }

    #[test]
    fn values_are_named_as_json_names_them() {
        let (yes, number) = (Metadatum::Bool(true), Metadatum::Number(7.into()));
        for value in ["acc", "@cf/meta/llama-3.2-1b-instruct", "a\"b\\c", "ünï", "", "tab\there"] {
            let values = [Value::Text(value.into()), Value::None(()), Value::Other(&yes), Value::Other(&number)];
            assert_eq!(array(values.into_iter()), serde_json::json!([value, null, true, 7]).to_string());
        }
    }

    #[test]
    fn accounts_that_the_config_does_not_name_share_one_free_allocation() {
        let rule = super::super::Plan::Free.rule();
        let bucket = |account: &str, is_unlisted| {
            let call = crate::layers::testing::call(crate::layers::testing::LLAMA, "{}");
            rule.bucket(&Call { account: account.into(), is_unlisted, ..call })
        };
        assert_eq!(bucket("junk-1", true), bucket("junk-2", true));
        assert_ne!(bucket("listed", false), bucket("junk-1", true));
    }

    #[test]
    fn a_long_value_stays_short_and_distinct() {
        let (long, longer) = ("a".repeat(5000), "a".repeat(5001));
        let (a, b) = (shorten(&long), shorten(&longer));
        assert!(a.len() < 100 && a != b, "{a} {b}");
    }
}
