//! Receipts, counted for Prometheus.
//!
//! Every series has labels from bounded sets: a model's label is its catalogue name or `other`; never a user's id, a path,
//! a key or a prompt. Handles are resolved once a model, so that a call looks no label up.

mod books;
mod budgets;
#[cfg(feature = "sidecar")]
pub(crate) mod events;
mod kinds;
#[cfg(feature = "sidecar")]
mod outlook;
#[cfg(feature = "sidecar")]
mod records;
#[cfg(feature = "sidecar")]
pub(crate) mod reloads;
mod speech;
mod standing;
#[cfg(feature = "replicas")]
mod store;
#[cfg(feature = "otel")]
pub(crate) mod telemetry;
pub mod totals;
mod watched;

use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

use self::books::BooksMetrics;
use self::budgets::BudgetMetrics;
use self::kinds::Kinds;
use self::speech::Speech;
use self::standing::Standing;
use self::watched::Watched;
use crate::catalogue::{Catalogue, Model, Slot};
use crate::layers::budget::CurrentBudgets;
use crate::layers::rate_limit::RateLimitLayer;
use crate::receipt::{Attempt, CacheStatus, Facts, Outcome, Reader, Source};
use crate::usage::Usage;
use crate::vendor::Known;

/// The gate's metrics, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    families: Families,
    overhead: Histogram,
    estimate_ratio: Histogram,
    absurd: IntCounter,
    in_flight: IntGauge,
    streams: IntGauge,
    kinds: Kinds,
    speech: Speech,
    models: Box<[OnceLock<PerModel>]>,
}

/// Two metrics have one name, or one cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct MetricsError(prometheus::Error);

/// The families that have a model's label.
struct Families {
    requests: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    tokens: IntCounterVec,
    neurons: CounterVec,
    cost_usd: CounterVec,
    custom_cost_usd: CounterVec,
    saved: CounterVec,
    prefix_saved: CounterVec,
    unpriced: IntCounterVec,
    cache: IntCounterVec,
    wait: HistogramVec,
    rejected: IntCounterVec,
    attempts: IntCounterVec,
    retries: IntCounterVec,
    drift: GaugeVec,
}

/// One model's handles. Those that many models never need are resolved when they are.
struct PerModel {
    model: Arc<str>,
    task: &'static str,
    outcomes: [OnceLock<IntCounter>; Outcome::ALL.len()],
    duration: Histogram,
    first_byte: Histogram,
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
const OVERHEADS: [f64; 10] = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25];
const RATIOS: [f64; 11] = [0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 2.0, 4.0];

