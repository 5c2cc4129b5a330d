//! How long to pause before the next attempt.

use std::time::Duration;

use crate::call::Backoff;

/// A pause's first length, its growth and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The first pause, or its bound where pauses are random.
    pub delay: Duration,
    /// How it grows. Exponential pauses are drawn evenly between nothing and their length ("full jitter"), so that callers
    /// who failed together do not come back together; the others are as long as they say.
    pub backoff: Backoff,
    /// No pause is longer, whatever it grew to.
    pub max_delay: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { delay: Duration::from_secs(1), backoff: Backoff::default(), max_delay: Duration::from_secs(30) }
    }
}

impl Pause {
    /// Before retry `n`, the first of which is 0. `random` is between 0 and 1.
    pub fn before(&self, n: u32, random: f64) -> Duration {
        let grown = match self.backoff {
            Backoff::Constant => self.delay,
            Backoff::Linear => self.delay.saturating_mul(n.saturating_add(1)),
            Backoff::Exponential => self.delay.saturating_mul(1 << n.min(30)),
        };
        let longest = grown.min(self.max_delay);
        match self.backoff {
            Backoff::Exponential => longest.mul_f64(random.clamp(0.0, 1.0)),
            Backoff::Constant | Backoff::Linear => longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_as_they_are_told_and_no_further_than_allowed() {
        let pauses = |backoff, random| {
            let pause = Pause { backoff, ..Pause::default() };
            [0, 1, 2, 10, u32::MAX].map(|n| pause.before(n, random).as_secs_f64())
        };
        assert_eq!(pauses(Backoff::Constant, 0.1), [1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(pauses(Backoff::Linear, 0.1), [1.0, 2.0, 3.0, 11.0, 30.0]);
        assert_eq!(pauses(Backoff::Exponential, 1.0), [1.0, 2.0, 4.0, 30.0, 30.0]);
        assert_eq!(pauses(Backoff::Exponential, 0.5), [0.5, 1.0, 2.0, 15.0, 15.0]);
    }
}
