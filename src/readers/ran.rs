//! What ran for one account, by model, since this process started: the gate's own side of a reconciliation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::books::Sums;
use crate::catalogue::Slot;
use crate::neurons::Neurons;
use crate::receipt::{Facts, Outcome, Reader, Source};

/// Counts the calls that a model ran for, their tokens and neurons. A call touches four atomics of its model's; only a model in no
/// table takes a lock.
///
/// # What it does not do
/// It names no more than a hundred models that are in no table: further ones share a line, which is called `other`.
pub struct Ran {
    account: Arc<str>,
    models: Box<[OnceLock<Model>]>,
    /// By the names that the vendor's books have, too.
    unlisted: Mutex<BTreeMap<Arc<str>, Sums>>,
}

/// Names are the callers' to choose.
const MAX_UNLISTED: usize = 100;
const MAX_NAME_BYTES: usize = 256;

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
        Self {
            account: account.into(),
            models: (0..Slot::COUNT).map(|_| OnceLock::new()).collect(),
            unlisted: Mutex::default(),
        }
    }

    /// By the model's name, as far as it has run.
    pub fn sums(&self) -> BTreeMap<String, Sums> {
        let listed = self.models.iter().filter_map(OnceLock::get).map(|model| (model.name.to_string(), model.sums()));
        let mut all: BTreeMap<_, _> = listed.collect();
        for (name, sums) in self.unlisted.lock().iter() {
            // One that the vendor's list brought since is in both.
            *all.entry(name.to_string()).or_default() += *sums;
        }
        all
    }

    fn note_unlisted(&self, name: &Arc<str>, sums: Sums) {
        let mut unlisted = self.unlisted.lock();
        let is_known = unlisted.contains_key(name);
        let has_room = unlisted.len() < MAX_UNLISTED && name.len() <= MAX_NAME_BYTES;
        let name = if is_known || has_room { name.clone() } else { "other".into() };
        *unlisted.entry(name).or_default() += sums;
    }
}

impl Model {
    fn add(&self, sums: Sums) {
        let add = |figure: &AtomicU64, more: u64| figure.fetch_add(more, Ordering::Relaxed);
        add(&self.calls, sums.calls);
        add(&self.input_tokens, sums.input_tokens);
        add(&self.output_tokens, sums.output_tokens);
        add(&self.micro_neurons, sums.neurons.micro());
    }

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
        let sums = Sums::new(1, facts.usage.input_tokens, facts.usage.output_tokens, facts.cost.neurons);
        if !facts.model.is_listed() {
            return self.note_unlisted(&facts.model.id, sums);
        }
        self.models[facts.model.slot.index() % Slot::COUNT]
            .get_or_init(|| Model { name: facts.model.id.clone(), ..Model::default() })
            .add(sums);
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

    #[test]
    fn models_in_no_table_have_the_names_that_the_vendors_books_have_and_there_are_few() {
        let ran = Ran::new("acc");
        let one = Sums::new(1, 0, 0, Neurons::from_whole(1));
        (0..1000).for_each(|n| ran.note_unlisted(&format!("@cf/junk/{}", n % 500).into(), one));
        let sums = ran.sums();
        assert_eq!((sums.len(), sums["@cf/junk/7"].calls, sums["other"].calls), (101, 2, 800));
    }
}
