//! `[otel]`: where traces, metrics and the log go besides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where telemetry goes. `[otel]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Otel {
    /// A collector's base URL, such as `http://127.0.0.1:4318`, which speaks OTLP over HTTP with protobuf; an empty one is none.
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A span for each call and for each attempt upstream.
    pub traces: bool,
    /// What `/metrics` has, and the GenAI conventions' own.
    pub metrics: bool,
    /// The gate's log.
    pub logs: bool,
    /// Which part of the calls that come without a trace is traced, from 0 to 1. Others say it themselves.
    #[serde(deserialize_with = "share")]
    pub sample: f64,
    /// How often metrics are sent.
    #[serde(with = "super::duration")]
    pub metrics_every: Duration,
    /// `service.name`; `OTEL_SERVICE_NAME` where it is not set, and then `tollgate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

// === impl Otel ===

impl Default for Otel {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces: true,
            metrics: true,
            logs: true,
            sample: 1.0,
            metrics_every: Duration::from_secs(60),
            service_name: None,
        }
    }
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    let wrong = || serde::de::Error::custom(format!("{share} is no part of all calls: write one from 0.0 to 1.0"));
    (0.0..=1.0).contains(&share).then_some(share).ok_or_else(wrong)
}
