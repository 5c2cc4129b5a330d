//! How much may be retried: as much as helps.
//!
//! A retry costs one; a retry that is answered brings back four. So the budget lasts as long as more than a quarter of the
//! retries help, and an outage that no retry mends spends it soon. Once it is spent, every eighth wish is granted all the
//! same: a probe that finds out when retries help again, and fills the budget quickly when they do. Calls that are answered
//! at once fill it too, slowly, so that it is full again for the next outage.

use std::sync::atomic::{AtomicU32, Ordering};

/// One model's budget. Amounts are kept in tenths of a retry.
#[derive(Debug)]
pub struct Budget {
    tenths: AtomicU32,
    wishes: AtomicU32,
}

const RETRY: u32 = 10;
/// What one outage may cost.
const FULL: u32 = 50 * RETRY;
const HELPED: u32 = 4 * RETRY;
const ANSWERED: u32 = 1;
const PROBE_EVERY: u32 = 8;

impl Default for Budget {
    fn default() -> Self {
        Self { tenths: AtomicU32::new(FULL), wishes: AtomicU32::new(0) }
    }
}

impl Budget {
    /// Takes one retry, if there is one or it is a probe's turn.
    pub fn take(&self) -> bool {
        let taken =
            self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| tenths.checked_sub(RETRY)).is_ok();
        taken || self.wishes.fetch_add(1, Ordering::Relaxed) % PROBE_EVERY == PROBE_EVERY - 1
    }

    /// A call was answered, by a retry or at once.
    pub fn answered(&self, by_a_retry: bool) {
        let tenths = self.tenths.load(Ordering::Relaxed);
        // The usual case writes nothing: a full budget stays full.
        if tenths < FULL {
            let more = if by_a_retry { HELPED } else { ANSWERED };
            let filled = |tenths: u32| Some((tenths + more).min(FULL));
            let _ = self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts and successes of so many calls, tried at most so often, each failing with this probability.
    fn run(budget: &Budget, calls: usize, tries: usize, failing: f64) -> (f64, f64) {
        let (mut attempts, mut answered) = (0, 0);
        for _ in 0..calls {
            for attempt in 0..tries {
                attempts += 1;
                if fastrand::f64() >= failing {
                    budget.answered(attempt > 0);
                    answered += 1;
                    break;
                }
                if attempt + 1 == tries || !budget.take() {
                    break;
                }
            }
        }
        (attempts as f64 / calls as f64, answered as f64 / calls as f64)
    }

    #[test]
    fn it_lasts_while_half_the_retries_help() {
        fastrand::seed(1);
        for (tries, least) in [(4, 0.93), (7, 0.99)] {
            let (attempts, answered) = run(&Budget::default(), 200_000, tries, 0.5);
            println!("{tries} tries: {attempts:.3} attempts a call, {:.2}% answered", answered * 100.0);
            assert!(answered >= least, "{answered}");
            assert!(attempts < 2.0, "{attempts}");
        }
    }

    #[test]
    fn an_outage_is_not_multiplied_and_its_end_is_found() {
        fastrand::seed(1);
        let budget = Budget::default();
        run(&budget, 100, 4, 1.0);
        let (attempts, _) = run(&budget, 10_000, 4, 1.0);
        println!("once spent: {attempts:.3} attempts a call");
        assert!(attempts < 1.25, "{attempts}");
        let (_, soon) = run(&budget, 100, 4, 0.5);
        let (_, after) = run(&budget, 10_000, 4, 0.5);
        assert!(after >= 0.93 && soon > 0.6, "{soon}, {after}");
    }
}
