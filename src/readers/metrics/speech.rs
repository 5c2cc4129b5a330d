//! Speech: sockets that are open, and how much audio was heard. Handles are resolved for models that have any.

use std::sync::OnceLock;

use prometheus::{Counter, CounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::register::register;
use crate::catalogue::{Model, Slot};

/// The families, and each model's part of them.
pub(super) struct Speech {
    open: IntGaugeVec,
    seconds: CounterVec,
    models: Box<[OnceLock<(IntGauge, Counter)>]>,
}

impl Speech {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let open = IntGaugeVec::new(Opts::new("tollgate_sockets_open", "WebSockets that are open."), &["model"])?;
        let help =
            "Seconds of audio heard or spoken, over WebSockets as they come in, over HTTP when the call is over.";
        let seconds = CounterVec::new(Opts::new("tollgate_audio_seconds_total", help), &["model"])?;
        let models = (0..Slot::COUNT).map(|_| OnceLock::new()).collect();
        Ok(Self { open: register(registry, open)?, seconds: register(registry, seconds)?, models })
    }

    pub(super) fn opened(&self, model: &Model) {
        self.model(model).0.inc();
    }

    pub(super) fn closed(&self, model: &Model) {
        self.model(model).0.dec();
    }

    pub(super) fn heard(&self, model: &Model, audio_ms: u64) {
        if audio_ms > 0 {
            self.model(model).1.inc_by(audio_ms as f64 / 1000.0);
        }
    }

    fn model(&self, model: &Model) -> &(IntGauge, Counter) {
        self.models[model.slot.index() % Slot::COUNT].get_or_init(|| {
            let label = [model.label()];
            (self.open.with_label_values(&label), self.seconds.with_label_values(&label))
        })
    }
}
