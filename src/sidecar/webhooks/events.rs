//! Who counts what happens and hands it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::json;
use tokio::sync::mpsc;

use super::deliver::Endpoint;
use super::event::{Detail, Event};
use crate::layers::budget::{FREE, Notice, Watch, What};
use crate::readers::metrics::events::EventCounts;
use crate::sidecar::config::Kind;
use crate::sidecar::outlook::Unusual;

/// Counts what happens, and hands it to the thread that sends, where there is one.
#[derive(Default)]
pub(crate) struct Events {
    counts: [AtomicU64; Kind::ALL.len()],
    sender: ArcSwapOption<mpsc::Sender<Event>>,
    /// What the thread's queue had no room for.
    dropped: AtomicU64,
    endpoints: ArcSwap<Vec<Endpoint>>,
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
    pub(crate) fn told(&self) -> EventCounts {
        let counts = Kind::ALL.iter().zip(&self.counts);
        let of = |(kind, count): (&Kind, &AtomicU64)| (kind.label(), count.load(Ordering::Relaxed));
        let endpoints = self.endpoints.load();
        let dropped_before = self.dropped.load(Ordering::Relaxed);
        let deliveries = endpoints.iter().flat_map(|endpoint| endpoint.results(dropped_before)).collect();
        EventCounts { events: counts.map(of).collect(), deliveries }
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
