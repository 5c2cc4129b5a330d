//! The families that have a model's label, and one model's handles in them.

use std::sync::{Arc, OnceLock};

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use super::register::{histogram, register};
use crate::catalogue::Model;
use crate::receipt::{CacheStatus, Outcome, Source};

/// The families that have a model's label.
pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) first_byte: HistogramVec,
    pub(super) tokens: IntCounterVec,
    pub(super) neurons: CounterVec,
    pub(super) cost_usd: CounterVec,
    pub(super) custom_cost_usd: CounterVec,
    pub(super) saved: CounterVec,
    pub(super) prefix_saved: CounterVec,
    pub(super) unpriced: IntCounterVec,
    pub(super) cache: IntCounterVec,
    pub(super) wait: HistogramVec,
    pub(super) rejected: IntCounterVec,
    pub(super) attempts: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) drift: GaugeVec,
}

/// One model's handles. Those that many models never need are resolved when they are.
pub(super) struct PerModel {
    pub(super) model: Arc<str>,
    task: &'static str,
    outcomes: [OnceLock<IntCounter>; Outcome::ALL.len()],
    pub(super) duration: Histogram,
    pub(super) first_byte: Histogram,
    wait: OnceLock<Histogram>,
    tokens: OnceLock<[IntCounter; 3]>,
    neurons: [OnceLock<Counter>; 4],
    cost_usd: OnceLock<Counter>,
    answered: OnceLock<IntCounter>,
    cache: [OnceLock<IntCounter>; CacheStatus::ALL.len()],
    drift: OnceLock<Gauge>,
}

/// In seconds. Few, for each is a series for each model: a hundred models are to stay under 5,000 of them.
const DURATIONS: [f64; 7] = [0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
const FIRST_BYTES: [f64; 6] = [0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const WAITS: [f64; 4] = [0.1, 1.0, 5.0, 10.0];

// === impl Families ===

impl Families {
    pub(super) fn begin_at_zero(&self, model: &str, is_unpriced: bool) {
        if is_unpriced {
            self.unpriced.with_label_values(&[model]);
        }
        for source in [Source::Reported, Source::Computed, Source::Estimated].into_iter().filter_map(Source::label) {
            self.neurons.with_label_values(&[model, source]);
        }
        self.cost_usd.with_label_values(&[model]);
        self.saved.with_label_values(&[model]);
        self.prefix_saved.with_label_values(&[model]);
    }

    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, CounterVec::new(Opts::new(name, help), labels)?)
        };
        let whole = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let times = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            register(registry, HistogramVec::new(histogram(name, help, buckets), labels)?)
        };
        Ok(Self {
            unpriced: whole(
                "tollgate_unpriced_calls_total",
                "Calls that a model answered which has no price, and of which the vendor did not say what they cost.",
                &["model"],
            )?,
            requests: whole("tollgate_requests_total", "Calls, by how they ended.", &["model", "task", "outcome"])?,
            duration: times(
                "tollgate_request_duration_seconds",
                "From the request's head to the reply's last byte.",
                &["model", "task"],
                &DURATIONS,
            )?,
            first_byte: times(
                "tollgate_time_to_first_byte_seconds",
                "From the request's head to the reply's.",
                &["model", "task"],
                &FIRST_BYTES,
            )?,
            tokens: whole(
                "tollgate_tokens_total",
                "Tokens; cached_input ones are not among the input ones.",
                &["model", "kind"],
            )?,
            neurons: counter("tollgate_neurons_total", "Neurons spent, by who says so.", &["model", "source"])?,
            cost_usd: counter("tollgate_cost_usd_total", "US dollars spent, at $0.011 per 1,000 neurons.", &["model"])?,
            custom_cost_usd: counter(
                "tollgate_custom_cost_usd_total",
                "US dollars by the prices that callers named in cf-aig-custom-cost.",
                &["model"],
            )?,
            saved: counter(
                "tollgate_saved_neurons_total",
                "Neurons that answers from the cache would have cost.",
                &["model"],
            )?,
            prefix_saved: counter(
                "tollgate_prefix_saved_neurons_total",
                "Neurons that tokens from the vendor's prefix cache would have cost more without it.",
                &["model"],
            )?,
            cache: whole(
                "tollgate_cache_requests_total",
                "Calls, by what the cache had to say.",
                &["model", "status"],
            )?,
            wait: times("tollgate_rate_limit_wait_seconds", "Time a call spent in queues.", &["model"], &WAITS)?,
            rejected: whole(
                "tollgate_rate_limit_rejected_total",
                "Calls refused for their rate.",
                &["model", "scope"],
            )?,
            attempts: whole(
                "tollgate_upstream_attempts_total",
                "Attempts upstream, by the reply.",
                &["model", "status", "code"],
            )?,
            retries: whole("tollgate_retries_total", "Attempts that were tried again, by why.", &["model", "reason"])?,
            drift: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "tollgate_price_drift_ratio",
                        "Reported over computed cost of the latest call that has both.",
                    ),
                    &["model"],
                )?,
            )?,
        })
    }

    pub(super) fn resolve(&self, model: &Model) -> PerModel {
        let (name, task) = (model.label(), if model.is_listed() { model.task.label() } else { "unknown" });
        PerModel {
            model: name.into(),
            task,
            outcomes: Default::default(),
            duration: self.duration.with_label_values(&[name, task]),
            first_byte: self.first_byte.with_label_values(&[name, task]),
            wait: OnceLock::new(),
            tokens: OnceLock::new(),
            neurons: Default::default(),
            cost_usd: OnceLock::new(),
            answered: OnceLock::new(),
            cache: Default::default(),
            drift: OnceLock::new(),
        }
    }

    pub(super) fn count_refusal(&self, model: &PerModel, refused: &'static str) {
        let scope = match refused {
            "rate_limited" => "model",
            "queue_timeout" => "deadline",
            _ => return,
        };
        self.rejected.with_label_values(&[&*model.model, scope]).inc();
    }
}

