//! The vendor's rate limit: so many requests in any window of a minute, per account and model.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The times of each (account, model)'s admitted requests.
#[derive(Debug)]
pub(super) struct Windows {
    length: Duration,
    admitted: Mutex<HashMap<(String, String), VecDeque<Instant>>>,
}

/// More pairs than this are strangers who share one window.
const MAX_PAIRS: usize = 10_000;

impl Windows {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, admitted: Mutex::default() }
    }

    /// Whether one more fits into the window that ends now; if so it is in it.
    pub(super) fn admit(&self, account: &str, model: &str, limit: u32, now: Instant) -> bool {
        let mut admitted = self.admitted.lock();
        let is_full = admitted.len() >= MAX_PAIRS;
        let mut pair = (account.to_owned(), model.to_owned());
        if is_full && !admitted.contains_key(&pair) {
            pair = Default::default();
        }
        let times = admitted.entry(pair).or_default();
        while times.front().is_some_and(|time| now.duration_since(*time) >= self.length) {
            times.pop_front();
        }
        let fits = times.len() < limit as usize;
        if fits {
            times.push_back(now);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let windows = Windows::new(Duration::from_secs(60));
        let begun = Instant::now();
        let admit = |seconds| windows.admit("a", "m", 2, begun + Duration::from_secs(seconds));
        assert_eq!([0, 30, 59, 60, 61, 90].map(admit), [true, true, false, true, false, true]);
        assert!(windows.admit("b", "m", 2, begun));
    }
}
