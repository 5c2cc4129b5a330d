//! What is kept of a call until its spans are made.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::counts::{Counts, Delivery};
use crate::catalogue::Model;
use crate::endpoint::Endpoint;
use crate::receipt::{Attempt, CacheStatus, CallId, Cost, Facts, Outcome, Reader};
use crate::sidecar::otel::collector::Signal;
use crate::trace::TraceContext;
use crate::usage::Usage;

/// A receipt in short. Nothing that a client wrote is in it but names that the gate knows.
#[derive(Clone, Debug)]
pub(super) struct CallSummary {
    pub(super) id: CallId,
    pub(super) received_at: SystemTime,
    pub(super) trace: Option<TraceContext>,
    pub(super) asked: Arc<Model>,
    pub(super) model: Arc<Model>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) stream: bool,
    pub(super) key: Option<Arc<str>>,
    pub(super) status: Option<u16>,
    pub(super) outcome: Outcome,
    pub(super) refused: Option<&'static str>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) cache: CacheStatus,
    pub(super) vendor_id: Option<String>,
    pub(super) usage: Usage,
    pub(super) cost: Cost,
    pub(super) waited: Duration,
    pub(super) first_byte: Option<Duration>,
    pub(super) duration: Duration,
}

/// Puts each call into the queue, without waiting for room.
pub(super) struct Calls {
    pub(super) queue: mpsc::Sender<CallSummary>,
    pub(super) counts: Arc<Counts>,
}

/// Calls that wait for the thread, which takes them [`EVERY`](super::run::EVERY) so often.
pub(super) const QUEUE: usize = 8192;

impl Reader for Calls {
    fn sealed(&self, facts: &Facts) {
        // The thread looks by itself now and then: nobody is woken.
        match self.queue.try_reserve() {
            Ok(place) => place.send(CallSummary::of(facts)),
            Err(_) => self.counts.note(Signal::Traces, Delivery::Dropped, 1),
        }
    }
}

impl CallSummary {
    fn of(facts: &Facts) -> Self {
        Self {
            id: facts.id,
            received_at: facts.received_at,
            trace: facts.trace,
            asked: facts.asked.clone(),
            model: facts.model.clone(),
            endpoint: facts.endpoint,
            stream: facts.stream,
            key: facts.key.clone(),
            status: facts.status.map(|status| status.as_u16()),
            outcome: facts.outcome,
            refused: facts.refused,
            attempts: facts.attempts.clone(),
            cache: facts.cache,
            vendor_id: facts.vendor_id.clone(),
            usage: facts.usage.clone(),
            cost: facts.cost,
            waited: facts.waited,
            first_byte: facts.first_byte,
            duration: facts.duration,
        }
    }

    /// What went wrong, in a word; `None` where nothing did.
    pub(super) fn error(&self) -> Option<&'static str> {
        let is_well = matches!(self.outcome, Outcome::Ok | Outcome::CacheHit);
        (!is_well).then(|| self.refused.unwrap_or(self.outcome.label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call_read_by};

    #[test]
    fn a_queue_that_nobody_takes_from_is_bounded_and_what_is_lost_is_counted() {
        let (sender, queue) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let readers: Arc<[Arc<dyn Reader>]> =
            Arc::new([Arc::new(Calls { queue: sender, counts: counts.clone() }) as _]);
        for _ in 0..QUEUE + 7 {
            drop(call_read_by(readers.clone(), LLAMA, "{}"));
        }
        assert_eq!(queue.len(), QUEUE);
        assert!(counts.all().contains(&("traces", "dropped", 7)), "{:?}", counts.all());
    }
}
