//! How models stand with their limits, when Prometheus asks.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};

use crate::catalogue::{Catalogue, Slot};
use crate::layers::rate_limit::RateLimitLayer;

/// Reads the limits' state at each scrape, and so keeps none and costs calls nothing.
pub(super) struct Standing {
    limits: RateLimitLayer,
    catalogue: Arc<Catalogue>,
    limit: IntGaugeVec,
    remaining: IntGaugeVec,
    waiting: IntGaugeVec,
    pace: GaugeVec,
}

impl Standing {
    pub(super) fn new(limits: RateLimitLayer, catalogue: impl Into<Arc<Catalogue>>) -> Result<Self, prometheus::Error> {
        let labels = &["model"];
        Ok(Self {
            limits,
            catalogue: catalogue.into(),
            limit: IntGaugeVec::new(
                Opts::new("tollgate_rate_limit_limit", "Requests that the limit's window has room for."),
                labels,
            )?,
            remaining: IntGaugeVec::new(
                Opts::new(
                    "tollgate_rate_limit_remaining",
                    "Requests left in the window that ends now; of several accounts, that of the one with least.",
                ),
                labels,
            )?,
            waiting: IntGaugeVec::new(Opts::new("tollgate_queue_length", "Calls that wait for a permit."), labels)?,
            pace: GaugeVec::new(
                Opts::new(
                    "tollgate_rate_limit_pace",
                    "The share of the limit that upstream was last found to have room for; 1 is all.",
                ),
                labels,
            )?,
        })
    }
}

impl Collector for Standing {
    fn desc(&self) -> Vec<&Desc> {
        [self.limit.desc(), self.remaining.desc(), self.waiting.desc(), self.pace.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let models = self.catalogue.models().into_iter().filter(|model| model.is_listed());
        let names: HashMap<Slot, Arc<str>> = models.map(|model| (model.slot, model.id.clone())).collect();
        for model in self.limits.snapshot() {
            let name = names.get(&model.slot).map_or("other", |name| name);
            self.limit.with_label_values(&[name]).set(i64::from(model.limit));
            self.remaining.with_label_values(&[name]).set(i64::from(model.remaining));
            self.waiting.with_label_values(&[name]).set(i64::try_from(model.waiting).unwrap_or(i64::MAX));
            self.pace.with_label_values(&[name]).set(model.pace);
        }
        [self.limit.collect(), self.remaining.collect(), self.waiting.collect(), self.pace.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call};
    use crate::readers::metrics::Metrics;

    #[test]
    fn listed_models_have_a_gauge_each_and_junk_shares_one() {
        let (metrics, limits) = (Metrics::new().unwrap(), RateLimitLayer::default());
        metrics.watch_limits(limits.clone(), Catalogue::default()).unwrap();
        for model in [LLAMA, "junk-1", "junk-2"] {
            limits.try_take(&call(model, "{}"));
        }
        let text = metrics.render().unwrap();
        for line in [
            format!("tollgate_rate_limit_remaining{{model=\"{LLAMA}\"}} 299"),
            "tollgate_rate_limit_remaining{model=\"other\"} 299".into(),
            format!("tollgate_queue_length{{model=\"{LLAMA}\"}} 0"),
            format!("tollgate_rate_limit_pace{{model=\"{LLAMA}\"}} 1"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("junk"));
    }
}
