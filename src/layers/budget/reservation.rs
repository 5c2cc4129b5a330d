//! What is reserved for one call, and how it is settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::balance::{Balance, Verdict};
use super::bucket::Bucket;
use super::window::Millis;
use crate::batches::{Held, Holding, Note};
use crate::call::{Allowance, Call};
use crate::neurons::Neurons;
use crate::receipt::{Cost, Facts, Source};

/// What is reserved for a call. It is settled once, and at the latest when the call's receipt is sealed.
pub struct Reservation {
    /// The buckets, in the rules' order, and the window of each.
    parts: Mutex<Vec<(Arc<Bucket>, Millis)>>,
    needed: Neurons,
    model: Arc<str>,
    /// Attempts of the same call before this reservation, which are others' matter.
    attempts_before: usize,
    /// Attempts that were never heard of again and are charged already.
    charged: AtomicUsize,
    is_settled: AtomicBool,
    /// It outlives its call: a batch that was queued.
    is_held: AtomicBool,
}

// === impl Reservation ===

impl Reservation {
    pub(super) fn new(parts: Vec<(Arc<Bucket>, Millis)>, needed: Neurons, call: &Call) -> Arc<Self> {
        let attempts_before = call.receipt.read(|facts| facts.attempts.len());
        let model = call.model.id.clone();
        let reservation = Arc::new(Self {
            parts: Mutex::new(parts),
            needed,
            model,
            attempts_before,
            charged: AtomicUsize::new(0),
            is_settled: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
        });
        if call.socket.is_none() {
            let closing = reservation.clone();
            call.receipt.on_seal(move |facts| closing.settle(facts));
        }
        reservation
    }

    /// What an earlier run held for a batch, in the buckets where it still counts.
    pub(super) fn held(parts: Vec<(Arc<Bucket>, Millis)>, needed: Neurons, model: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            parts: Mutex::new(parts),
            needed,
            model,
            attempts_before: 0,
            charged: AtomicUsize::new(0),
            is_settled: AtomicBool::new(false),
            is_held: AtomicBool::new(true),
        })
    }

    /// What is reserved.
    pub fn neurons(&self) -> Neurons {
        self.needed
    }

    /// Charges what the call cost and frees the rest; once.
    pub(super) fn settle(&self, facts: &Facts) {
        if !self.is_held.load(Ordering::Acquire) {
            self.charge(self.cost(facts));
        }
    }

    /// Charges this and frees the rest; once. For a stretch of a socket, which no receipt settles.
    pub(super) fn settle_as(&self, cost: Neurons) {
        self.charge(cost);
    }

    /// Charges this and frees the rest; once.
    fn charge(&self, cost: Neurons) {
        if self.is_settled.swap(true, Ordering::AcqRel) {
            return;
        }
        let parts = self.parts.lock();
        for (bucket, start) in &*parts {
            bucket.settle(*start, self.needed, cost);
        }
        // All rules go by one clock.
        let Some((first, _)) = parts.first().filter(|_| !cost.is_zero()) else { return };
        let now = first.rule.now().steady;
        for (bucket, _) in &*parts {
            bucket.rule.pace.lock().note(now, cost);
        }
    }

    /// What its model cost, and all that was reserved for each attempt that may have run and was never heard of again.
    fn cost(&self, facts: &Facts) -> Neurons {
        let mine = facts.attempts.iter().skip(self.attempts_before).filter(|attempt| attempt.model == self.model);
        let lost = mine.filter(|attempt| attempt.may_have_cost).skip(self.charged.load(Ordering::Acquire));
        let lost: Neurons = lost.map(|_| self.needed).sum();
        // The answers of a batch are charged where it was submitted.
        let is_charged_there = matches!(facts.batch, Some(Note::Settled { is_charged: true, .. }));
        if facts.model.id != self.model || facts.cost.source == Source::None || is_charged_there {
            return lost;
        }
        lost + self.bounded(&facts.cost)
    }
}

impl Reservation {
    /// Nobody knows how far upstream went on for a client who has left: that is charged what was reserved. What the gate
    /// reckons by itself is at most that, whatever it has learned; the vendor's own figure counts as it is.
    fn bounded(&self, cost: &Cost) -> Neurons {
        match cost.source {
            Source::Reported if cost.is_partial => cost.neurons.max(self.needed),
            _ if cost.is_partial => self.needed,
            Source::Estimated => cost.neurons.min(self.needed),
            Source::None | Source::Computed | Source::Reported => cost.neurons,
        }
    }
}

impl Allowance for Reservation {
    fn again(&self) -> bool {
        let mut parts = self.parts.lock();
        let Some(starts) = reserve_in_all(parts.iter().map(|(bucket, _)| bucket), self.needed) else {
            return false;
        };
        for ((bucket, start), next) in parts.iter_mut().zip(starts) {
            bucket.settle(std::mem::replace(start, next), self.needed, self.needed);
        }
        self.charged.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn hold(self: Arc<Self>) -> Option<Arc<dyn Held>> {
        self.is_held.store(true, Ordering::Release);
        Some(self)
    }
}

impl Held for Reservation {
    fn neurons(&self) -> Neurons {
        self.needed
    }

    fn settle(&self, cost: Neurons) {
        self.charge(cost);
    }

    fn holdings(&self) -> Vec<Holding> {
        let holding = |(bucket, start): &(Arc<Bucket>, Millis)| bucket.holding(*start);
        self.parts.lock().iter().map(holding).collect()
    }
}

/// Reserves in all of these, at once and without waiting, or in none. They are locked in their order, which is the rules'.
/// Gives the window of each.
fn reserve_in_all<'a>(buckets: impl Iterator<Item = &'a Arc<Bucket>> + Clone, needed: Neurons) -> Option<Vec<Millis>> {
    let mut balances: Vec<_> = buckets.clone().map(|bucket| bucket.lock(bucket.rule.now())).collect();
    let has_room = |(bucket, balance): (&Arc<Bucket>, &MutexGuard<'_, Balance>)| {
        !balance.retired && balance.verdict(&bucket.rule, needed, u64::MAX, false) == Verdict::Room
    };
    if !buckets.clone().zip(&balances).all(has_room) {
        return None;
    }
    let starts = balances.iter_mut().map(|balance| balance.reserve(needed)).collect();
    buckets.zip(&balances).for_each(|(bucket, balance)| bucket.list(balance));
    Some(starts)
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reservation({} for {}, settled: {:?})", self.needed, self.model, self.is_settled)
    }
}
