//! What ran for one account, by model, since this process started: the gate's own side of a reconciliation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalogue::Slot;
use crate::neurons::Neurons;
use crate::receipt::{Facts, Outcome, Reader, Source};
use crate::vendor::Sums;

/// Counts the calls that a model ran for, their tokens and neurons. A call touches four atomics of its model's.
///
/// # What it does not do
/// Models in no table share a line, which is called `other`.
pub struct Ran {
    account: Arc<str>,
    models: Box<[OnceLock<Model>]>,
}

#[derive(Default)]
struct Model {
    name: Arc<str>,
    calls: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    micro_neurons: AtomicU64,
}

impl Ran {
    /// For this account; what others are asked for is not counted.
    pub fn new(account: &str) -> Self {
        Self { account: account.into(), models: (0..Slot::COUNT).map(|_| OnceLock::new()).collect() }
    }

    /// By the model's name, as far as it has run.
    pub fn sums(&self) -> BTreeMap<String, Sums> {
        self.models.iter().filter_map(OnceLock::get).map(|model| (model.name.to_string(), model.sums())).collect()
    }
}

impl Model {
    fn sums(&self) -> Sums {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let neurons = Neurons::from_micro(read(&self.micro_neurons));
        Sums::new(read(&self.calls), read(&self.input_tokens), read(&self.output_tokens), neurons)
    }
}

impl Reader for Ran {
    fn sealed(&self, facts: &Facts) {
        if facts.cost.source == Source::None || facts.outcome == Outcome::CacheHit || facts.account != self.account {
            return;
        }
        let model = self.models[facts.model.slot.index() % Slot::COUNT]
            .get_or_init(|| Model { name: facts.model.label().into(), ..Model::default() });
        let add = |figure: &AtomicU64, more: u64| figure.fetch_add(more, Ordering::Relaxed);
        add(&model.calls, 1);
        add(&model.input_tokens, facts.usage.input_tokens);
        add(&model.output_tokens, facts.usage.output_tokens);
        add(&model.micro_neurons, facts.cost.neurons.micro());
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ran({})", self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{LLAMA, call_read_by};
    use crate::receipt::Cost;

    #[test]
    fn what_ran_for_the_account_is_counted_and_nothing_else() {
        let ran = Arc::new(Ran::new("acc"));
        let seal = |account: &str, cost: Cost, outcome| {
            let call = call_read_by(Arc::new([ran.clone() as Arc<dyn Reader>]), LLAMA, "{}");
            call.receipt.note(|facts| {
                (facts.account, facts.cost, facts.outcome) = (account.into(), cost, outcome);
                (facts.usage.input_tokens, facts.usage.output_tokens) = (10, 3);
            });
        };
        let paid = Cost::estimated(Neurons::from_whole(2));
        seal("acc", paid, Outcome::Ok);
        seal("acc", paid, Outcome::Aborted);
        seal("acc", paid, Outcome::CacheHit);
        seal("acc", Cost::default(), Outcome::RateLimited);
        seal("another", paid, Outcome::Ok);
        let sums = ran.sums();
        assert_eq!((sums.len(), sums[LLAMA]), (1, Sums::new(2, 20, 6, Neurons::from_whole(4))));
    }
}
