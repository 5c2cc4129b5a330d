//! What a limit is raised to, and until when.

use std::sync::atomic::{AtomicU64, Ordering};

use super::window::Millis;
use crate::neurons::Neurons;

/// A limit in force until a moment. Zeros where there is none.
#[derive(Debug, Default)]
pub(super) struct Raised {
    to: AtomicU64,
    until: AtomicU64,
}

impl Raised {
    pub(super) fn set(&self, to: Neurons, until: Millis) {
        self.to.store(to.micro(), Ordering::Relaxed);
        // Who sees the new end sees the new limit.
        self.until.store(until, Ordering::Release);
    }

    pub(super) fn is_in_force(&self, now: Millis) -> bool {
        now < self.until.load(Ordering::Acquire)
    }

    /// The limit, or what it is raised to.
    pub(super) fn at_least(&self, limit: Neurons, now: Millis) -> Neurons {
        if self.is_in_force(now) { limit.max(Neurons::from_micro(self.to.load(Ordering::Relaxed))) } else { limit }
    }
}
