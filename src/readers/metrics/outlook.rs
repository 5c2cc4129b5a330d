//! How the month is foreseen to end, when Prometheus asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, Gauge};

pub(super) struct OutlookMetrics<F> {
    look: F,
    low: Gauge,
    high: Gauge,
}

impl<F: Fn() -> Option<(f64, f64)>> OutlookMetrics<F> {
    /// `look` tells the two ends of the band in neurons, where anything is foreseen.
    pub(super) fn new(look: F) -> Result<Self, Error> {
        let low = "What this month (UTC) costs in all at the present pace, in neurons: one month of ten ends below. Absent until three days are on record.";
        let high = "The same: one month of ten ends above.";
        Ok(Self {
            look,
            low: Gauge::new("tollgate_month_forecast_low_neurons", low)?,
            high: Gauge::new("tollgate_month_forecast_high_neurons", high)?,
        })
    }
}

impl<F: Fn() -> Option<(f64, f64)> + Send + Sync> Collector for OutlookMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        [self.low.desc(), self.high.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some((low, high)) = (self.look)() else { return Vec::new() };
        self.low.set(low);
        self.high.set(high);
        [self.low.collect(), self.high.collect()].concat()
    }
}
