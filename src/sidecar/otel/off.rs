//! In a program that was built without telemetry there is none: its config refuses to ask for it.

use std::sync::Arc;

use super::collector::Collector;
use crate::readers::metrics::{Metrics, MetricsError};
use crate::receipt::Reader;
use crate::sidecar::config::ConfigError;
use crate::upstream::Road;

/// Nothing that could be.
#[derive(Debug)]
pub(in crate::sidecar) enum Telemetry {}

/// Nothing that could be.
#[derive(Clone, Debug)]
pub enum LogLines {}

impl LogLines {
    pub(super) fn waiting() -> Option<Self> {
        None
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for LogLines {}

impl Telemetry {
    pub(in crate::sidecar) fn new(_: Collector, _: &Road) -> Result<Self, ConfigError> {
        let what = "this program was built without telemetry".into();
        Err(ConfigError { place: "[otel]".into(), what })
    }

    pub(in crate::sidecar) fn reader(&self) -> Arc<dyn Reader> {
        match *self {}
    }

    pub(in crate::sidecar) fn watch(&self, _: &Metrics) -> Result<(), MetricsError> {
        match *self {}
    }

    pub(in crate::sidecar) fn start(
        &mut self,
        _: Arc<Metrics>,
        _: impl Fn() -> String + Send + 'static,
    ) -> std::io::Result<()> {
        match *self {}
    }

    pub(in crate::sidecar) fn send_log(&self, _: LogLines) {
        match *self {}
    }

    pub(in crate::sidecar) fn close(&mut self) {
        match *self {}
    }
}
