//! What a replay came to.

use std::collections::BTreeMap;

use crate::neurons::Neurons;
use crate::readers::records::Past;

/// The sums of a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) calls: u64,
    /// Calls by their outcome.
    pub(super) outcomes: BTreeMap<String, u64>,
    pub(super) neurons: Neurons,
    /// What the cache saved.
    pub(super) saved: Neurons,
    /// All waits together, in microseconds.
    pub(super) waited_us: u64,
    pub(super) longest_wait_us: u64,
    /// Calls and neurons by the model that answered.
    pub(super) models: BTreeMap<String, (u64, Neurons)>,
}

/// What a replay came to, beside what the records have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Comparison {
    pub(super) recorded: Sums,
    pub(super) replayed: Sums,
    /// Calls that ended as they had.
    pub(super) same: u64,
    /// Refusals by the budget that refused.
    pub(super) refused_by: BTreeMap<String, u64>,
    /// Calls whose answers are on no record, and what they are taken to have cost.
    pub(super) assumed: (u64, Neurons),
    /// Calls whose price is another one now, and whose records do not tell by what they are priced.
    pub(super) unpriced: u64,
    /// Calls that no record tells the bound of.
    pub(super) unbounded: u64,
}

/// How a call ended in a replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lived {
    pub(super) outcome: String,
    pub(super) model: String,
    pub(super) neurons: Neurons,
    pub(super) saved: Neurons,
    pub(super) waited_us: u64,
    pub(super) refused_by: Option<String>,
    pub(super) is_assumed: bool,
    pub(super) is_unpriced: bool,
}

impl Sums {
    fn add(&mut self, outcome: &str, model: &str, neurons: Neurons, saved: Neurons, waited_us: u64) {
        self.calls += 1;
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
        self.neurons += neurons;
        self.saved += saved;
        self.waited_us = self.waited_us.saturating_add(waited_us);
        self.longest_wait_us = self.longest_wait_us.max(waited_us);
        let (calls, spent) = self.models.entry(model.to_owned()).or_default();
        *calls += 1;
        *spent += neurons;
    }

    pub(super) fn outcome(&self, label: &str) -> u64 {
        self.outcomes.get(label).copied().unwrap_or(0)
    }
}

impl Comparison {
    pub(super) fn add(&mut self, past: &Past, lived: Lived) {
        self.recorded.add(&past.outcome, &past.model, past.neurons, past.saved, past.waited_us);
        let Lived { outcome, model, neurons, saved, waited_us, refused_by, is_assumed, is_unpriced } = lived;
        self.replayed.add(&outcome, &model, neurons, saved, waited_us);
        self.same += u64::from(outcome == past.outcome);
        if let Some(budget) = refused_by {
            *self.refused_by.entry(budget).or_default() += 1;
        }
        if is_assumed {
            self.assumed = (self.assumed.0 + 1, self.assumed.1 + neurons);
        }
        self.unpriced += u64::from(is_unpriced);
        self.unbounded += u64::from(past.upper.is_none() && past.attempts > 0);
    }
}
