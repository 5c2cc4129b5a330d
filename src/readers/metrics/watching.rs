//! What is looked at whenever the metrics are asked for.

use std::sync::Arc;

use prometheus::core::Collector;

use super::books::BooksMetrics;
use super::budgets::BudgetMetrics;
use super::gate::Metrics;
use super::register::MetricsError;
use super::semantic;
use super::standing::Standing;
#[cfg(feature = "otel")]
use super::telemetry;
use super::watched::Watched;
#[cfg(feature = "sidecar")]
use super::{events, outlook, records, reloads};
#[cfg(feature = "replicas")]
use super::{shared_cache, store};
use crate::books::Known;
use crate::catalogue::Catalogue;
use crate::layers::budget::CurrentBudgets;
use crate::layers::cache::CacheLayer;
use crate::layers::rate_limit::RateLimitLayer;

impl Metrics {
    /// Adds how budgets stand, looked at whenever it is asked: limits, what is spent, reserved and left.
    pub fn watch_budgets(&self, budgets: impl Into<CurrentBudgets>) -> Result<(), MetricsError> {
        self.add(BudgetMetrics::new(budgets.into()))
    }

    /// Adds how the writing of records goes.
    #[cfg(feature = "sidecar")]
    pub fn watch_records(&self, records: Arc<crate::readers::records::Records>) -> Result<(), MetricsError> {
        self.add(records::RecordsMetrics::new(records))
    }

    /// Adds what has happened that a person may want to know, and who was told.
    #[cfg(feature = "sidecar")]
    pub(crate) fn watch_events(
        &self,
        look: impl Fn() -> events::EventCounts + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.add(events::EventMetrics::new(look))
    }

    /// Adds how reading the config again goes.
    #[cfg(feature = "sidecar")]
    pub(crate) fn watch_reloads(
        &self,
        look: impl Fn() -> reloads::Reloading + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.add(reloads::ReloadMetrics::new(look))
    }

    /// Adds how the month will end: the band's two ends, in neurons, where anything is foreseen.
    #[cfg(feature = "sidecar")]
    pub(crate) fn watch_outlook(
        &self,
        look: impl Fn() -> Option<(f64, f64)> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.add(outlook::OutlookMetrics::new(look))
    }

    /// Adds how models stand with their limits, looked at whenever it is asked: what is left, who waits, the pace.
    pub fn watch_limits(
        &self,
        limits: RateLimitLayer,
        catalogue: impl Into<Arc<Catalogue>>,
    ) -> Result<(), MetricsError> {
        self.add(Standing::new(limits, catalogue))
    }

    /// Adds how it goes with questions that are answered as others that mean the same.
    pub fn watch_semantic_cache(&self, cache: CacheLayer) -> Result<(), MetricsError> {
        self.add(semantic::SemanticMetrics::new(cache))
    }

    /// Adds how it goes with the cached answers that several gates share.
    #[cfg(feature = "replicas")]
    pub fn watch_shared_cache(&self, cache: crate::replicas::SharedCache) -> Result<(), MetricsError> {
        self.add(shared_cache::SharedCacheMetrics::new(cache))
    }

    /// Adds how it goes with the store that several gates share.
    #[cfg(feature = "replicas")]
    pub fn watch_store(
        &self,
        seen: Arc<crate::replicas::Seen>,
        sharing: Arc<crate::layers::rate_limit::Sharing>,
        noticed: Arc<crate::replicas::Noticed>,
        clock: Arc<crate::replicas::FleetClock>,
    ) -> Result<(), MetricsError> {
        self.add(store::StoreMetrics::new(seen, sharing, noticed, clock))
    }

    /// Adds what became of telemetry.
    #[cfg(feature = "otel")]
    pub(crate) fn watch_telemetry(
        &self,
        look: impl Fn() -> Vec<telemetry::Count> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.add(telemetry::TelemetryMetrics::new(look))
    }

    /// Everything, as the registry has it.
    #[cfg(feature = "otel")]
    pub(crate) fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// Adds a gauge that is looked up at each scrape.
    pub fn watch(
        &self,
        name: &str,
        help: &str,
        look: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        self.add(Watched::new(name, help, look))
    }

    fn add(&self, collector: Result<impl Collector + 'static, prometheus::Error>) -> Result<(), MetricsError> {
        collector.and_then(|collector| self.registry.register(Box::new(collector))).map_err(MetricsError)
    }

    /// Adds what is known of the vendor's own books: the account's spend, prices that changed, models that go.
    pub fn watch_books(&self, known: Arc<Known>, catalogue: Arc<Catalogue>) -> Result<(), MetricsError> {
        self.add(BooksMetrics::new(known, catalogue))
    }
}
