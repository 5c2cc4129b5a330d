//! Adding a metric to a registry.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, Registry};

/// Two metrics have one name, or one cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct MetricsError(pub(super) prometheus::Error);

pub(super) fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

pub(super) fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
