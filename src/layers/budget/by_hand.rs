//! One bucket of a budget that gates share, spent from and told by hand, for tests whose clock is their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::active::Active;
use super::balance::Verdict;
use super::bucket::Bucket;
use super::register::{Registers, Registrant};
use super::rule::Rule;
use super::window::{Clock, Moment};
use crate::neurons::Neurons;

/// A bucket, what waits for it, and what runs.
pub(crate) struct SharedBucket {
    pub(crate) bucket: Arc<Bucket>,
    wanted: Arc<Wanted>,
    watch: Arc<Watch>,
    waiting: Vec<(u64, Neurons, u64)>,
    running: Vec<(u64, u64, Neurons, Neurons)>,
    ticket: u64,
}

/// In milliseconds, by the wall and since the start.
#[derive(Debug, Default)]
struct Watch(AtomicU64, AtomicU64);

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.1.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Wanted(Mutex<Vec<Arc<dyn Registrant>>>);

impl Registers for Wanted {
    fn want(&self, bucket: Arc<dyn Registrant>) {
        self.0.lock().push(bucket);
    }
}

/// So long a call waits, and no longer runs, in milliseconds.
const PATIENCE: u64 = 2000;

impl SharedBucket {
    pub(crate) fn new(rule: Rule, wall_ms: u64) -> Self {
        let (wanted, watch) = (Arc::<Wanted>::default(), Arc::<Watch>::default());
        watch.0.store(wall_ms, Ordering::Relaxed);
        let now = Moment::of(&*watch);
        let active = Active::new(rule.into(), watch.clone(), None, None, Some(wanted.clone()), now);
        let bucket = Bucket::new(Arc::new(active), "");
        Self { bucket, wanted, watch, waiting: Vec::new(), running: Vec::new(), ticket: 0 }
    }

    /// What it is by the wall clock, and since the start.
    pub(crate) fn set_clock(&self, wall_ms: u64, steady_ms: u64) {
        self.watch.0.store(wall_ms, Ordering::Relaxed);
        self.watch.1.store(steady_ms, Ordering::Relaxed);
    }

    /// A call comes that may cost so much. True where it passes now: `cost` is what it costs, and it runs until then.
    pub(crate) fn call(&mut self, needed: Neurons, cost: Neurons, until_ms: u64) -> bool {
        self.ticket += 1;
        let passes = self.attempt(self.ticket, needed, cost, until_ms);
        if passes == Verdict::Lease {
            self.waiting.push((self.ticket, needed, self.watch.1.load(Ordering::Relaxed) + PATIENCE));
        }
        passes == Verdict::Room
    }

    fn attempt(&mut self, ticket: u64, needed: Neurons, cost: Neurons, until_ms: u64) -> Verdict {
        let rule = &self.bucket.rule;
        let mut balance = self.bucket.lock(rule.now());
        let verdict = balance.verdict(rule, needed, ticket, true);
        match verdict {
            Verdict::Room => {
                let start = balance.reserve(needed);
                balance.leave(ticket);
                self.bucket.list(&balance);
                self.running.push((until_ms, start, needed, cost));
            }
            Verdict::Lease => {
                balance.wait(ticket, needed, Arc::<Notify>::default());
                self.bucket.list(&balance);
            }
            _ => balance.leave(ticket),
        }
        verdict
    }

    /// Settles what is over, and tries for those who wait: what each that passes now costs.
    pub(crate) fn look(&mut self, mut fate: impl FnMut(Neurons) -> (Neurons, u64)) -> Vec<Neurons> {
        let now = self.watch.1.load(Ordering::Relaxed);
        let over = self.running.extract_if(.., |(until, ..)| *until <= now);
        over.for_each(|(_, start, needed, cost)| self.bucket.settle(start, needed, cost));
        let mut passed = Vec::new();
        for (ticket, needed, until) in std::mem::take(&mut self.waiting) {
            if now >= until {
                self.bucket.leave(ticket);
                continue;
            }
            let (cost, runs_until) = fate(needed);
            match self.attempt(ticket, needed, cost, runs_until) {
                Verdict::Room => passed.push(cost),
                Verdict::Lease => self.waiting.push((ticket, needed, until)),
                _ => {}
            }
        }
        passed
    }

    /// The bucket has something to say.
    pub(crate) fn is_wanting(&self) -> bool {
        !std::mem::take(&mut *self.wanted.0.lock()).is_empty()
    }

    /// Nobody waits and nothing runs any more: what ran has cost all that it may.
    pub(crate) fn leave(&mut self) {
        for (ticket, ..) in self.waiting.drain(..) {
            self.bucket.leave(ticket);
        }
        for (_, start, needed, cost) in self.running.drain(..) {
            self.bucket.settle(start, needed, cost);
        }
        self.bucket.release();
    }

    pub(crate) fn reserved(&self) -> Neurons {
        self.bucket.lock(self.bucket.rule.now()).reserved
    }
}
