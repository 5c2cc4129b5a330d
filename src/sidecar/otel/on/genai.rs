//! The GenAI conventions' own metrics, summed up from calls: how long they took and how many tokens they used. Each bucket has
//! an exemplar, a call that fell into it, by its trace and its log id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Histogram, HistogramDataPoint, Metric, exemplar, metric,
};

use super::calls::CallSummary;
use super::spans::{nanos, text};
use crate::layers::identify::{PROVIDER, operation};

/// What all calls since the start add up to. As many series as models and kinds of ends, which are bounded.
#[derive(Debug, Default)]
pub(super) struct GenAi {
    durations: BTreeMap<(Arc<str>, &'static str, Option<&'static str>), Buckets<14>>,
    tokens: BTreeMap<(Arc<str>, &'static str, &'static str), Buckets<14>>,
}

/// A histogram, and one call of each of its buckets.
#[derive(Debug)]
struct Buckets<const N: usize> {
    /// One more than the bounds: the last is open.
    counts: [u64; N],
    last: u64,
    sum: f64,
    exemplars: BTreeMap<usize, Exemplar>,
}

/// The conventions' own, in seconds.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

impl GenAi {
    pub(super) fn add(&mut self, seen: &CallSummary) {
        let operation = operation(seen.model.task);
        let model: Arc<str> = seen.model.label().into();
        let duration = (model.clone(), operation, seen.error());
        self.durations.entry(duration).or_default().add(&SECONDS, seen.duration.as_secs_f64(), seen);
        let usage = &seen.usage;
        for (kind, count) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            if count > 0 {
                let key = (model.clone(), operation, kind);
                self.tokens.entry(key).or_default().add(&TOKENS, count as f64, seen);
            }
        }
    }

    /// As they stand. Exemplars are told once.
    pub(super) fn metrics(&mut self, since: SystemTime, now: SystemTime) -> Vec<Metric> {
        let common = |model: &str, operation: &str| {
            vec![
                text("gen_ai.operation.name", operation),
                text("gen_ai.provider.name", PROVIDER),
                text("gen_ai.request.model", model),
            ]
        };
        let span = (since, now);
        let durations = self.durations.iter_mut().map(|((model, operation, error), buckets)| {
            let mut attributes = common(model, operation);
            attributes.extend(error.map(|error| text("error.type", error)));
            buckets.point(&SECONDS, attributes, span)
        });
        let tokens = self.tokens.iter_mut().map(|((model, operation, kind), buckets)| {
            let mut attributes = common(model, operation);
            attributes.push(text("gen_ai.token.type", kind));
            buckets.point(&TOKENS, attributes, span)
        });
        vec![
            histogram("gen_ai.client.operation.duration", "s", "How long calls took.", durations.collect()),
            histogram("gen_ai.client.token.usage", "{token}", "Tokens that calls read and wrote.", tokens.collect()),
        ]
    }
}

fn histogram(name: &str, unit: &str, description: &str, data_points: Vec<HistogramDataPoint>) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: description.into(),
        data: Some(metric::Data::Histogram(Histogram { data_points, aggregation_temporality })),
        ..Metric::default()
    }
}

// === impl Buckets ===

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: [0; N], last: 0, sum: 0.0, exemplars: BTreeMap::new() }
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&mut self, bounds: &[f64; N], value: f64, seen: &CallSummary) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(N);
        *self.counts.get_mut(bucket).unwrap_or(&mut self.last) += 1;
        self.sum += value;
        let trace = seen.trace.filter(|trace| trace.is_sampled);
        let exemplar = Exemplar {
            filtered_attributes: vec![text("tollgate.id", &seen.id.to_string())],
            time_unix_nano: nanos(seen.received_at + seen.duration),
            trace_id: trace.map_or_else(Vec::new, |trace| trace.trace.to_be_bytes().to_vec()),
            span_id: trace.map_or_else(Vec::new, |trace| trace.span.to_be_bytes().to_vec()),
            value: Some(exemplar::Value::AsDouble(value)),
        };
        self.exemplars.insert(bucket, exemplar);
    }

    fn point(
        &mut self,
        bounds: &[f64; N],
        attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
        (since, now): (SystemTime, SystemTime),
    ) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: nanos(since),
            time_unix_nano: nanos(now),
            count: self.counts.iter().sum::<u64>() + self.last,
            sum: Some(self.sum),
            bucket_counts: self.counts.iter().copied().chain([self.last]).collect(),
            explicit_bounds: bounds.to_vec(),
            exemplars: std::mem::take(&mut self.exemplars).into_values().collect(),
            ..HistogramDataPoint::default()
        }
    }
}
