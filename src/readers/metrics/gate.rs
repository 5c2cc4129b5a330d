//! The gate's metrics.

use std::sync::OnceLock;

use prometheus::{Histogram, IntCounter, IntGauge, Opts, Registry, TextEncoder};

use super::families::{Families, PerModel};
use super::kinds::Kinds;
use super::register::{MetricsError, histogram, register};
use super::speech::Speech;
use crate::catalogue::{Catalogue, Model, Slot};

/// The gate's metrics, in a registry of their own.
pub struct Metrics {
    pub(super) registry: Registry,
    pub(super) families: Families,
    pub(super) overhead: Histogram,
    pub(super) estimate_ratio: Histogram,
    pub(super) absurd: IntCounter,
    pub(super) in_flight: IntGauge,
    pub(super) streams: IntGauge,
    pub(super) kinds: Kinds,
    pub(super) speech: Speech,
    models: Box<[OnceLock<PerModel>]>,
}

const OVERHEADS: [f64; 10] = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25];
const RATIOS: [f64; 11] = [0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 2.0, 4.0];

// === impl Metrics ===

impl Metrics {
    /// All families, at zero. Fails only if two had one name.
    pub fn new() -> Result<Self, MetricsError> {
        Self::registered().map_err(MetricsError)
    }

    fn registered() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let overhead = histogram(
            "tollgate_overhead_seconds",
            "The gate's own time a call, waits and upstream taken off.",
            &OVERHEADS,
        );
        let overhead = register(&registry, Histogram::with_opts(overhead)?)?;
        let ratio =
            histogram("tollgate_estimate_ratio", "Estimated over real input tokens; 1 is a perfect guess.", &RATIOS);
        let estimate_ratio = register(&registry, Histogram::with_opts(ratio)?)?;
        let absurd = IntCounter::new(
            "tollgate_absurd_figures_total",
            "Replies that told a count or a cost beyond all bounds, which was not believed.",
        )?;
        let absurd = register(&registry, absurd)?;
        let in_flight = IntGauge::new("tollgate_in_flight_requests", "Calls whose receipt is open.")?;
        let in_flight = register(&registry, in_flight)?;
        let streams = IntGauge::new("tollgate_in_flight_streams", "Those of them that asked for a stream.")?;
        let streams = register(&registry, streams)?;
        let build =
            Opts::new("tollgate_build_info", "Always 1; the label has the version.").const_label("version", VERSION);
        register(&registry, IntGauge::with_opts(build)?)?.set(1);
        let kinds = Kinds::register(&registry)?;
        let speech = Speech::register(&registry)?;
        let models = (0..Slot::COUNT).map(|_| OnceLock::new()).collect();
        Ok(Self { registry, families, overhead, estimate_ratio, absurd, in_flight, streams, kinds, speech, models })
    }

    /// Starts the sums of money of every listed model at zero. Prometheus sees only how a series grows, and so would miss
    /// the first call of one that begins with it.
    pub fn begin_at_zero(&self, catalogue: &Catalogue) {
        let listed = catalogue.models().into_iter().filter(|model| model.is_listed());
        for model in listed {
            self.families.begin_at_zero(&model.id, model.prices.is_empty());
        }
        self.families.begin_at_zero("other", true);
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self) -> Result<String, MetricsError> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(MetricsError)
    }

    pub(super) fn model(&self, model: &Model) -> &PerModel {
        self.models[model.slot.index() % Slot::COUNT].get_or_init(|| self.families.resolve(model))
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalogue::Task;
    use crate::receipt::{CacheStatus, Cost, Reader, Receipt};

    #[test]
    fn a_stream_is_in_flight_from_when_it_is_known_until_it_is_sealed() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let streams = || metrics.render().unwrap().contains("tollgate_in_flight_streams 1");
        let receipt = |stream: bool| {
            let model = Catalogue::default().nameless(Task::Unknown);
            let receipt = Receipt::open(Arc::new([metrics.clone() as Arc<dyn Reader>]), model);
            receipt.identify(|facts| facts.stream = stream);
            receipt
        };
        let (open, other) = (receipt(true), receipt(false));
        assert!(streams());
        drop(open);
        assert!(!streams());
        drop(other);
    }

    #[test]
    fn junk_models_make_no_series() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let catalogue = Catalogue::default();
        for n in 0..1000 {
            let model = catalogue.find(&format!("junk-{n}"), Task::Unknown);
            drop(Receipt::open(Arc::new([metrics.clone() as Arc<dyn Reader>]), model));
        }
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"tollgate_requests_total{model="other",outcome="aborted",task="unknown"} 1000"#),
            "{text}"
        );
        assert!(!text.contains("junk"));
    }

    #[test]
    fn every_listed_model_stays_within_45_series() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let before = metrics.render().unwrap().lines().count();
        let model = Catalogue::default().find("@cf/meta/llama-3.2-1b-instruct", Task::Unknown);
        let receipt = Receipt::open(Arc::new([metrics.clone() as Arc<dyn Reader>]), model);
        receipt.note(|facts| {
            facts.cost = Cost::estimated(crate::neurons::Neurons::from_whole(1));
            facts.usage.input_tokens = 3;
            facts.cache = CacheStatus::Miss;
        });
        drop(receipt);
        let series = metrics.render().unwrap().lines().filter(|l| l.contains("llama")).count();
        assert!(series <= 45, "{series} series for one model ({before} lines before)");
    }
}
