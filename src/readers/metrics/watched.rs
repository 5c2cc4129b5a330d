//! A gauge that is looked up when it is asked for.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntGauge};

/// Looks at each scrape, and so costs nothing between two.
pub(super) struct Watched<F> {
    gauge: IntGauge,
    look: F,
}

impl<F: Fn() -> u64> Watched<F> {
    pub(super) fn new(name: &str, help: &str, look: F) -> Result<Self, Error> {
        Ok(Self { gauge: IntGauge::new(name, help)?, look })
    }
}

impl<F: Fn() -> u64 + Send + Sync> Collector for Watched<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(i64::try_from((self.look)()).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}
