//! Every lane, in shards, and the clock they share.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::lane::{Answer, Ask, Bounds, Lane, Permit, Rates, Refusal};
use super::queue::{Ticket, Waiter};
use super::swept::Swept;
use super::window::Rate;
use super::{ModelStanding, Quota, Settings};
use crate::call::Call;
use crate::catalogue::{Limit, Model, Slot};
use crate::estimate;

/// The layer's state: what every clone of it shares.
#[derive(Debug)]
pub(super) struct Limits {
    settings: Settings,
    bounds: Bounds,
    shards: Box<[Mutex<Swept<Lane>>]>,
    /// Listed models that were asked, and their limit: they stay in the metrics when their lanes have gone.
    seen: Mutex<BTreeMap<u16, u32>>,
    hasher: RandomState,
    started: Instant,
    asks: AtomicUsize,
}

/// A call's lane and what it asks of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) lane: u64,
    pub(super) ask: Ask,
}

const SHARDS: usize = 64;
/// The clock starts late, so that what has left a window before it started has a time as well.
const START: u64 = 1 << 52;
/// After so many asks, so many lanes are looked at, whether they are idle.
const ASKS: usize = 64;
const LOOKS: usize = 16;
/// Who asks without a key.
const NO_KEY: u64 = 0;

impl Limits {
    pub(super) fn new(settings: Settings) -> Self {
        let max_wait = u64::try_from(settings.max_wait.as_nanos()).unwrap_or(u64::MAX);
        Self {
            bounds: Bounds { max_wait, max_queue: settings.max_queue },
            settings,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
            started: Instant::now(),
            asks: AtomicUsize::new(0),
        }
    }

    /// Nanoseconds on the clock of the windows.
    pub(super) fn now(&self) -> u64 {
        START + u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }

    pub(super) fn instant(&self, nanos: u64) -> Instant {
        // A time beyond what the clock can tell is as good as a day.
        let since = Duration::from_nanos(nanos.saturating_sub(START));
        self.started.checked_add(since).unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 3600))
    }

    pub(super) fn max_wait(&self) -> u64 {
        self.bounds.max_wait
    }

    pub(super) fn request(&self, call: &Call) -> Request {
        let own = call.key.as_ref().and_then(|key| self.settings.keys.get(&**key)).map_or(Rates::default(), rates);
        let tokens = if self.counts_tokens(call, own) { estimate::tokens(call) } else { 0 };
        let key = call.key.as_ref().map_or(NO_KEY, |key| self.hasher.hash_one(key));
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX / 4);
        Request { lane: self.lane(call.counted_as(), &call.model.id), ask: Ask { key, tokens, own } }
    }

    fn lane(&self, account: &str, model: &str) -> u64 {
        self.hasher.hash_one((account, model))
    }

    fn counts_tokens(&self, call: &Call, own: Rates) -> bool {
        own.tokens.is_some()
            || !self.settings.models.is_empty()
                && self.settings.models.get(&*call.model.id).is_some_and(|quota| quota.tokens.is_some())
    }

    pub(super) fn ask(&self, request: Request, model: &Model) -> Answer {
        let now = self.now();
        self.sweep_some(now);
        let mut shard = self.shard(request.lane).lock();
        if let Some(lane) = shard.get_mut(request.lane) {
            return lane.ask(request.ask, self.bounds, now);
        }
        let mut lane = self.new_lane(model, request.ask.key, now);
        let answer = lane.ask(request.ask, self.bounds, now);
        shard.insert(request.lane, lane, |lane| lane.is_idle(now));
        answer
    }

    #[cold]
    fn new_lane(&self, model: &Model, key: u64, now: u64) -> Lane {
        let quota = self.settings.models.get(&*model.id).map_or(Rates::default(), rates);
        let requests = quota.requests.unwrap_or_else(|| rate(model.limit));
        self.seen.lock().entry(model.slot.number()).or_insert(requests.units);
        Lane::new(model.slot, requests, quota.tokens, key, now)
    }

    fn shard(&self, lane: u64) -> &Mutex<Swept<Lane>> {
        // The map takes its places by the low and the highest bits; these are from between.
        &self.shards[(lane >> 40) as usize % SHARDS]
    }

    /// Does something with a lane, and tells the time it was done at.
    pub(super) fn with<T>(&self, lane: u64, work: impl FnOnce(&mut Lane, u64) -> T) -> Option<T> {
        let mut shard = self.shard(lane).lock();
        // Read under the lock, or time would go backwards for the lane.
        let now = self.now();
        shard.get_mut(lane).map(|lane| work(lane, now))
    }

    pub(super) fn leave(&self, lane: u64, ticket: Ticket, waiter: &Waiter) {
        self.with(lane, |lane, now| lane.leave(ticket, waiter, now));
    }

    pub(super) fn refuse_waiter(&self, lane: u64) -> Option<Refusal> {
        self.with(lane, Lane::refuse_waiter)
    }

    /// Upstream refused a call of this model for its rate.
    pub(super) fn refused_upstream(&self, lane: u64, retry_after: Option<Duration>) {
        let nanos = retry_after.map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        self.with(lane, |lane, now| lane.refused_upstream(nanos, now));
    }

    /// A call used this many tokens.
    pub(super) fn correct(&self, lane: u64, permit: Permit, tokens: u64) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX / 4);
        self.with(lane, |lane, now| lane.correct(permit, tokens, now));
    }

    fn sweep_some(&self, now: u64) {
        let asks = self.asks.fetch_add(1, Ordering::Relaxed);
        if !asks.is_multiple_of(ASKS) {
            return;
        }
        // Another call's turn to wait for that shard, not this one's.
        if let Some(mut shard) = self.shards[asks / ASKS % SHARDS].try_lock() {
            shard.sweep(LOOKS, |lane| lane.is_idle(now));
        }
    }

    /// How every model stands; where accounts differ, the one that has least. Forgets idle lanes on the way.
    pub(super) fn snapshot(&self) -> Vec<ModelStanding> {
        let standing = |(slot, limit): (&u16, &u32)| {
            let standing =
                ModelStanding { slot: Slot::numbered(*slot), limit: *limit, remaining: *limit, waiting: 0, pace: 1.0 };
            (*slot, standing)
        };
        let mut models: BTreeMap<_, _> = self.seen.lock().iter().map(standing).collect();
        let now = self.now();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let all = shard.len();
            shard.sweep(all, |lane| lane.is_idle(now));
            for lane in shard.values_mut() {
                let lane = lane.standing(now);
                if let Some(model) = models.get_mut(&lane.slot.number()) {
                    model.remaining = model.remaining.min(lane.left);
                    model.waiting += lane.waiting;
                    model.pace = model.pace.min(f64::from(lane.pace));
                }
            }
        }
        models.into_values().collect()
    }

    /// Lanes there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

fn rates(quota: &Quota) -> Rates {
    Rates { requests: quota.requests.map(rate), tokens: quota.tokens.map(rate) }
}

fn rate(limit: Limit) -> Rate {
    Rate::new(limit.requests.get(), limit.per)
}

/// Shared by the layer, its services, and those who wait.
pub(super) type Shared = Arc<Limits>;
