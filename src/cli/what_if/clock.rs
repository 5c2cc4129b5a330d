//! The clocks of a replay: both go by tokio's, which stands still and is set forth to whatever comes next.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::layers::budget::Clock;

thread_local! {
    /// When the replay on this thread began, by tokio's clock and by the records'.
    static BEGAN: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// The moment of the past that a replay has come to, for budgets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replayed;

/// From here on it is this moment of the past, on this thread.
pub(super) fn begin(at: SystemTime) {
    BEGAN.set(Some((Instant::now(), at)));
}

/// The same for layers that take a function.
pub(super) fn wall() -> SystemTime {
    BEGAN.get().map_or(SystemTime::UNIX_EPOCH, |(began, at)| at + began.elapsed())
}

impl Clock for Replayed {
    fn now(&self) -> SystemTime {
        wall()
    }

    fn steady(&self) -> Duration {
        BEGAN.get().map_or(Duration::ZERO, |(began, _)| began.elapsed())
    }
}
