//! How it goes with the cached answers that several gates share, when Prometheus asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::replicas::SharedCache;

/// Looks at each scrape, and so costs nothing between two.
pub(super) struct SharedCacheMetrics {
    cache: SharedCache,
    up: IntGauge,
    lookups: IntCounterVec,
    writes: IntCounterVec,
    trips: IntCounter,
    seconds: Counter,
}

impl SharedCacheMetrics {
    pub(super) fn new(cache: SharedCache) -> Result<Self, Error> {
        let lookups = "Answers that were looked for at the store of the shared cache, by what came of it.";
        let writes = "Answers that were to be shared, by what became of them.";
        Ok(Self {
            cache,
            up: IntGauge::new("tollgate_cache_store_up", "1 while the store of the shared cache can be reached.")?,
            lookups: IntCounterVec::new(Opts::new("tollgate_cache_store_lookups_total", lookups), &["result"])?,
            writes: IntCounterVec::new(Opts::new("tollgate_cache_store_writes_total", writes), &["result"])?,
            trips: IntCounter::new("tollgate_cache_store_looks_total", "Looks at the store of the shared cache.")?,
            seconds: Counter::new(
                "tollgate_cache_store_look_seconds_total",
                "How long calls waited for them, all together.",
            )?,
        })
    }
}

impl Collector for SharedCacheMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.up.desc(), self.lookups.desc(), self.writes.desc(), self.trips.desc(), self.seconds.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.cache.counts();
        self.up.set(i64::from(self.cache.is_open()));
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        counts.lookups().for_each(|(result, count)| raise(&self.lookups.with_label_values(&[result]), count));
        counts.writes().for_each(|(result, count)| raise(&self.writes.with_label_values(&[result]), count));
        raise(&self.trips, counts.trips());
        self.seconds.inc_by((counts.time().as_secs_f64() - self.seconds.get()).max(0.0));
        [self.up.collect(), self.lookups.collect(), self.writes.collect(), self.trips.collect(), self.seconds.collect()]
            .concat()
    }
}
