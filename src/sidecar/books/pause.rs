//! How long until a book is read again.

use std::time::Duration;

use crate::layers::retry::Pause;

/// Who asks again and again asks no two times at the same distance: so far off, either way.
const JITTER: f64 = 0.1;
/// After a failure; then twice as long each time, at most [`LONGEST`].
const AFTER_FAILURE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// The pause until a book is read again, after so many failures in a row.
pub(super) fn pause(every: Duration, failures: u32) -> Duration {
    let doubling = Pause { delay: AFTER_FAILURE, max_delay: LONGEST, ..Pause::default() };
    let length = match failures {
        0 => every,
        // A book that is read often is not to be read more often because it cannot be; one that is read by the day is.
        n => doubling.before(n - 1, 1.0).max(if every < LONGEST { every } else { Duration::ZERO }),
    };
    length.mul_f64(1.0 + JITTER * (fastrand::f64() * 2.0 - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_jittered_and_grow_with_failures_up_to_an_hour() {
        let minute = Duration::from_secs(60);
        for (every, failures, about) in [
            (5 * minute, 0, 5 * minute),
            (5 * minute, 1, 5 * minute),
            (5 * minute, 5, 16 * minute),
            (5 * minute, 40, 60 * minute),
            (24 * 60 * minute, 0, 24 * 60 * minute),
            (24 * 60 * minute, 1, minute),
            (24 * 60 * minute, 9, 60 * minute),
        ] {
            for _ in 0..100 {
                let pause = pause(every, failures).as_secs_f64() / about.as_secs_f64();
                assert!((0.9..=1.1).contains(&pause), "{pause} of {about:?} after {failures} failures");
            }
        }
    }
}
