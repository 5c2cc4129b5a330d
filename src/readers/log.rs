//! Receipts as lines of the log: one a call, at level `debug`.

use crate::receipt::{Facts, Reader};

/// Writes a line a call. No token, key or prompt is on a receipt, so none is in a line.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CallLog;

impl Reader for CallLog {
    fn sealed(&self, facts: &Facts) {
        tracing::debug!(
            id = %facts.id,
            trace_id = facts.trace.map(|trace| tracing::field::display(format!("{:032x}", trace.trace))),
            asked = facts.asked_as.as_deref(),
            model = facts.model.label(),
            outcome = facts.outcome.label(),
            status = facts.status.map(|status| status.as_u16()),
            refused = facts.refused,
            attempts = facts.attempts.len(),
            neurons = %facts.cost.neurons,
            source = facts.cost.source.label(),
            duration = ?facts.duration,
            waited = ?facts.waited,
            vendor_id = facts.vendor_id,
            "call"
        );
    }
}
