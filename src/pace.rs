//! How slow a sender or a reader may be: a longest pause, and a least rate.

use std::time::Duration;

use tokio::time::Instant;

/// How slow the other side may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The longest time in which nothing moves.
    pub pause: Duration,
    /// The least rate, in bytes a second, over all that moved: `pause` in all, and a second more for each so many bytes.
    /// Zero sets none.
    pub min_rate: u64,
}

/// Something that moves, and when it last did.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    begun: Instant,
    moved: Instant,
    bytes: u64,
}

/// Longer than anyone waits, and no more than a clock can tell.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

// === impl Pace ===

impl Pace {
    /// With both of its bounds; a rate of zero sets none.
    pub const fn new(pause: Duration, min_rate: u64) -> Self {
        Self { pause, min_rate }
    }

    /// Until when something more has to move.
    pub fn deadline(&self, progress: &Progress) -> Instant {
        let pause = self.pause.min(LONGEST);
        let next = progress.moved + pause;
        if self.min_rate == 0 {
            return next;
        }
        let earned = Duration::from_secs_f64(progress.bytes as f64 / self.min_rate as f64).min(LONGEST);
        next.min(progress.begun + pause + earned)
    }
}

// === impl Progress ===

impl Progress {
    /// Nothing has moved yet.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, moved: now, bytes: 0 }
    }

    /// So many bytes more, now.
    pub fn moved(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.moved = Instant::now();
    }

    /// So long the other side could not move, by no fault of its own.
    pub fn excuse(&mut self, time: Duration) {
        self.begun += time;
        self.moved += time;
    }

    /// Nothing has moved for so long.
    pub fn has_paused(&self, time: Duration) -> bool {
        self.moved.elapsed() >= time
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// How many bytes have moved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_trickles_is_late_though_never_silent() {
        let pace = Pace::new(Duration::from_secs(30), 1000);
        let mut progress = Progress::begin();
        let begun = Instant::now();
        while pace.deadline(&progress) > Instant::now() {
            progress.moved(1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(31));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_fast_may_pause_and_is_excused_for_our_own_waits() {
        let pace = Pace::new(Duration::from_secs(30), 1000);
        let mut progress = Progress::begin();
        progress.moved(100_000);
        assert_eq!(pace.deadline(&progress), Instant::now() + Duration::from_secs(30));
        progress.excuse(Duration::from_secs(5));
        assert_eq!(pace.deadline(&progress), Instant::now() + Duration::from_secs(35));
        let patient = Pace::new(Duration::MAX, 0);
        assert!(patient.deadline(&progress) > Instant::now() + Duration::from_secs(3600));
    }
}
