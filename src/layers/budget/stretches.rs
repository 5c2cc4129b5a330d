//! What is reserved for a call that goes on: one stretch after the other, each settled when it is used up.
//!
//! So an hour's call counts in the windows in which its minutes were reserved, never takes up more than it needs next, and what
//! is lost with the process is at most the stretch that was reserved.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::budgets::Budgets;
use super::reservation::Reservation;
use crate::Error;
use crate::call::{Allowance, Call, Extending};
use crate::neurons::Neurons;
use crate::receipt::{Facts, Receipt};

/// See the [module](self).
pub(super) struct Stretches {
    budgets: Arc<Budgets>,
    /// The call, as far as it is counted: with a receipt that nobody reads, for the call's own closes with this.
    counted: Call,
    held: Mutex<Held>,
}

struct Held {
    /// Oldest first.
    open: VecDeque<Arc<Reservation>>,
    /// What is settled of the call's cost.
    settled: Neurons,
    is_over: bool,
}

impl Stretches {
    pub(super) fn new(budgets: Arc<Budgets>, call: &Call, first: Arc<Reservation>) -> Arc<Self> {
        let receipt = Receipt::open(Arc::new([]), call.model.clone());
        let (metadata, key) = call.receipt.read(|facts| (facts.metadata.clone(), facts.key.clone()));
        receipt.note(|facts| (facts.metadata, facts.key) = (metadata, key));
        let counted = Call { receipt, allowance: None, ..call.clone() };
        let held = Held { open: VecDeque::from([first]), settled: Neurons::ZERO, is_over: false };
        let stretches = Arc::new(Self { budgets, counted, held: Mutex::new(held) });
        let closing = stretches.clone();
        call.receipt.on_seal(move |facts| closing.settle(facts));
        stretches
    }

    /// Charges what the call cost and frees the rest; once.
    pub(super) fn settle(&self, facts: &Facts) {
        let mut held = self.held.lock();
        if std::mem::replace(&mut held.is_over, true) {
            return;
        }
        let mut left = facts.cost.neurons.saturating_sub(held.settled);
        while let Some(stretch) = held.open.pop_front() {
            // What no stretch covers is the last one's.
            let cost = if held.open.is_empty() { left } else { left.min(stretch.neurons()) };
            left = left.saturating_sub(cost);
            stretch.settle_as(cost);
        }
    }

    fn settle_used(&self, spent: Neurons) {
        let mut held = self.held.lock();
        while held.open.len() > 1 && spent.saturating_sub(held.settled) >= held.open[0].neurons() {
            let Some(stretch) = held.open.pop_front() else { return };
            held.settled += stretch.neurons();
            stretch.settle_as(stretch.neurons());
        }
    }

    async fn reserve(&self, spent: Neurons, more: Neurons, least: Neurons) -> Result<Neurons, Error> {
        self.settle_used(spent);
        let stretch = self.budgets.reserve_stretch(&self.counted, more, least).await?;
        let neurons = stretch.neurons();
        let mut held = self.held.lock();
        if held.is_over {
            stretch.settle_as(Neurons::ZERO);
            return Ok(Neurons::ZERO);
        }
        held.open.push_back(stretch);
        Ok(neurons)
    }
}

impl Allowance for Stretches {
    /// Until a socket is open nothing can have cost.
    fn again(&self) -> bool {
        true
    }

    fn held(&self) -> Neurons {
        let held = self.held.lock();
        held.open.iter().map(|stretch| stretch.neurons()).sum::<Neurons>() + held.settled
    }

    fn extend(&self, spent: Neurons, more: Neurons, least: Neurons) -> Extending<'_> {
        Box::pin(self.reserve(spent, more, least))
    }
}

impl std::fmt::Debug for Stretches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.held.lock().open).finish()
    }
}
