//! The day's free neurons: once an account has used them up, nothing but midnight helps, and the gate says so itself.
//!
//! The vendor's word (3036, and 4006 on the wire) is believed until 00:00 UTC. It has been wrong, and a plan can change, so
//! now and then one call goes through to find out; any other answer than the same refusal ends the hold. So does a clock that
//! tells another day: the refusal came while it was ahead.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Which accounts are held, and until when.
#[derive(Debug)]
pub struct Allocation {
    held: Mutex<HashMap<Arc<str>, Hold>>,
    /// How many, so that the usual case takes no lock.
    count: AtomicUsize,
    probe_every: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    until: SystemTime,
    probe_at: SystemTime,
    /// No probe is further off, whatever the clock did.
    every: Duration,
}

/// What an account's call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pass {
    /// Go on.
    Free,
    /// Go on, and find out whether the hold still holds.
    Probe,
    /// It would be refused; this long until midnight.
    Held(Duration),
}

/// Of more accounts it is not kept in mind: their calls go on, and the vendor refuses them.
const MAX_HELD: usize = 1000;
const DAY_SECONDS: u64 = 24 * 3600;

impl Allocation {
    /// With nobody held, and a probe this often for those who will be.
    pub fn new(probe_every: Duration) -> Self {
        Self { held: Mutex::default(), count: AtomicUsize::new(0), probe_every }
    }

    /// Nobody is held: every call may go on, whatever the time is.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// What a call of this account may do.
    pub fn pass(&self, account: &str, now: SystemTime) -> Pass {
        if self.is_empty() {
            return Pass::Free;
        }
        let mut held = self.held.lock();
        let Some(hold) = held.get_mut(account) else { return Pass::Free };
        let left = hold.until.duration_since(now).unwrap_or_default();
        if left.is_zero() || left > until_midnight(now) {
            if !left.is_zero() {
                tracing::warn!("the day whose free neurons were used up begins in the future: the clock was ahead");
            }
            held.remove(account);
            self.count.store(held.len(), Ordering::Relaxed);
            return Pass::Free;
        }
        if hold.probe_at <= now || hold.probe_at > now + hold.every {
            (hold.probe_at, hold.every) = (now + self.probe_every, self.probe_every);
            return Pass::Probe;
        }
        Pass::Held(left)
    }

    /// The vendor says that the account's neurons are used up; this long until midnight.
    pub fn used_up(&self, account: &Arc<str>, now: SystemTime) -> Duration {
        self.hold(account, now, self.probe_every)
    }

    /// Another gate says so, which finds out now and then: this one asks only where it is not told of that for one and a half times as
    /// long or more, each gate at another time.
    pub fn heard(&self, account: &Arc<str>, now: SystemTime) {
        let half = self.probe_every / 2;
        self.hold(account, now, self.probe_every + half + half.mul_f64(fastrand::f64()));
    }

    fn hold(&self, account: &Arc<str>, now: SystemTime, every: Duration) -> Duration {
        let left = until_midnight(now);
        let mut held = self.held.lock();
        held.retain(|_, hold| hold.until > now);
        let hold = Hold { until: now + left, probe_at: now + every, every };
        if held.len() < MAX_HELD || held.contains_key(account) {
            held.insert(account.clone(), hold);
        }
        self.count.store(held.len(), Ordering::Relaxed);
        left
    }

    /// The accounts that are held, and when each is tried again.
    pub fn held(&self) -> Vec<(Arc<str>, SystemTime)> {
        if self.is_empty() {
            return Vec::new();
        }
        self.held.lock().iter().map(|(account, hold)| (account.clone(), hold.probe_at)).collect()
    }

    /// The vendor answered a call of the account otherwise.
    pub fn works(&self, account: &str) {
        if !self.is_empty() {
            let mut held = self.held.lock();
            held.remove(account);
            self.count.store(held.len(), Ordering::Relaxed);
        }
    }
}

/// The time until 00:00 UTC: between nothing and a day, and never nothing.
pub fn until_midnight(now: SystemTime) -> Duration {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let today = Duration::new(since.as_secs() % DAY_SECONDS, since.subsec_nanos());
    Duration::from_secs(DAY_SECONDS) - today
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_held_until_midnight_and_probed_now_and_then() {
        let allocation = Allocation::new(Duration::from_secs(300));
        let minutes = |minutes: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY_SECONDS + minutes * 60);
        let account: Arc<str> = "acc".into();
        assert_eq!(allocation.pass("acc", minutes(0)), Pass::Free);
        assert_eq!(allocation.used_up(&account, minutes(23 * 60)), Duration::from_secs(3600));
        assert_eq!(allocation.pass("acc", minutes(23 * 60 + 1)), Pass::Held(Duration::from_secs(59 * 60)));
        assert_eq!(allocation.pass("other", minutes(23 * 60 + 1)), Pass::Free);
        assert_eq!(allocation.pass("acc", minutes(23 * 60 + 5)), Pass::Probe);
        assert_eq!(allocation.pass("acc", minutes(23 * 60 + 5)), Pass::Held(Duration::from_secs(55 * 60)));
        assert_eq!(allocation.pass("acc", minutes(24 * 60)), Pass::Free);
        allocation.used_up(&account, minutes(0));
        allocation.works("acc");
        assert_eq!(allocation.pass("acc", minutes(1)), Pass::Free);
    }

    #[test]
    fn who_heard_it_of_another_asks_later_than_that_one() {
        let allocation = Allocation::new(Duration::from_secs(300));
        let seconds = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY_SECONDS + seconds);
        let account: Arc<str> = "acc".into();
        for round in 0..100 {
            allocation.heard(&account, seconds(round * 500));
            assert!(matches!(allocation.pass("acc", seconds(round * 500 + 449)), Pass::Held(_)));
        }
        let first = (0..1000).find(|more| allocation.pass("acc", seconds(49_500 + more)) == Pass::Probe);
        assert!(first.is_some_and(|first| (450..=600).contains(&first)), "{first:?}");
        assert!(matches!(allocation.pass("acc", seconds(49_500 + first.unwrap() + 299)), Pass::Held(_)));
    }

    #[test]
    fn a_day_that_begins_in_the_future_holds_nobody_and_a_clock_set_back_within_its_day_probes_on() {
        let allocation = Allocation::new(Duration::from_secs(300));
        let minutes = |minutes: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY_SECONDS + minutes * 60);
        let account: Arc<str> = "acc".into();
        for ahead in [1, 2, 400] {
            allocation.used_up(&account, minutes(ahead * 24 * 60 + 1));
            assert_eq!(allocation.pass("acc", minutes(23 * 60)), Pass::Free, "{ahead} days ahead");
        }
        allocation.used_up(&account, minutes(23 * 60));
        assert_eq!(allocation.pass("acc", minutes(60)), Pass::Probe);
        assert_eq!(allocation.pass("acc", minutes(61)), Pass::Held(Duration::from_secs((24 * 60 - 61) * 60)));
    }
}
