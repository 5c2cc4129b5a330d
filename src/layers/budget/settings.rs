//! How the budgets are kept.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::notice::Watch;
use super::register::Registers;
use super::rule::Rule;
use super::unbounded::Unpriced;
use super::window::{Clock, SystemClock};

/// How the budgets are kept.
#[derive(Clone)]
pub struct Settings {
    /// The budgets.
    pub rules: Vec<Rule>,
    /// How long a call may wait for room that only others' unsettled reservations take up; zero is not at all.
    pub max_wait: Duration,
    /// How many calls may wait in one bucket.
    pub max_waiting: usize,
    /// How many buckets a budget that is split may have; further values share one.
    pub max_buckets: usize,
    /// Admit a call that would be refused with a lower `max_tokens`, if that fits.
    pub clamp_max_tokens: bool,
    /// But not with less than this.
    pub min_tokens: u32,
    /// What becomes of a call whose cost nothing bounds.
    pub unpriced: Unpriced,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Note on each call's receipt what the budget that has least left has left: the reply tells it.
    pub headers: bool,
    /// What outlives the process; without one, nothing.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// What other gates share: budgets of [`Scope::Gate`](super::Scope::Gate).
    pub registers: Option<Arc<dyn Registers>>,
    /// Who is told of what a person may want to know; the log is in any case.
    pub watch: Option<Arc<dyn Watch>>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            max_wait: Duration::ZERO,
            max_waiting: 1000,
            max_buckets: 100_000,
            clamp_max_tokens: false,
            min_tokens: 16,
            unpriced: Unpriced::default(),
            clock: Arc::new(SystemClock),
            headers: false,
            ledger: None,
            registers: None,
            watch: None,
        }
    }
}
