//! What has happened that a person may want to know, and who was told; and attempts as they are counted.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntCounterVec, Opts};

use super::gate::Metrics;

/// Attempts upstream since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempts {
    /// Whatever the answer was, short of the server's own failure.
    pub answered: u64,
    /// No answer came, or one of 500 and more.
    pub failed: u64,
}

/// What was told, by its names.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventCounts {
    /// How often each event has happened.
    pub(crate) events: Vec<(&'static str, u64)>,
    /// What became of events, by webhook and result.
    pub(crate) deliveries: Vec<(String, &'static str, u64)>,
}

/// Collects them when it is asked.
pub(super) struct EventMetrics<F> {
    look: F,
    events: IntCounterVec,
    deliveries: IntCounterVec,
}

impl Metrics {
    /// Attempts upstream, of all models.
    pub fn attempts(&self) -> Attempts {
        let mut attempts = Attempts::default();
        for family in self.families.attempts.collect() {
            for metric in family.get_metric() {
                let status = metric.get_label().iter().find(|label| label.name() == "status");
                let has_failed =
                    status.is_none_or(|status| status.value() == "none" || status.value().starts_with('5'));
                let count = metric.get_counter().get_value() as u64;
                if has_failed { attempts.failed += count } else { attempts.answered += count }
            }
        }
        attempts
    }
}

impl<F: Fn() -> EventCounts> EventMetrics<F> {
    pub(super) fn new(look: F) -> Result<Self, Error> {
        let events = Opts::new("tollgate_events_total", "What has happened that a person may want to know.");
        let deliveries = Opts::new("tollgate_webhook_events_total", "Events by webhook, and by what became of them.");
        Ok(Self {
            look,
            events: IntCounterVec::new(events, &["event"])?,
            deliveries: IntCounterVec::new(deliveries, &["webhook", "result"])?,
        })
    }
}

impl<F: Fn() -> EventCounts + Send + Sync> Collector for EventMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        [self.events.desc(), self.deliveries.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let told = (self.look)();
        let raise = |counter: prometheus::IntCounter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
        for (event, count) in told.events {
            raise(self.events.with_label_values(&[event]), count);
        }
        for (webhook, result, count) in told.deliveries {
            raise(self.deliveries.with_label_values(&[&*webhook, result]), count);
        }
        [self.events.collect(), self.deliveries.collect()].concat()
    }
}
