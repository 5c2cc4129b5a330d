//! What became of telemetry, when Prometheus asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntCounterVec, Opts};

/// Signal, what became of it, and how often.
pub(crate) type Count = (&'static str, &'static str, u64);

pub(super) struct TelemetryMetrics<F> {
    look: F,
    items: IntCounterVec,
}

impl<F: Fn() -> Vec<Count>> TelemetryMetrics<F> {
    pub(super) fn new(look: F) -> Result<Self, Error> {
        let help = "Traced calls, metrics and log lines for the collector, by what became of them.";
        let items = IntCounterVec::new(Opts::new("tollgate_otel_items_total", help), &["signal", "result"])?;
        Ok(Self { look, items })
    }
}

impl<F: Fn() -> Vec<Count> + Send + Sync> Collector for TelemetryMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.items.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (signal, result, so_far) in (self.look)() {
            let counter = self.items.with_label_values(&[signal, result]);
            counter.inc_by(so_far.saturating_sub(counter.get()));
        }
        self.items.collect()
    }
}