// === impl PerModel ===

impl PerModel {
    pub(super) fn outcome(&self, families: &Families, outcome: Outcome) -> &IntCounter {
        self.outcomes[outcome as usize]
            .get_or_init(|| families.requests.with_label_values(&[&*self.model, self.task, outcome.label()]))
    }

    pub(super) fn wait(&self, families: &Families) -> &Histogram {
        self.wait.get_or_init(|| families.wait.with_label_values(&[&*self.model]))
    }

    pub(super) fn tokens(&self, families: &Families) -> &[IntCounter; 3] {
        self.tokens.get_or_init(|| {
            ["input", "cached_input", "output"].map(|kind| families.tokens.with_label_values(&[&*self.model, kind]))
        })
    }

    pub(super) fn neurons(&self, families: &Families, source: Source) -> Option<&Counter> {
        let label = source.label()?;
        let counter = &self.neurons[source as usize];
        Some(counter.get_or_init(|| families.neurons.with_label_values(&[&*self.model, label])))
    }

    pub(super) fn cache(&self, families: &Families, status: CacheStatus) -> Option<&IntCounter> {
        let label = status.label()?;
        let counter = &self.cache[status as usize];
        Some(counter.get_or_init(|| families.cache.with_label_values(&[&*self.model, label])))
    }

    pub(super) fn cost_usd(&self, families: &Families) -> &Counter {
        self.cost_usd.get_or_init(|| families.cost_usd.with_label_values(&[&*self.model]))
    }

    pub(super) fn answered(&self, families: &Families) -> &IntCounter {
        self.answered.get_or_init(|| families.attempts.with_label_values(&[&*self.model, "200", ""]))
    }

    pub(super) fn drift(&self, families: &Families) -> &Gauge {
        self.drift.get_or_init(|| families.drift.with_label_values(&[&*self.model]))
    }
}
