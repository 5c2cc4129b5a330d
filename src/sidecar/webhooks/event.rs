//! What has happened, and who counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::deliver::Endpoint;
use crate::layers::budget::{FREE, Notice, Watch, What};
use crate::readers::metrics::events::Told;
use crate::sidecar::outlook::Unusual;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// A part of a budget is spent that its `warn_at` names.
    #[serde(rename = "budget.warned")]
    BudgetWarned,
    /// A budget is spent, or had no room for a call.
    #[serde(rename = "budget.exceeded")]
    BudgetExceeded,
    /// 80% of the day's free allocation are spent.
    #[serde(rename = "free.warned")]
    FreeWarned,
    /// The vendor lists another price, or reports other costs on replies than the table has.
    #[serde(rename = "price.drift")]
    PriceDrift,
    /// The vendor takes a model away that is listed, or in use and has two weeks left.
    #[serde(rename = "model.leaving")]
    ModelLeaving,
    /// A key, a model or a label has spent far more today than it usually does in a day.
    #[serde(rename = "spending.unusual")]
    SpendingUnusual,
    /// No attempt of the last half minute was answered.
    #[serde(rename = "upstream.down")]
    UpstreamDown,
    /// One is answered again.
    #[serde(rename = "upstream.up")]
    UpstreamUp,
    /// Sent by `tollgate webhooks test` alone.
    #[serde(rename = "test")]
    Test,
}

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

/// Counts what happens, and hands it to the thread that sends, where there is one.
#[derive(Default)]
pub(crate) struct Events {
    counts: [AtomicU64; Kind::ALL.len()],
    sender: ArcSwapOption<mpsc::Sender<Event>>,
    /// What the thread's queue had no room for.
    dropped: AtomicU64,
    endpoints: ArcSwap<Vec<Endpoint>>,
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::BudgetWarned,
        Self::BudgetExceeded,
        Self::FreeWarned,
        Self::PriceDrift,
        Self::ModelLeaving,
        Self::SpendingUnusual,
        Self::UpstreamDown,
        Self::UpstreamUp,
        Self::Test,
    ];

    /// Its name in the config, on the wire and in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::BudgetWarned => "budget.warned",
            Self::BudgetExceeded => "budget.exceeded",
            Self::FreeWarned => "free.warned",
            Self::PriceDrift => "price.drift",
            Self::ModelLeaving => "model.leaving",
            Self::SpendingUnusual => "spending.unusual",
            Self::UpstreamDown => "upstream.down",
            Self::UpstreamUp => "upstream.up",
            Self::Test => "test",
        }
    }
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

// === impl Events ===

impl Events {
    pub(super) fn connect(&self, sender: mpsc::Sender<Event>) {
        self.sender.store(Some(Arc::new(sender)));
    }

    /// Who is told from here on, for the metrics.
    pub(super) fn show(&self, endpoints: &[Endpoint]) {
        self.endpoints.store(Arc::new(endpoints.to_vec()));
    }

    pub(super) fn endpoints(&self) -> Arc<Vec<Endpoint>> {
        self.endpoints.load_full()
    }

    /// Somebody is out of habit: in the log, too.
    pub(in crate::sidecar) fn unusual(&self, unusual: &Unusual) {
        let Unusual { what, name, today, usual } = unusual;
        let of = if name.is_empty() { "calls without one".to_owned() } else { format!("{name:?}") };
        let text = format!("the {what} {of} has spent {today} neurons today; {usual} are usual in a whole day");
        tracing::warn!(what, name, %today, %usual, "spending is unusual: {text}");
        let data = json!({
            "what": what, "name": name,
            "today_neurons": today.as_f64(), "usual_neurons": usual.as_f64(),
            "today_usd": today.usd(), "usual_usd": usual.usd(),
        });
        self.tell(Event::said(Kind::SpendingUnusual, format!("tollgate: {text}"), data));
    }

    /// Never waits.
    pub(super) fn tell(&self, event: Event) {
        self.count(event.kind);
        if let Some(sender) = &*self.sender.load()
            && sender.try_send(event).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, kind: Kind) {
        if let Some(place) = Kind::ALL.iter().position(|other| *other == kind) {
            self.counts[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For the metrics.
    pub(crate) fn told(&self) -> Told {
        let counts = Kind::ALL.iter().zip(&self.counts);
        let of = |(kind, count): (&Kind, &AtomicU64)| (kind.label(), count.load(Ordering::Relaxed));
        let endpoints = self.endpoints.load();
        let dropped_before = self.dropped.load(Ordering::Relaxed);
        let deliveries = endpoints.iter().flat_map(|endpoint| endpoint.results(dropped_before)).collect();
        Told { events: counts.map(of).collect(), deliveries }
    }
}

impl Watch for Events {
    fn notice(&self, notice: &Notice) {
        let kind = match notice.what {
            What::Warned(_) if notice.budget == FREE => Kind::FreeWarned,
            What::Warned(_) => Kind::BudgetWarned,
            _ => Kind::BudgetExceeded,
        };
        self.tell(Event { kind, at: SystemTime::now(), what: Detail::Budget(Box::new(notice.clone())) });
    }
}
