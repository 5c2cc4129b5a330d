//! Which batches were paid: each once, when it was queued or when its answers were fetched.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

/// The latest batches of one model that were paid, by their `request_id`. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Batches(Arc<Mutex<Paid>>);

#[derive(Debug, Default)]
struct Paid {
    hasher: RandomState,
    known: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

/// Older ones are forgotten, and would be paid once more.
const MOST: usize = 10_000;

impl Batches {
    /// Takes note that a batch is paid. False where it was already.
    pub fn pay(&self, request_id: &str) -> bool {
        let mut paid = self.0.lock();
        let id = paid.hasher.hash_one(request_id);
        if !paid.known.insert(id) {
            return false;
        }
        paid.oldest_first.push_back(id);
        if paid.oldest_first.len() > MOST
            && let Some(oldest) = paid.oldest_first.pop_front()
        {
            paid.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_paid_once_and_no_more_are_known_than_may_be() {
        let batches = Batches::default();
        assert!(batches.pay("a") && !batches.clone().pay("a"));
        assert!((0..2 * MOST).all(|n| batches.pay(&n.to_string())));
        assert_eq!(batches.0.lock().known.len(), MOST);
    }
}
