//! How reading the config again goes, when Prometheus asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, Gauge, IntCounterVec, IntGauge, Opts};

/// What is told of reloads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reloading {
    /// Configs that came into force after the first.
    pub(crate) succeeded: u64,
    /// Configs that were wrong.
    pub(crate) failed: u64,
    /// The last one was right.
    pub(crate) is_well: bool,
    /// When the config in force came into force, in seconds since 1970.
    pub(crate) since_seconds: f64,
}

pub(super) struct ReloadMetrics<F> {
    look: F,
    reloads: IntCounterVec,
    is_well: IntGauge,
    since: Gauge,
}

impl<F: Fn() -> Reloading> ReloadMetrics<F> {
    pub(super) fn new(look: F) -> Result<Self, Error> {
        Ok(Self {
            look,
            reloads: IntCounterVec::new(
                Opts::new("tollgate_config_reloads_total", "Times that the config was read again, by what came of it."),
                &["result"],
            )?,
            is_well: IntGauge::new(
                "tollgate_config_last_reload_successful",
                "1 where the config in force is the one that was read last; 0 where that was wrong.",
            )?,
            since: Gauge::new(
                "tollgate_config_last_reload_success_timestamp_seconds",
                "When the config in force came into force, in seconds since 1970.",
            )?,
        })
    }
}

impl<F: Fn() -> Reloading + Send + Sync> Collector for ReloadMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        [self.reloads.desc(), self.is_well.desc(), self.since.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = (self.look)();
        for (result, so_far) in [("ok", now.succeeded), ("refused", now.failed)] {
            let counter = self.reloads.with_label_values(&[result]);
            counter.inc_by(so_far.saturating_sub(counter.get()));
        }
        self.is_well.set(now.is_well.into());
        self.since.set(now.since_seconds);
        [self.reloads.collect(), self.is_well.collect(), self.since.collect()].concat()
    }
}