/// The codes that [`vendor_error`](crate::vendor_error) knows; any other is `other`.
const CODES: [(u32, &str); 33] = [
    (2005, "2005"),
    (2009, "2009"),
    (2016, "2016"),
    (2017, "2017"),
    (2021, "2021"),
    (2049, "2049"),
    (3003, "3003"),
    (3006, "3006"),
    (3007, "3007"),
    (3008, "3008"),
    (3021, "3021"),
    (3023, "3023"),
    (3030, "3030"),
    (3036, "3036"),
    (3039, "3039"),
    (3040, "3040"),
    (3041, "3041"),
    (3042, "3042"),
    (3046, "3046"),
    (4006, "4006"),
    (5004, "5004"),
    (5005, "5005"),
    (5006, "5006"),
    (5007, "5007"),
    (5012, "5012"),
    (5016, "5016"),
    (5018, "5018"),
    (5019, "5019"),
    (5035, "5035"),
    (7003, "7003"),
    (7013, "7013"),
    (8007, "8007"),
    (10000, "10000"),
];

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

    /// Adds how budgets stand, looked at whenever it is asked: limits, what is spent, reserved and left.
    pub fn watch_budgets(&self, budgets: impl Into<CurrentBudgets>) -> Result<(), MetricsError> {
        self.add(BudgetMetrics::new(budgets.into()))
    }

    /// Adds how the writing of records goes.
    #[cfg(feature = "sidecar")]
    pub fn watch_records(&self, records: Arc<super::records::Records>) -> Result<(), MetricsError> {
        self.add(records::RecordsMetrics::new(records))
    }

    /// Adds what has happened that a person may want to know, and who was told.
    #[cfg(feature = "sidecar")]
    pub(crate) fn watch_events(
        &self,
        look: impl Fn() -> events::Told + Send + Sync + 'static,
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

    /// Adds how it goes with the store that several gates share.
    #[cfg(feature = "replicas")]
    pub fn watch_store(
        &self,
        seen: Arc<crate::replicas::Seen>,
        sharing: Arc<crate::layers::rate_limit::Sharing>,
    ) -> Result<(), MetricsError> {
        self.add(store::StoreMetrics::new(seen, sharing))
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

    fn model(&self, model: &Model) -> &PerModel {
        self.models[model.slot.index() % Slot::COUNT].get_or_init(|| self.families.resolve(model))
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Reader for Metrics {
    fn opened(&self) {
        self.in_flight.inc();
    }

    fn identified(&self, facts: &Facts) {
        if facts.stream {
            self.streams.inc();
        }
    }

    fn upgraded(&self, facts: &Facts) {
        self.speech.opened(&facts.model);
    }

    fn flowed(&self, facts: &Facts, new: &Usage) {
        self.speech.heard(&facts.model, new.audio_ms);
    }

    fn sealed(&self, facts: &Facts) {
        self.in_flight.dec();
        match facts.socket {
            Some(_) => self.speech.closed(&facts.model),
            // Of a socket that was dropped before it was open nothing was told either.
            None => self.speech.heard(&facts.model, facts.usage.audio_ms),
        }
        if facts.stream {
            self.streams.dec();
        }
        let (families, model) = (&self.families, self.model(&facts.model));
        model.outcome(families, facts.outcome).inc();
        model.duration.observe(facts.duration.as_secs_f64());
        if let Some(first_byte) = facts.first_byte {
            model.first_byte.observe(first_byte.as_secs_f64());
        }
        if facts.told_absurdly {
            self.absurd.inc();
        }
        if let Some(overhead) = facts.overhead() {
            self.overhead.observe(overhead.as_secs_f64());
        }
        if !facts.attempts.is_empty() {
            model.wait(families).observe(facts.waited.as_secs_f64());
        }
        for attempt in &facts.attempts {
            count_attempt(families, model, attempt);
        }
        if let Some(refused) = facts.refused {
            families.count_refusal(model, refused);
        }
        count_cache(families, model, facts);
        if ran_without_a_price(facts) {
            families.unpriced.with_label_values(&[&*model.model]).inc();
        }
        self.count_cost(model, facts);
    }
}

impl Metrics {
    fn count_cost(&self, model: &PerModel, facts: &Facts) {
        let (families, usage, cost) = (&self.families, &facts.usage, &facts.cost);
        if usage.input_tokens > 0 || usage.output_tokens > 0 {
            let [input, cached, output] = model.tokens(families);
            input.inc_by(usage.input_tokens.saturating_sub(usage.cached_input_tokens));
            cached.inc_by(usage.cached_input_tokens);
            if usage.cached_input_tokens > 0 {
                let saved = facts.saved_by_prefix().as_f64();
                families.prefix_saved.with_label_values(&[&*model.model]).inc_by(saved);
            }
            output.inc_by(usage.output_tokens);
        }
        if let Some(counter) = model.neurons(families, cost.source) {
            counter.inc_by(cost.neurons.as_f64());
            model.cost_usd(families).inc_by(cost.neurons.usd());
            if let Some(usd) = cost.custom_usd {
                families.custom_cost_usd.with_label_values(&[&*model.model]).inc_by(usd);
            }
            self.kinds.count(&facts.model.prices, usage, cost.neurons);
        }
        if let Some(drift) = cost.drift().filter(|_| cost.source == Source::Reported) {
            model.drift(families).set(drift);
        }
        if let Some(estimate) = facts.estimate.filter(|e| e.input_tokens > 0)
            && usage.input_tokens > 0
            && cost.source > Source::Estimated
        {
            self.estimate_ratio.observe(estimate.input_tokens as f64 / usage.input_tokens as f64);
        }
    }
}

/// It was answered by a model that has no price, and the vendor did not say what that cost.
fn ran_without_a_price(facts: &Facts) -> bool {
    let is_answered =
        facts.attempts.last().is_some_and(|attempt| attempt.status.is_some_and(|status| status.is_success()));
    facts.model.prices.is_empty() && facts.cost.source < Source::Computed && is_answered
}

fn count_attempt(families: &Families, model: &PerModel, attempt: &Attempt) {
    if attempt.status == Some(http::StatusCode::OK) && attempt.code.is_none() && attempt.model == model.model {
        return model.answered(families).inc();
    }
    let status = attempt.status.map_or("none".to_owned(), |status| status.as_str().to_owned());
    let label = if *model.model == *"other" { "other" } else { &attempt.model };
    families.attempts.with_label_values(&[label, &status, code(attempt.code)]).inc();
    if let Some(reason) = attempt.retried {
        families.retries.with_label_values(&[label, reason]).inc();
    }
}

/// A code's label.
fn code(code: Option<u32>) -> &'static str {
    let Some(code) = code else { return "" };
    CODES.iter().find(|(known, _)| *known == code).map_or("other", |(_, label)| label)
}

fn count_cache(families: &Families, model: &PerModel, facts: &Facts) {
    let Some(counter) = model.cache(families, facts.cache) else { return };
    counter.inc();
    if matches!(facts.cache, CacheStatus::Hit | CacheStatus::Coalesced | CacheStatus::Partial) {
        families.saved.with_label_values(&[&*model.model]).inc_by(facts.saved.as_f64());
    }
}

// === impl Families ===

impl Families {
    fn begin_at_zero(&self, model: &str, is_unpriced: bool) {
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

    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
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

    fn resolve(&self, model: &Model) -> PerModel {
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

    fn count_refusal(&self, model: &PerModel, refused: &'static str) {
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
    fn outcome(&self, families: &Families, outcome: Outcome) -> &IntCounter {
        self.outcomes[outcome as usize]
            .get_or_init(|| families.requests.with_label_values(&[&*self.model, self.task, outcome.label()]))
    }

    fn wait(&self, families: &Families) -> &Histogram {
        self.wait.get_or_init(|| families.wait.with_label_values(&[&*self.model]))
    }

    fn tokens(&self, families: &Families) -> &[IntCounter; 3] {
        self.tokens.get_or_init(|| {
            ["input", "cached_input", "output"].map(|kind| families.tokens.with_label_values(&[&*self.model, kind]))
        })
    }

    fn neurons(&self, families: &Families, source: Source) -> Option<&Counter> {
        let label = source.label()?;
        let counter = &self.neurons[source as usize];
        Some(counter.get_or_init(|| families.neurons.with_label_values(&[&*self.model, label])))
    }

    fn cache(&self, families: &Families, status: CacheStatus) -> Option<&IntCounter> {
        let label = status.label()?;
        let counter = &self.cache[status as usize];
        Some(counter.get_or_init(|| families.cache.with_label_values(&[&*self.model, label])))
    }

    fn cost_usd(&self, families: &Families) -> &Counter {
        self.cost_usd.get_or_init(|| families.cost_usd.with_label_values(&[&*self.model]))
    }

    fn answered(&self, families: &Families) -> &IntCounter {
        self.answered.get_or_init(|| families.attempts.with_label_values(&[&*self.model, "200", ""]))
    }

    fn drift(&self, families: &Families) -> &Gauge {
        self.drift.get_or_init(|| families.drift.with_label_values(&[&*self.model]))
    }
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Catalogue, Task};
    use crate::receipt::{Cost, Receipt};

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
