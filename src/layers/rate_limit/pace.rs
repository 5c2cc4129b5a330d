//! What upstream has room for: less than the limit while others use the account too.
//!
//! Multiplicative decrease, additive increase: each rate-limit 429 takes three tenths off at once, and a twentieth of the
//! limit comes back in each window without one.

use super::window::Rate;

/// A share of the limit, as of a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    share: f32,
    /// Nanoseconds on the layer's clock.
    as_of: u64,
}

const DECREASE: f32 = 0.7;
const INCREASE_A_WINDOW: f32 = 0.05;
const LEAST: f32 = 0.05;
/// Refusals within this part of a window are about calls that were on their way together, and count once.
const TOGETHER: u64 = 60;

impl Pace {
    /// The whole limit.
    pub(super) const FULL: Self = Self { share: 1.0, as_of: 0 };

    /// As another gate found it.
    pub(super) fn told(share: f32, now: u64) -> Self {
        Self { share: share.clamp(LEAST, 1.0), as_of: now }
    }

    pub(super) fn share(self, rate: Rate, now: u64) -> f32 {
        if self.share >= 1.0 {
            return 1.0;
        }
        let windows = now.saturating_sub(self.as_of) as f32 / rate.nanos() as f32;
        (self.share + windows * INCREASE_A_WINDOW).min(1.0)
    }

    /// What the window may hold.
    pub(super) fn cap(self, rate: Rate, now: u64) -> u32 {
        if self.share >= 1.0 {
            return rate.units;
        }
        ((rate.units as f32 * self.share(rate, now)) as u32).max(1)
    }

    /// Upstream refused a call for its rate.
    pub(super) fn refused(&mut self, rate: Rate, now: u64) {
        if self.share < 1.0 && now.saturating_sub(self.as_of) < rate.nanos() / TOGETHER {
            return;
        }
        *self = Self { share: (self.share(rate, now) * DECREASE).max(LEAST), as_of: now };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_drops_at_once_and_climbs_back_gently() {
        let (rate, minute) = (Rate::new(300, Duration::from_secs(60)), 60_000_000_000);
        let (mut pace, now) = (Pace::FULL, 100 * minute);
        assert_eq!(pace.cap(rate, now), 300);
        pace.refused(rate, now);
        pace.refused(rate, now + 1);
        assert_eq!(pace.cap(rate, now + 1), 210, "two refusals of one moment count once");
        pace.refused(rate, now + minute / 30);
        assert!((146..150).contains(&pace.cap(rate, now + minute / 30)));
        let after = |windows| pace.cap(rate, now + minute / 30 + minute * windows);
        assert!((160..165).contains(&after(1)), "{}", after(1));
        assert_eq!(after(20), 300);
        (0..100).for_each(|n| pace.refused(rate, now + minute * n));
        assert!(pace.cap(rate, now + minute * 100) >= 15);
    }
}
