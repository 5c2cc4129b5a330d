//! What is known of the other gates that share a budget.

use std::time::Duration;

use tokio::time::Instant;

use crate::neurons::Neurons;

/// What is known of the other gates.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) spent: Neurons,
    pub(super) upto: Neurons,
    pub(super) gates: u32,
    pub(super) is_asking: bool,
    pub(super) is_restored: bool,
    /// It was granted less than it asked for.
    pub(super) is_short: bool,
    pub(super) heard: Option<Instant>,
    /// When the store could not be reached, where it has said nothing since.
    pub(super) lost: Option<Instant>,
}

/// A refusal is not asked about again for so long.
const REMEMBERED: Duration = Duration::from_millis(250);

impl Elsewhere {
    /// What is known of the others was told just now.
    pub(super) fn is_fresh(&self) -> bool {
        self.heard.is_some_and(|heard| heard.elapsed() < REMEMBERED)
    }

    /// The store could not be reached just now. Who speaks with it asks all buckets when it can be again.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some_and(|lost| lost.elapsed() < REMEMBERED)
    }
}
