//! The buckets of one rule.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::active::Active;
use super::bucket::Bucket;
use super::ledger::{Lease, LedgerError};
use super::rule::Rule;
use super::status::BucketStatus;
use super::window::{Millis, Moment};
use crate::call::Call;
use crate::neurons::Neurons;

/// The buckets of one rule, at most so many. When there is no more room, values that have no bucket share one: then each of
/// them may be refused for what the others spent, but none can spend more than the limit.
pub(super) struct Table {
    pub(super) rule: Arc<Active>,
    /// The only one of a rule that is not split, and what the values without a place share.
    shared: Arc<Bucket>,
    own: DashMap<String, Arc<Bucket>>,
    max_buckets: usize,
    door: Mutex<Door>,
}

/// Over all buckets.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) buckets: usize,
    pub(super) spent: Neurons,
    pub(super) reserved: Neurons,
    /// Beyond what was spent here, by the vendor's books.
    pub(super) elsewhere: Neurons,
}

/// Passed once by each new value.
#[derive(Default)]
struct Door {
    /// Until then new values share, also where there is room again: nobody has two limits in one window.
    shares_until: Millis,
    next_sweep: Millis,
    warned: bool,
}

/// The shared bucket of a rule that is split, in the ledger.
const SHARED: &str = "*";
const SWEEP_EVERY: Millis = 60_000;

impl Table {
    pub(super) fn new(rule: Arc<Active>, max_buckets: usize) -> Self {
        let name = if rule.rule.is_split() { SHARED } else { "" };
        let shared = Bucket::new(rule.clone(), name);
        Self { rule, shared, own: DashMap::new(), max_buckets, door: Mutex::default() }
    }

    /// Takes up what the ledger has; says how much of it was never settled. A rule that only counts begins anew where the ledger
    /// cannot be read.
    pub(super) fn restore(&self, now: Moment) -> Result<Neurons, LedgerError> {
        let Some(ledger) = &self.rule.ledger else { return Ok(Neurons::ZERO) };
        let mut leases = match ledger.load(&self.rule.ledger_name, now.wall) {
            Err(why) if self.rule.only_counts() => {
                tracing::error!(budget = self.rule.rule.name, %why, "what was spent before cannot be read: it counts anew");
                Vec::new()
            }
            loaded => loaded?,
        };
        leases.sort_by_key(|lease| lease.start_ms);
        let mut door = self.door.lock();
        let restore = |lease: &Lease| {
            if *lease.bucket == *self.shared.name() {
                let span = self.rule.windows.span(now.wall);
                if self.rule.rule.is_split() && lease.start_ms <= span.start {
                    door.shares_until = door.shares_until.max(lease.expires_ms);
                }
                return self.shared.restore(lease, now);
            }
            let bucket = self.own.entry(lease.bucket.to_string()).or_insert_with(|| self.bucket(&lease.bucket)).clone();
            bucket.restore(lease, now)
        };
        Ok(leases.iter().map(restore).sum())
    }

    fn bucket(&self, name: &str) -> Arc<Bucket> {
        Bucket::new(self.rule.clone(), name)
    }

    /// A bucket that the ledger knows by this name.
    pub(super) fn restored(&self, name: &str) -> Option<Arc<Bucket>> {
        if *name == *self.shared.name() {
            return Some(self.shared.clone());
        }
        self.own.get(name).map(|bucket| bucket.clone())
    }

    /// The bucket of a call. It may have retired by the time it is locked; then it is to be found again.
    pub(super) fn find(&self, call: &Call, now: Moment) -> Arc<Bucket> {
        if !self.rule.rule.is_split() {
            return self.shared.clone();
        }
        self.named(self.rule.rule.bucket(call), now)
    }

    /// The bucket of a value.
    pub(super) fn named(&self, name: String, now: Moment) -> Arc<Bucket> {
        if !self.rule.rule.is_split() {
            return self.shared.clone();
        }
        match self.own.get(&name) {
            Some(bucket) => bucket.clone(),
            None => self.admit(name, now),
        }
    }

    /// The same, where there is one.
    pub(super) fn existing(&self, name: &str) -> Option<Arc<Bucket>> {
        if name == self.shared.name() {
            return Some(self.shared.clone());
        }
        self.own.get(name).map(|bucket| bucket.clone())
    }

