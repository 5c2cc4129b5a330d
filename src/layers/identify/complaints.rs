//! What the log is told of headers that could not be taken as they came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the log is told of requests' headers: shared by the stacks that are made with it. Tells of each header at most once a
/// minute, however many requests have it. Values are never told: they may be private.
#[derive(Debug)]
pub struct Complaints {
    started: Instant,
    /// For each of [`HEADERS`] the second, since `started`, from which on it is told of again.
    next: [AtomicU64; HEADERS.len()],
}

/// All that may be complained of.
const HEADERS: [&str; 15] = [
    "cf-aig-skip-cache",
    "cf-skip-cache",
    "cf-aig-cache-ttl",
    "cf-cache-ttl",
    "cf-aig-cache-key",
    "cf-aig-custom-cost",
    "cf-aig-request-timeout",
    "cf-aig-max-attempts",
    "cf-aig-retry-delay",
    "cf-aig-backoff",
    "cf-aig-metadata",
    "cf-aig-event-id",
    "cf-aig-collect-log",
    "cf-aig-collect-log-payload",
    "x-tollgate-stream-cost",
];
const SECONDS_BETWEEN: u64 = 60;

impl Default for Complaints {
    fn default() -> Self {
        Self { started: Instant::now(), next: Default::default() }
    }
}

impl Complaints {
    pub(super) fn tell(&self, header: &'static str, why: &'static str) {
        if self.is_due(header, self.started.elapsed().as_secs()) {
            tracing::warn!(header, why, "a header of a request was not taken as it came; the call goes on");
        }
    }

    fn is_due(&self, header: &str, now_seconds: u64) -> bool {
        let Some(place) = HEADERS.iter().position(|known| *known == header) else { return false };
        let next = self.next[place].load(Ordering::Relaxed);
        let again = now_seconds + SECONDS_BETWEEN;
        now_seconds >= next
            && self.next[place].compare_exchange(next, again, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_told_of_once_a_minute() {
        let complaints = Complaints::default();
        assert!(complaints.is_due("cf-aig-metadata", 0));
        assert!((0..60).all(|second| !complaints.is_due("cf-aig-metadata", second)));
        assert!(complaints.is_due("cf-aig-cache-ttl", 0));
        assert!(complaints.is_due("cf-aig-metadata", 60));
    }
}
