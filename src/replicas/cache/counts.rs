//! What has come of sharing answers, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::replicas::Away;

/// Counts since the start.
#[derive(Debug, Default)]
pub struct SharedCounts {
    lookups: [AtomicU64; Lookup::ALL.len()],
    writes: [AtomicU64; Write::ALL.len()],
    trips: AtomicU64,
    micros: AtomicU64,
    why: Mutex<Option<String>>,
}

/// What came of a look for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Hit,
    Miss,
    Late,
    Away,
    Foreign,
}

/// What became of an answer that was to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Kept,
    TooLarge,
    TooMany,
    Full,
    Refused,
    Away,
}

impl Lookup {
    const ALL: [(Self, &str); 5] = [
        (Self::Hit, "hit"),
        (Self::Miss, "miss"),
        (Self::Late, "late"),
        (Self::Away, "away"),
        (Self::Foreign, "unreadable"),
    ];
}

impl Write {
    const ALL: [(Self, &str); 6] = [
        (Self::Kept, "kept"),
        (Self::TooLarge, "too_large"),
        (Self::TooMany, "too_many"),
        (Self::Full, "full"),
        (Self::Refused, "refused"),
        (Self::Away, "away"),
    ];
}

impl SharedCounts {
    pub(super) fn looked(&self, what: Lookup, keys: usize) {
        self.lookups[what as usize].fetch_add(keys as u64, Ordering::Relaxed);
    }

    pub(super) fn written(&self, what: Write) {
        self.writes[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_first(&self, what: Write) -> bool {
        self.writes[what as usize].load(Ordering::Relaxed) == 0
    }

    pub(super) fn took(&self, time: Duration) {
        self.trips.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Whether that is news.
    pub(super) fn lost(&self, why: &Away) -> bool {
        self.why.lock().replace(why.to_string()).is_none()
    }

    /// Whether it had been lost.
    pub(super) fn found_again(&self) -> bool {
        self.why.lock().take().is_some()
    }

    /// Answers that were looked for, by what came of it: `hit`; `miss`; `late`, not answered in time; `away`, not asked; `unreadable`,
    /// not sealed by a gate of this version with this secret, or changed since.
    pub fn lookups(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Lookup::ALL.iter().map(|(what, label)| (*label, self.lookups[*what as usize].load(Ordering::Relaxed)))
    }

    /// Answers that were to be shared, by what became of it: `kept`; `too_large`; `too_many`, more than may be written a second or
    /// wait; `full`, the store has no room; `refused`, by the store for another reason; `away`, the store could not be reached.
    pub fn writes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Write::ALL.iter().map(|(what, label)| (*label, self.writes[*what as usize].load(Ordering::Relaxed)))
    }

    /// Looks: one for a call, however many answers it looks for.
    pub fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// How long calls waited for them, all together.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// Why the store cannot be reached, if it cannot.
    pub fn why(&self) -> Option<String> {
        self.why.lock().clone()
    }
}
