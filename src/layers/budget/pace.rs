//! How fast a budget is being spent.

use super::window::Millis;
use crate::neurons::Neurons;

/// Spending a second, the last minutes weighing most.
#[derive(Debug)]
pub(super) struct Pace {
    since: Millis,
    at: Millis,
    /// Neurons, each weighed by its age.
    weighed: f64,
}

/// What is older than this weighs a third.
const MEMORY_MS: f64 = 600_000.0;

impl Pace {
    pub(super) fn new(now: Millis) -> Self {
        Self { since: now, at: now, weighed: 0.0 }
    }

    pub(super) fn note(&mut self, now: Millis, cost: Neurons) {
        self.weighed = self.weighed * decay(now.saturating_sub(self.at)) + cost.as_f64();
        self.at = now;
    }

    /// In neurons a second; 0 where nothing was spent.
    pub(super) fn per_second(&self, now: Millis) -> f64 {
        let age = now.saturating_sub(self.since).max(1_000);
        let weight = MEMORY_MS / 1000.0 * (1.0 - decay(age));
        self.weighed * decay(now.saturating_sub(self.at)) / weight
    }
}

fn decay(millis: Millis) -> f64 {
    (-(millis as f64) / MEMORY_MS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_pace_is_told_soon_and_forgotten_later() {
        let mut pace = Pace::new(0);
        for second in 1..=120 {
            pace.note(second * 1000, Neurons::from_whole(2));
        }
        assert!((pace.per_second(120_000) - 2.0).abs() < 0.05, "{}", pace.per_second(120_000));
        assert!(pace.per_second(6_000_000) < 0.01);
    }
}
