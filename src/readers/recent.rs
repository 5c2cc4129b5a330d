//! The last calls, for whoever watches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::catalogue::Model;
use crate::receipt::{CacheStatus, CallId, Cost, Facts, Outcome, Reader};

/// Keeps the last [`KEPT`](Self::KEPT) receipts in short. What a receipt shares is shared, so that a call costs no
/// allocation, and no call waits for another's line: of two that end at once one may be missing.
pub struct Recent {
    calls: Mutex<VecDeque<Brief>>,
}

/// A receipt in short.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Brief {
    /// `cf-aig-log-id`.
    pub id: CallId,
    /// When the request's head was here.
    pub received_at: SystemTime,
    /// The model that answered, or was last tried.
    pub model: Arc<Model>,
    /// The client's key, by its name.
    pub key: Option<Arc<str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the client was told.
    pub status: Option<u16>,
    /// Why the gate refused it.
    pub refused: Option<&'static str>,
    /// What it cost.
    pub cost: Cost,
    /// What the cache had to say.
    pub cache: CacheStatus,
    /// Tokens read and written.
    pub tokens: (u64, u64),
    /// Attempts upstream.
    pub attempts: usize,
    /// Time spent in queues and pauses.
    pub waited: Duration,
    /// From the request's head to the reply's last byte.
    pub duration: Duration,
}

// === impl Recent ===

impl Default for Recent {
    fn default() -> Self {
        Self { calls: Mutex::new(VecDeque::with_capacity(Self::KEPT)) }
    }
}

impl Recent {
    /// How many calls are kept.
    pub const KEPT: usize = 50;

    /// Newest first.
    pub fn calls(&self) -> Vec<Brief> {
        self.calls.lock().iter().rev().cloned().collect()
    }
}

impl Reader for Recent {
    fn sealed(&self, facts: &Facts) {
        let Some(mut calls) = self.calls.try_lock() else { return };
        if calls.len() == Self::KEPT {
            calls.pop_front();
        }
        calls.push_back(Brief::of(facts));
    }
}

// === impl Brief ===

impl Brief {
    fn of(facts: &Facts) -> Self {
        Self {
            id: facts.id,
            received_at: facts.received_at,
            model: facts.model.clone(),
            key: facts.key.clone(),
            outcome: facts.outcome,
            status: facts.status.map(|status| status.as_u16()),
            refused: facts.refused,
            cost: facts.cost,
            cache: facts.cache,
            tokens: (facts.usage.input_tokens, facts.usage.output_tokens),
            attempts: facts.attempts.len(),
            waited: facts.waited,
            duration: facts.duration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call_read_by};

    #[test]
    fn the_last_fifty_are_kept_newest_first() {
        let recent = Arc::new(Recent::default());
        for n in 0..70 {
            let call = call_read_by(Arc::new([recent.clone() as Arc<dyn Reader>]), LLAMA, "{}");
            call.receipt.note(|facts| facts.usage.input_tokens = n);
        }
        let kept: Vec<_> = recent.calls().iter().map(|call| call.tokens.0).collect();
        assert_eq!(kept, (20..70).rev().collect::<Vec<_>>());
    }
}
