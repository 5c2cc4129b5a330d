//! What `/metrics` has, as OTLP's metrics: the same names, labels and sums.

use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric,
    number_data_point,
};
use prometheus::proto::{MetricFamily, MetricType};

use super::spans::{nanos, text};

/// `since`: when counting began.
pub(super) fn metrics(families: &[MetricFamily], since: SystemTime, now: SystemTime) -> Vec<Metric> {
    families.iter().filter_map(|family| one(family, nanos(since), nanos(now))).collect()
}

fn one(family: &MetricFamily, since: u64, now: u64) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative.into();
    let points = || family.get_metric().iter();
    let value = |metric: &prometheus::proto::Metric, start: u64, value: f64| NumberDataPoint {
        attributes: labels(metric),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: points().map(|metric| value(metric, since, metric.get_counter().get_value())).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => metric::Data::Gauge(Gauge {
            data_points: points().map(|metric| value(metric, 0, metric.get_gauge().get_value())).collect(),
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: points().map(|metric| histogram(metric, since, now)).collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let (name, description) = (family.name().to_owned(), family.help().to_owned());
    Some(Metric { name, description, data: Some(data), ..Metric::default() })
}

/// Prometheus counts what is below each bound, OTLP what is between two.
fn histogram(metric: &prometheus::proto::Metric, since: u64, now: u64) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(histogram.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: labels(metric),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: counts.iter().sum(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn labels(metric: &prometheus::proto::Metric) -> Vec<KeyValue> {
    metric.get_label().iter().map(|label| text(label.name(), label.value())).collect()
}
