//! What a call would meet if it were made: the reply to a dry run.
//!
//! Looking takes no permit, reserves nothing and keeps nothing. What is told holds for this moment: calls beside it may take the
//! room that it saw.

use std::time::Duration;

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::json;

use crate::call::Call;
use crate::neurons::Neurons;
use crate::receipt::{CacheStatus, Estimate};

/// Looks ahead for a call. [`stack`](crate::gateway::stack) makes one of its layers.
pub trait Foresee: Send + Sync {
    /// What the call would meet now.
    fn foresee(&self, call: &Call) -> Ahead;
}

/// What a call would meet, in the order in which it would.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Ahead {
    /// What the cache would say; `None` where it would not be asked.
    pub cache: Option<Kept>,
    /// The call's own ceiling, where it has one.
    pub ceiling: Option<Ceilinged>,
    /// The budgets that count it.
    pub budgets: Vec<Budgeted>,
    /// Why the budgets would refuse a call that nothing bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unbounded: Option<String>,
    /// The rate limit of its model, with its key's own.
    pub limit: Option<Limited>,
}

/// What the cache would say.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Kept {
    /// `HIT`, `COALESCED` (a twin is on its way), `PARTIAL`, `MISS` or `BYPASS`.
    pub status: CacheStatus,
    /// How old the answer is that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// What the answer had cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saves: Option<Money>,
}

/// How a call stands to its own ceiling.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Ceilinged {
    /// The ceiling.
    pub most: Money,
    /// `pass`, `clamp` (with fewer tokens) or `refuse`.
    pub would: Verdict,
    /// What a refusal says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a call stands to a budget.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Budgeted {
    /// The budget's name.
    pub name: String,
    /// Of the call's bucket.
    pub limit: Money,
    /// What the bucket has left, with all that is reserved taken off.
    pub left: Money,
    /// What the call would reserve.
    pub needs: Money,
    /// When there is more.
    #[serde(rename = "resets_in_seconds", serialize_with = "seconds")]
    pub resets: Duration,
    /// What it would do.
    pub would: Verdict,
    /// The model that is asked instead where it has no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// How a call stands to its model's rate limit.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Limited {
    /// Requests a window.
    pub requests: u32,
    /// How long the window is.
    #[serde(rename = "per_seconds", serialize_with = "seconds")]
    pub per: Duration,
    /// What is left of it.
    pub remaining: u32,
    /// Calls that wait.
    pub waiting: usize,
    /// How long it would wait for its turn, or be told to come back after.
    #[serde(rename = "wait_seconds", serialize_with = "seconds")]
    pub wait: Duration,
    /// What would become of it.
    pub would: Verdict,
}

/// What would become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It would pass.
    Pass,
    /// It would pass, and only be counted.
    Count,
    /// It would pass with fewer tokens.
    Clamp,
    /// It would wait.
    Wait,
    /// Another model would be asked.
    Divert,
    /// It would be refused.
    Refuse,
}

/// An amount, told in both units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money(pub Neurons);

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("neurons", &self.0.as_f64())?;
        map.serialize_entry("usd", &self.0.usd())?;
        map.end()
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

impl Ahead {
    /// What would become of the call in all.
    pub fn verdict(&self) -> &'static str {
        let has = |wanted: Verdict| {
            self.ceiling.as_ref().is_some_and(|ceiling| ceiling.would == wanted)
                || self.budgets.iter().any(|budget| budget.would == wanted)
                || self.limit.as_ref().is_some_and(|limit| limit.would == wanted)
        };
        match self.cache.map(|kept| kept.status) {
            Some(CacheStatus::Hit | CacheStatus::Coalesced | CacheStatus::Shared) => "hit",
            _ if has(Verdict::Refuse) || self.unbounded.is_some() => "refuse",
            _ if has(Verdict::Divert) => "divert",
            _ if has(Verdict::Wait) => "wait",
            _ => "send",
        }
    }
}

/// The whole reply of a dry run, as JSON.
pub(crate) fn told(call: &Call, asked: &str, ahead: Option<&Ahead>) -> String {
    let estimate = Estimate::of(call);
    let mut told = json!({
        "dry_run": true,
        "model": call.model.id,
        "task": call.model.task.label(),
        "endpoint": call.endpoint.label(),
        "stream": call.stream,
        "input_tokens": estimate.input_tokens,
        "likely": Money(estimate.likely),
        "at_most": estimate.upper.map(Money),
    });
    if let serde_json::Value::Object(fields) = &mut told {
        if *asked != *call.model.id {
            fields.insert("asked".into(), asked.into());
        }
        if let Some(ahead) = ahead {
            fields.insert("would".into(), ahead.verdict().into());
            if let Ok(serde_json::Value::Object(met)) = serde_json::to_value(ahead) {
                fields.extend(met);
            }
        }
    }
    format!("{told}\n")
}
