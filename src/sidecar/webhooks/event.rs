//! What has happened, and how it is told.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::layers::budget::{Notice, What};
use crate::sidecar::config::Kind;

/// One thing that has happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(super) kind: Kind,
    pub(super) at: SystemTime,
    pub(super) what: Detail,
}

/// What there is to say about it.
#[derive(Clone, Debug)]
pub(super) enum Detail {
    Budget(Box<Notice>),
    Said { text: String, data: Value },
}

// === impl Event ===

impl Event {
    pub(super) fn said(kind: Kind, text: impl Into<String>, data: Value) -> Self {
        Self { kind, at: SystemTime::now(), what: Detail::Said { text: text.into(), data } }
    }

    /// What `tollgate webhooks test` sends.
    pub(crate) fn test() -> Self {
        Self::said(Kind::Test, "tollgate: this is a test, and all is well", json!({}))
    }

    /// As it is sent. Slack and what follows its form shows `text`.
    pub(super) fn body(&self) -> Vec<u8> {
        let (text, data) = match &self.what {
            Detail::Said { text, data } => (text.clone(), data.clone()),
            Detail::Budget(notice) => of_budget(notice),
        };
        let at = time(self.at);
        let body = json!({"type": self.kind.label(), "timestamp": at, "text": text, "data": data});
        body.to_string().into_bytes()
    }
}

fn of_budget(notice: &Notice) -> (String, Value) {
    let Notice { budget, bucket, limit, spent, resets_at, .. } = notice;
    let resets_at = time(*resets_at);
    // A bucket is a JSON array, as everywhere.
    let values = serde_json::from_str::<Value>(bucket).unwrap_or(Value::Null);
    let whose = if bucket.is_empty() { String::new() } else { format!(" of {bucket}") };
    let (text, warned_at) = match notice.what {
        What::Warned(share) => (format!("{share} of the budget {budget:?}{whose} is spent"), Some(share.as_f64())),
        _ => (format!("the budget {budget:?}{whose} is spent, or had no room for a call"), None),
    };
    let data = json!({
        "budget": budget,
        "bucket": values,
        "warned_at": warned_at,
        "limit_neurons": limit.as_f64(),
        "spent_neurons": spent.as_f64(),
        "limit_usd": limit.usd(),
        "spent_usd": spent.usd(),
        "resets_at": resets_at,
    });
    (format!("tollgate: {text}; it begins anew at {resets_at}"), data)
}

fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}
