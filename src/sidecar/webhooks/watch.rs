//! What nobody tells by itself: looked at now and then, beside the admin port, so that it costs calls nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::event::Event;
use super::events::Events;
use crate::books::Known;
use crate::catalogue::{Catalogue, Change};
use crate::readers::metrics::Metrics;
use crate::readers::metrics::events::Attempts;
use crate::sidecar::config::Kind;

/// Looks at the counters, the catalogue and what is known of the vendor's books.
pub(in crate::sidecar) struct Watcher {
    pub(in crate::sidecar) events: Arc<Events>,
    pub(in crate::sidecar) metrics: Arc<Metrics>,
    pub(in crate::sidecar) catalogue: Arc<Catalogue>,
    pub(in crate::sidecar) known: Arc<Known>,
}

/// Whether upstream answers, by the attempts between two looks.
#[derive(Debug)]
struct Upstream {
    before: Attempts,
    /// Attempts in a row that were not answered.
    failed: u64,
    /// Looks since the first of them.
    looks: u32,
    is_down: bool,
}

/// What was told of models, by their names.
#[derive(Default)]
struct Models {
    news: Option<SystemTime>,
    /// The ratio of reported to known prices.
    ratios: HashMap<Arc<str>, f64>,
    /// Days left.
    leaving: HashMap<Arc<str>, i32>,
}

const EVERY: Duration = Duration::from_secs(5);
/// So many looks, half a minute, in which so many attempts were not answered, and none was.
const DOWN_AFTER_LOOKS: u32 = 6;
const DOWN_AFTER_ATTEMPTS: u64 = 5;
/// Models change slowly: they are looked at with the first look and with each twelfth after it, a minute.
const MODELS_EVERY: u64 = 12;
/// A ratio that is as near to the one before is no news.
const SAME: f64 = 0.01;
/// A model in use that has as many days left is told of, once a day.
const LEAVING_DAYS: i32 = 14;

impl Watcher {
    pub(in crate::sidecar) async fn watch(self) {
        let mut upstream = Upstream { before: self.metrics.attempts(), failed: 0, looks: 0, is_down: false };
        let mut models = Models::default();
        for look in 1_u64.. {
            tokio::time::sleep(EVERY).await;
            if let Some(event) = upstream.look(self.metrics.attempts()) {
                self.events.tell(event);
            }
            if look % MODELS_EVERY == 1 {
                self.look_at_models(&mut models);
            }
        }
    }

    fn look_at_models(&self, told: &mut Models) {
        let news = self.known.news();
        for news in news.iter().filter(|news| told.news.is_none_or(|last| news.at > last)) {
            let kind = match &news.change {
                Change::Price { .. } => Kind::PriceDrift,
                Change::Leaving { .. } => Kind::ModelLeaving,
                _ => continue,
            };
            let text = news.change.to_string();
            self.events.tell(Event::said(kind, format!("tollgate: {text}"), json!({"change": text})));
        }
        told.news = news.last().map(|news| news.at).or(told.news);
        let (now, totals) = (SystemTime::now(), self.metrics.totals());
        for model in self.catalogue.models().iter().filter(|model| model.is_listed()) {
            let is_used = totals.models.get(&*model.id).is_some_and(|totals| totals.calls > 0.0);
            if let Some(days) = model.days_left(now).filter(|days| is_used && (0..=LEAVING_DAYS).contains(days))
                && told.leaving.insert(model.id.clone(), days) != Some(days)
            {
                let text = format!("tollgate: {} is in use and has {days} days left", model.id);
                self.events.tell(Event::said(Kind::ModelLeaving, text, json!({"model": model.id, "days_left": days})));
            }
            let before = told.ratios.get(&model.id).copied().unwrap_or(1.0);
            let ratio = model.learned.ratio().unwrap_or(1.0);
            if (ratio / before - 1.0).abs() > SAME {
                told.ratios.insert(model.id.clone(), ratio);
                let text = format!(
                    "tollgate: {} costs {ratio:.3} times what the table says, by the vendor's own figures",
                    model.id
                );
                self.events.tell(Event::said(Kind::PriceDrift, text, json!({"model": model.id, "ratio": ratio})));
            }
        }
    }
}

impl Upstream {
    fn look(&mut self, now: Attempts) -> Option<Event> {
        let answered = now.answered.saturating_sub(self.before.answered);
        let failed = now.failed.saturating_sub(self.before.failed);
        self.before = now;
        if answered > 0 {
            (self.failed, self.looks) = (0, 0);
            let was_down = std::mem::take(&mut self.is_down);
            return was_down.then(|| Event::said(Kind::UpstreamUp, "tollgate: upstream answers again", json!({})));
        }
        self.failed += failed;
        self.looks += u32::from(self.failed > 0);
        if self.is_down || self.looks < DOWN_AFTER_LOOKS || self.failed < DOWN_AFTER_ATTEMPTS {
            return None;
        }
        self.is_down = true;
        let text = format!("tollgate: upstream is down: the last {} attempts were not answered", self.failed);
        Some(Event::said(Kind::UpstreamDown, text, json!({"attempts": self.failed})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_down_when_nothing_was_answered_for_half_a_minute_and_up_with_the_first_answer() {
        let mut upstream = Upstream { before: Attempts::default(), failed: 0, looks: 0, is_down: false };
        let (mut answered, mut failed, mut told) = (0, 0, Vec::new());
        let steps = [(3, 1), (0, 2), (0, 2), (0, 0), (0, 1), (0, 1), (0, 1), (0, 5), (0, 5), (1, 5), (1, 0)];
        for (look, (more_answered, more_failed)) in steps.into_iter().enumerate() {
            (answered, failed) = (answered + more_answered, failed + more_failed);
            told.extend(upstream.look(Attempts { answered, failed }).map(|event| (look, event.kind)));
        }
        assert_eq!(told, [(6, Kind::UpstreamDown), (9, Kind::UpstreamUp)]);
    }
}
