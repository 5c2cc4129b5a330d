//! The wall clock that gates share: each one's own, and the store's where that is far off.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use crate::layers::budget::{Clock, SystemClock};

/// A gate's wall clock, and how far it is from the store's. Where budgets are shared, windows begin and end by it, so it follows the
/// store's clock where the two are [`FAR`] apart or more: gates of which one is an hour off would each have a window of its own. What is
/// made good changes by no less, so that a store whose clock is set a little forth and back moves no window.
#[derive(Debug, Default)]
pub struct FleetClock {
    /// The store's less the gate's own, in milliseconds, as it was last heard.
    behind_ms: AtomicI64,
    /// What of that is made good.
    shift_ms: AtomicI64,
}

/// See [`FleetClock`].
pub const FAR: Duration = Duration::from_secs(30);

impl FleetClock {
    /// The store told its time when it was so late by the gate's own clock, both in milliseconds since 1970, UTC.
    pub fn hear(&self, store_ms: u64, own_ms: u64) {
        if store_ms > 0 {
            let behind = store_ms.cast_signed().saturating_sub(own_ms.cast_signed());
            self.behind_ms.store(behind, Ordering::Relaxed);
            let far = FAR.as_millis() as u64;
            if behind.abs_diff(self.shift_ms.load(Ordering::Relaxed)) >= far {
                let shift = if behind.unsigned_abs() < far { 0 } else { behind };
                self.shift_ms.store(shift, Ordering::Relaxed);
            }
        }
    }

    /// The store has just told its time.
    pub(super) fn hear_now(&self, store_ms: u64) {
        self.hear(store_ms, millis(SystemTime::now()));
    }

    /// What time it is for the fleet, when it is this by the gate's own clock.
    pub fn by(&self, own_ms: u64) -> u64 {
        own_ms.saturating_add_signed(self.shift_ms.load(Ordering::Relaxed))
    }

    /// How far the gate's own clock is ahead of the store's, in seconds.
    pub fn ahead(&self) -> f64 {
        -self.behind_ms.load(Ordering::Relaxed) as f64 / 1e3
    }
}

impl Clock for FleetClock {
    fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        let own = millis(now);
        let by = self.by(own);
        if by == own { now } else { SystemTime::UNIX_EPOCH + Duration::from_millis(by) }
    }

    fn steady(&self) -> Duration {
        SystemClock.steady()
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_follows_the_stores_and_one_that_is_near_does_not() {
        let clock = FleetClock::default();
        clock.hear(1_000_000_000, 1_000_010_000);
        assert_eq!((clock.by(1_000_020_000), clock.ahead()), (1_000_020_000, 10.0));
        clock.hear(1_000_000_000, 1_003_600_000);
        assert_eq!((clock.by(1_003_601_000), clock.ahead()), (1_000_001_000, 3600.0));
        clock.hear(1_000_012_000, 1_003_602_000);
        assert_eq!((clock.by(1_003_602_000), clock.ahead()), (1_000_002_000, 3590.0));
        // A store that does not tell its time.
        clock.hear(0, 5);
        assert_eq!(clock.ahead(), 3590.0);
        // The gate's own was set right.
        clock.hear(1_000_100_000, 1_000_100_100);
        assert_eq!((clock.by(1_000_100_100), clock.ahead()), (1_000_100_100, 0.1));
    }
}
