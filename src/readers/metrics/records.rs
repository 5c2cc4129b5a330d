//! How the writing of the records goes, looked at when Prometheus asks.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge};

use crate::readers::records::Records;

/// Collects [`Stats`](crate::readers::records::Stats).
pub(super) struct RecordsMetrics {
    records: Arc<Records>,
    written: IntCounter,
    waiting: IntGauge,
    lost: IntCounter,
    payloads_lost: IntCounter,
    failures: IntCounter,
    lag: Gauge,
}

impl RecordsMetrics {
    /// Of these records.
    pub(super) fn new(records: Arc<Records>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            records,
            written: IntCounter::new("tollgate_records_written_total", "Records that are on the disk.")?,
            waiting: IntGauge::new("tollgate_records_waiting", "Records that wait to be written.")?,
            lost: IntCounter::new("tollgate_records_lost_total", "Records that the queue had no room for.")?,
            payloads_lost: IntCounter::new(
                "tollgate_records_payloads_lost_total",
                "Bodies that there was no room for; their records were kept without.",
            )?,
            failures: IntCounter::new(
                "tollgate_records_failures_total",
                "Writes that failed; each is tried again until it works.",
            )?,
            lag: Gauge::new(
                "tollgate_records_lag_seconds",
                "For how long records could not be written; 0 while they can.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 6] {
        [&self.written, &self.waiting, &self.lost, &self.payloads_lost, &self.failures, &self.lag]
    }
}

impl Collector for RecordsMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stats = self.records.stats();
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&self.written, stats.written);
        raise(&self.lost, stats.lost);
        raise(&self.payloads_lost, stats.payloads_lost);
        raise(&self.failures, stats.failures);
        self.waiting.set(i64::try_from(stats.waiting).unwrap_or(i64::MAX));
        self.lag.set(stats.lag.as_secs_f64());
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}
