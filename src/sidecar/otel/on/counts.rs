//! What became of telemetry.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sidecar::otel::collector::Signal;

/// What became of spans, metrics and log records.
#[derive(Debug, Default)]
pub(super) struct Counts([[AtomicU64; 3]; 3]);

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The collector took it.
    Sent,
    /// The collector refused it, or could not be reached.
    Failed,
    /// It found no room.
    Dropped,
}

// === impl Counts ===

impl Counts {
    pub(super) fn note(&self, signal: Signal, fate: Delivery, count: usize) {
        self.0[signal as usize][fate as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let one = |signal: Signal, fate: Delivery| {
            let count = self.0[signal as usize][fate as usize].load(Ordering::Relaxed);
            (signal.label(), fate.label(), count)
        };
        Signal::ALL.into_iter().flat_map(|signal| Delivery::ALL.map(|fate| one(signal, fate))).collect()
    }
}

// === impl Delivery ===

impl Delivery {
    pub(super) const ALL: [Self; 3] = [Self::Sent, Self::Failed, Self::Dropped];

    /// Its metric label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}
