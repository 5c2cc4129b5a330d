//! The metrics as figures for a person: what the live page shows is what a scrape says.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};

use super::gate::Metrics;

/// All that was counted since the start, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Totals {
    /// By the model's label.
    pub models: BTreeMap<String, ModelTotals>,
    /// Calls whose receipt is open.
    pub in_flight: f64,
    /// The gate's own time, summed up, in seconds.
    pub overhead_seconds: f64,
    /// Over so many calls.
    pub overhead_calls: f64,
}

/// Of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ModelTotals {
    /// Calls that ended, however they did.
    pub calls: f64,
    /// Those of them that were not answered, for whatever reason but the client's leaving.
    pub failed: f64,
    /// Neurons spent.
    pub neurons: f64,
    /// US dollars spent.
    pub usd: f64,
    /// Neurons that the cache saved.
    pub saved: f64,
    /// Neurons that the vendor's prefix cache saved.
    pub prefix_saved: f64,
    /// Calls that the cache answered, alone or by joining a twin.
    pub hits: f64,
    /// Those of them that had what another gate had kept.
    pub shared_hits: f64,
    /// Calls that the cache was asked for.
    pub looked_up: f64,
    /// Requests that the limit's window has room for, and those left of them; `None` where the model was never asked.
    pub limit: Option<f64>,
    /// See `limit`.
    pub remaining: Option<f64>,
    /// Calls that wait for a permit.
    pub waiting: f64,
    /// Attempts that upstream refused for their rate.
    pub refused_upstream: f64,
}

impl Metrics {
    /// The figures as a scrape would give them now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for family in self.registry.gather() {
            totals.add(&family);
        }
        totals
    }
}

impl Totals {
    fn add(&mut self, family: &MetricFamily) {
        for metric in family.get_metric() {
            match family.name() {
                "tollgate_in_flight_requests" => self.in_flight = metric.get_gauge().get_value(),
                "tollgate_overhead_seconds" => {
                    self.overhead_seconds = metric.get_histogram().get_sample_sum();
                    self.overhead_calls = metric.get_histogram().get_sample_count() as f64;
                }
                name => {
                    if let Some(model) = label(metric, "model") {
                        self.models.entry(model.to_owned()).or_default().add(name, metric);
                    }
                }
            }
        }
    }
}

impl ModelTotals {
    fn add(&mut self, family: &str, metric: &Metric) {
        let (count, gauge) = (metric.get_counter().get_value(), metric.get_gauge().get_value());
        match family {
            "tollgate_requests_total" => {
                self.calls += count;
                if !matches!(label(metric, "outcome"), Some("ok" | "cache_hit" | "aborted")) {
                    self.failed += count;
                }
            }
            "tollgate_neurons_total" => self.neurons += count,
            "tollgate_cost_usd_total" => self.usd += count,
            "tollgate_saved_neurons_total" => self.saved += count,
            "tollgate_prefix_saved_neurons_total" => self.prefix_saved += count,
            "tollgate_cache_requests_total" => {
                self.looked_up += count;
                if matches!(label(metric, "status"), Some("HIT" | "COALESCED" | "SHARED" | "SEMANTIC_HIT")) {
                    self.hits += count;
                }
                if label(metric, "status") == Some("SHARED") {
                    self.shared_hits += count;
                }
            }
            "tollgate_rate_limit_limit" => self.limit = Some(gauge),
            "tollgate_rate_limit_remaining" => self.remaining = Some(gauge),
            "tollgate_queue_length" => self.waiting = gauge,
            "tollgate_upstream_attempts_total" if label(metric, "status") == Some("429") => {
                self.refused_upstream += count;
            }
            _ => {}
        }
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    metric.get_label().iter().find(|label| label.name() == name).map(|label| label.value())
}