    /// The bucket that a call has or would share; `None` where it would get a new one.
    pub(super) fn foreseen(&self, call: &Call) -> Option<Arc<Bucket>> {
        if !self.rule.rule.is_split() {
            return Some(self.shared.clone());
        }
        let own = self.own.get(&self.rule.rule.bucket(call)).map(|bucket| bucket.clone());
        own.or_else(|| (self.own.len() >= self.max_buckets).then(|| self.shared.clone()))
    }

    /// Has all buckets look at what the rule is raised to, and those who wait.
    pub(super) fn raise(&self, to: Neurons, until: Millis, now: Moment) {
        self.rule.raised.set(to, until);
        self.shared.look_again(now);
        self.own.iter().for_each(|bucket| bucket.look_again(now));
    }

    /// How each bucket stands. What values without a place share is left out where none does.
    pub(super) fn each(&self, now: Moment) -> Vec<BucketStatus> {
        let own: Vec<_> = self.own.iter().map(|bucket| bucket.clone()).collect();
        let shared = std::iter::once(self.shared.clone());
        let all = shared.chain(own).map(|bucket| bucket.status(now));
        all.filter(|status| !(*status.bucket == *SHARED && status.spent.is_zero() && status.reserved.is_zero()))
            .collect()
    }

    fn admit(&self, name: String, now: Moment) -> Arc<Bucket> {
        let span = self.rule.windows.span(now.wall);
        let mut door = self.door.lock();
        if let Some(bucket) = self.own.get(&name) {
            return bucket.clone();
        }
        // A wall clock that was ahead has set them further than they can be now.
        door.shares_until = door.shares_until.min(span.expires);
        door.next_sweep = door.next_sweep.min(now.wall + SWEEP_EVERY);
        let is_full = self.own.len() >= self.max_buckets;
        if now.wall >= door.next_sweep || is_full && now.wall + 1_000 >= door.next_sweep {
            door.next_sweep = span.end.min(now.wall + SWEEP_EVERY);
            self.sweep(now, is_full);
        }
        if now.wall < door.shares_until || self.own.len() >= self.max_buckets {
            door.shares_until = door.shares_until.max(span.expires);
            if !std::mem::replace(&mut door.warned, true) {
                tracing::warn!(
                    budget = self.rule.rule.name,
                    max_buckets = self.max_buckets,
                    "no room for more buckets: new values share one until the window ends"
                );
            }
            return self.shared.clone();
        }
        let bucket = self.bucket(&name);
        self.own.insert(name, bucket.clone());
        bucket
    }

    /// Lets go of buckets that count nothing any more.
    fn sweep(&self, now: Moment, is_full: bool) {
        self.own.retain(|_, bucket| !bucket.retire_if_idle(now, is_full));
    }

    /// Holds to this rule from here on, of the same name in the ledger.
    pub(super) fn hold_to(&self, rule: &Rule, now: Moment) {
        self.rule.hold_to(rule);
        self.shared.look_again(now);
        self.own.iter().for_each(|bucket| bucket.look_again(now));
    }

    /// Has all leases lowered to what is spent.
    pub(super) fn release(&self) {
        self.shared.release();
        self.own.iter().for_each(|bucket| bucket.release());
    }

    pub(super) fn sums(&self, now: Moment) -> Sums {
        let mut sums = Sums::default();
        let is_split = self.rule.rule.is_split();
        let mut add = |bucket: &Bucket| {
            let balance = bucket.lock(now);
            // What values without a place share is none where all have one.
            let is_spare = is_split && std::ptr::eq(bucket, &*self.shared) && balance.used().is_zero();
            sums.buckets += usize::from(!is_spare);
            sums.spent += balance.spent;
            sums.reserved += balance.reserved;
            sums.elsewhere += balance.counted().saturating_sub(balance.spent);
        };
        add(&self.shared);
        self.own.iter().for_each(|bucket| add(&bucket));
        sums
    }

    /// When the first of what was spent counts no more, in any bucket.
    pub(super) fn next_relief(&self, now: Moment) -> Option<Millis> {
        let own = self.own.iter().filter_map(|bucket| bucket.lock(now).oldest_expires()).min();
        own.into_iter().chain(self.shared.lock(now).oldest_expires()).min()
    }

    /// What the fullest bucket has left.
    pub(super) fn least_left(&self, now: Moment) -> Neurons {
        let left = |bucket: &Bucket| bucket.lock(now).left();
        self.own.iter().map(|bucket| left(&bucket)).fold(left(&self.shared), Neurons::min)
    }
}
