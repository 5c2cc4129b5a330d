//! How it goes with questions that mean the same, when Prometheus asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, IntCounterVec, IntGauge, Opts};

use crate::layers::cache::CacheLayer;

/// Looks at each scrape, and so costs nothing between two.
pub(super) struct SemanticMetrics {
    cache: CacheLayer,
    lookups: IntCounterVec,
    saved: Counter,
    paid: Counter,
    entries: IntGauge,
}

impl SemanticMetrics {
    pub(super) fn new(cache: CacheLayer) -> Result<Self, Error> {
        let lookups = "Questions for which one that means the same was looked for, by what came of it.";
        let saved = "Neurons that answers to questions that mean the same would have cost; what it cost to find them is not taken off.";
        let paid = "Neurons that vectors of questions have cost.";
        let entries = "Questions that are remembered.";
        Ok(Self {
            cache,
            lookups: IntCounterVec::new(Opts::new("tollgate_semantic_cache_lookups_total", lookups), &["result"])?,
            saved: Counter::new("tollgate_semantic_cache_saved_neurons_total", saved)?,
            paid: Counter::new("tollgate_semantic_cache_embedding_neurons_total", paid)?,
            entries: IntGauge::new("tollgate_semantic_cache_entries", entries)?,
        })
    }
}

impl Collector for SemanticMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.lookups.desc(), self.saved.desc(), self.paid.desc(), self.entries.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let standing = self.cache.semantic();
        let results =
            [("hit", standing.hits), ("miss", standing.misses), ("failed", standing.failed), ("late", standing.late)];
        for (result, count) in results {
            let counter = self.lookups.with_label_values(&[result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        let raise = |counter: &Counter, to: f64| counter.inc_by((to - counter.get()).max(0.0));
        raise(&self.saved, standing.saved.as_f64());
        raise(&self.paid, standing.paid.as_f64());
        self.entries.set(i64::try_from(standing.entries).unwrap_or(i64::MAX));
        [self.lookups.collect(), self.saved.collect(), self.paid.collect(), self.entries.collect()].concat()
    }
}
