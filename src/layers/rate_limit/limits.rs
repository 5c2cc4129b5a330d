//! Every lane, in shards, and the clock they share.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::caller::caller;
use super::lane::{Answer, Lane};
use super::permit::Permit;
use super::queue::{Ticket, Waiter};
use super::refusal::{By, Refusal, Why};
use super::request::{LaneRequest, Rates, WaitLimits};
use super::settings::{ModelStanding, Quota, Settings};
use super::share::{Answered, Said, Share, Sharing, Word};
use super::swept_map::SweptMap;
use super::window::Rate;
use crate::call::Call;
use crate::catalogue::{Limit, Model, Slot};
use crate::estimate;
use crate::preview::{Limited, Verdict};

/// How calls are held, and the state that every clone of the layer shares.
#[derive(Debug)]
pub(super) struct Limits {
    settings: Settings,
    bounds: WaitLimits,
    /// Which settings these are: see [`Lanes::generation`].
    generation: u64,
    state: Arc<Lanes>,
}

/// What outlives the settings.
#[derive(Debug)]
struct Lanes {
    /// The settings that are in force. Calls that came in under earlier ones change no lane's limits back.
    generation: AtomicU64,
    shards: Box<[Mutex<SweptMap<Lane>>]>,
    /// Listed models that were asked, and their limit: they stay in the metrics when their lanes have gone.
    seen: Mutex<BTreeMap<u16, u32>>,
    hasher: RandomState,
    started: Instant,
    asks: AtomicUsize,
    /// Several gates share the limits.
    sharing: Option<Arc<Sharing>>,
}

/// A call's lane and what it asks of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) lane: u64,
    pub(super) slot: Slot,
    /// Which limit the lane is.
    pub(super) by: By,
    pub(super) ask: LaneRequest,
}

const SHARDS: usize = 64;
/// The clock starts late, so that what has left a window before it started has a time as well.
const START: u64 = 1 << 52;
/// After so many asks, so many lanes are looked at, whether they are idle.
const ASKS: usize = 64;
const LOOKS: usize = 16;
/// A call whose limit is shared waits for the store's answer, whatever its `max_wait` is; in nanoseconds.
pub(super) const ASKING: u64 = 500_000_000;
const LONGEST_NAME: usize = 160;

impl Limits {
    pub(super) fn new(settings: Settings, sharing: Option<Arc<Sharing>>) -> Self {
        let state = Lanes {
            generation: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
            started: Instant::now(),
            asks: AtomicUsize::new(0),
            sharing,
        };
        Self::over(settings, 0, Arc::new(state))
    }

    fn over(settings: Settings, generation: u64, state: Arc<Lanes>) -> Self {
        let max_wait = u64::try_from(settings.max_wait.as_nanos()).unwrap_or(u64::MAX);
        Self { bounds: WaitLimits { max_wait, max_queue: settings.max_queue }, settings, generation, state }
    }

    /// Other settings over the same state, in force from here on. `limit` tells the catalogue's limit of a listed model and its
    /// name: a lane of one holds to its new limits at once, also while calls wait.
    pub(super) fn followed_by(&self, settings: Settings, model: impl Fn(Slot) -> Option<Arc<Model>>) -> Self {
        let generation = self.state.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let next = Self::over(settings, generation, self.state.clone());
        for shard in &next.state.shards {
            let mut shard = shard.lock();
            let now = next.now();
            for lane in shard.values_mut() {
                // The others are told theirs with the next call.
                if lane.by != By::Requests {
                    continue;
                }
                let Some(model) = model(lane.slot()) else { continue };
                let rates = next.rates_of(&model.id);
                let requests = rates.requests.unwrap_or_else(|| rate(model.limit));
                // Where limits are shared, tokens have a lane of their own.
                let tokens = rates.tokens.filter(|_| !next.is_shared());
                if !lane.holds(requests, tokens) {
                    next.state.seen.lock().insert(lane.slot().number(), requests.units);
                    lane.hold(requests, tokens, now);
                }
            }
        }
        next
    }

    /// Nanoseconds on the clock of the windows.
    pub(super) fn now(&self) -> u64 {
        START + u64::try_from(self.state.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }

    pub(super) fn instant(&self, nanos: u64) -> Instant {
        // A time beyond what the clock can tell is as good as a day.
        let since = Duration::from_nanos(nanos.saturating_sub(START));
        self.state.started.checked_add(since).unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 3600))
    }

    pub(super) fn max_wait(&self) -> Duration {
        self.settings.max_wait
    }

    pub(super) fn request(&self, call: &Call) -> Request {
        let (own, model) = match self.is_shared() {
            true => (Rates::default(), Rates { tokens: None, ..self.rates_of(&call.model.id) }),
            false => {
                let own = call.key.as_ref().map_or(Rates::default(), |key| self.own_rates(key));
                (own, self.rates_of(&call.model.id))
            }
        };
        let counts_tokens = own.tokens.is_some() || model.tokens.is_some();
        let tokens = if counts_tokens { estimate::tokens(call) } else { 0 };
        let ask = LaneRequest {
            caller: caller(call, &self.settings.fair_by, &self.state.hasher),
            is_keyless: call.key.is_none(),
            requests_limit: model.requests.unwrap_or_else(|| rate(call.model.limit)),
            tokens_limit: model.tokens,
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX / 4),
            own,
        };
        let lane = self.state.hasher.hash_one((call.counted_as(), &*call.model.id));
        Request { lane, slot: call.model.slot, by: By::Requests, ask }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.state.sharing.is_some()
    }

    pub(super) fn hash(&self, of: impl Hash) -> u64 {
        self.state.hasher.hash_one(of)
    }

    pub(super) fn own_rates(&self, key: &str) -> Rates {
        self.settings.keys.get(key).map_or(Rates::default(), rates)
    }

    pub(super) fn rates_of(&self, model: &str) -> Rates {
        if self.settings.models.is_empty() {
            return Rates::default();
        }
        self.settings.models.get(model).map_or(Rates::default(), rates)
    }

    fn is_in_force(&self) -> bool {
        self.generation == self.state.generation.load(Ordering::Relaxed)
    }

    pub(super) fn ask(&self, request: Request, call: &Call) -> Answer {
        self.on_lane(request, || name(call), |lane, now| lane.ask(request.ask, self.bounds, now))
    }

    /// The same for a limit of this name, by one who waits until then at most.
    pub(super) fn ask_by(&self, request: Request, name: impl FnOnce() -> Arc<str>, until: u64) -> Answer {
        self.on_lane(request, name, |lane, now| {
            let max_wait = until.saturating_sub(now);
            lane.ask(request.ask, WaitLimits { max_wait, ..self.bounds }, now)
        })
    }

    /// What was taken and is not used.
    pub(super) fn give_back(&self, lane: u64, permit: Permit) {
        self.with(lane, |lane, now| {
            lane.give_back(permit, now);
            lane.dispatch(now);
        });
    }

    /// A permit if there is one now.
    pub(super) fn try_take(&self, request: Request, call: &Call) -> bool {
        self.on_lane(request, || name(call), |lane, now| lane.try_take(request.ask, self.bounds, now).is_some())
    }

    /// How a call would stand. A lane that has nothing to remember is not made for it.
    pub(super) fn foresee(&self, request: Request) -> Limited {
        let limit = request.ask.requests_limit;
        let seen =
            self.with(request.lane, |lane, now| (lane.standing(now), lane.foresee(request.ask, self.bounds, now)));
        let (requests, remaining, waiting, wait) = match seen {
            Some((standing, wait)) => (standing.limit, standing.left, standing.waiting, wait),
            None => (limit.units, limit.units, 0, 0),
        };
        let would = match wait {
            0 => Verdict::Pass,
            wait if wait <= self.bounds.max_wait && waiting < self.bounds.max_queue => Verdict::Wait,
            _ => Verdict::Refuse,
        };
        Limited { requests, per: limit.per(), remaining, waiting, wait: Duration::from_nanos(wait), would }
    }

    /// Does something with the request's lane, which holds to the limits that its model has now.
    fn on_lane<T>(
        &self,
        request: Request,
        name: impl FnOnce() -> Arc<str>,
        work: impl FnOnce(&mut Lane, u64) -> T,
    ) -> T {
        let now = self.now();
        self.sweep_some(now);
        let mut shard = self.shard(request.lane).lock();
        if let Some(lane) = shard.get_mut(request.lane) {
            if !lane.holds_to(&request.ask) && self.is_in_force() {
                self.see(request);
                lane.hold_to(&request.ask, now);
            }
            return work(lane, now);
        }
        self.see(request);
        let mut lane = Lane::new(request.slot, request.by, &request.ask, now);
        if let Some(sharing) = &self.state.sharing {
            lane.share_by(Share::new(sharing.clone(), request.lane, name()));
        }
        let done = work(&mut lane, now);
        shard.insert(request.lane, lane, |lane| lane.is_idle(now));
        done
    }

    #[cold]
    fn see(&self, request: Request) {
        if request.by != By::Requests {
            return;
        }
        self.state.seen.lock().insert(request.slot.number(), request.ask.requests_limit.units);
    }

    fn shard(&self, lane: u64) -> &Mutex<SweptMap<Lane>> {
        // The map takes its places by the low and the highest bits; these are from between.
        &self.state.shards[(lane >> 40) as usize % SHARDS]
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

    /// A waiter had to make room for another.
    pub(super) fn refuse_displaced(&self, request: Request) -> Option<Refusal> {
        self.with(request.lane, |lane, now| lane.refuse_waiter(Why::Full, request.ask, self.bounds, now))
    }

    /// A waiter's time is up: the refusal, or the permit that came just now.
    pub(super) fn give_up(&self, request: Request, ticket: Ticket, waiter: &Waiter) -> Result<Permit, Option<Refusal>> {
        let given_up = self.with(request.lane, |lane, now| {
            if let Some(permit) = waiter.take_permit() {
                return Ok(permit);
            }
            lane.leave(ticket, waiter, now);
            Err(Some(lane.refuse_waiter(Why::Waited, request.ask, self.bounds, now)))
        });
        given_up.unwrap_or(Err(None))
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
        let asks = self.state.asks.fetch_add(1, Ordering::Relaxed);
        if !asks.is_multiple_of(ASKS) {
            return;
        }
        // Another call's turn to wait for that shard, not this one's.
        if let Some(mut shard) = self.state.shards[asks / ASKS % SHARDS].try_lock() {
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
        let mut models: BTreeMap<_, _> = self.state.seen.lock().iter().map(standing).collect();
        let now = self.now();
        for shard in &self.state.shards {
            let mut shard = shard.lock();
            let all = shard.len();
            shard.sweep(all, |lane| lane.is_idle(now));
            for lane in shard.values_mut().filter(|lane| lane.by == By::Requests) {
                let lane = lane.standing(now);
                if let Some(model) = models.get_mut(&lane.slot.number()) {
                    model.limit = lane.limit;
                    model.remaining = model.remaining.min(lane.left);
                    model.waiting += lane.waiting;
                    model.pace = model.pace.min(f64::from(lane.pace));
                }
            }
        }
        models.into_values().collect()
    }

    /// How long a call waits at most: where limits are shared, as long as the store may take to answer.
    pub(super) fn longest_wait(&self) -> u64 {
        self.bounds.max_wait.max(if self.state.sharing.is_some() { ASKING } else { 0 })
    }

    /// How long the store is waited for.
    pub(super) fn store_wait(&self) -> u64 {
        ASKING
    }

    /// What a lane says to the store now.
    pub(super) fn word(&self, lane: u64, is_due: bool) -> Said {
        self.with(lane, |lane, now| lane.word(is_due, now)).unwrap_or(Said::Nothing)
    }

    /// What came of a lane's word, and when the next one is due.
    pub(super) fn heard(&self, lane: u64, word: &Word, answered: &Answered) -> Option<u64> {
        self.with(lane, |lane, now| lane.heard(word, answered, now)).flatten()
    }

    /// Has all lanes look again, and tells which are shared.
    pub(super) fn look_again(&self) -> Vec<u64> {
        let mut shared = Vec::new();
        for shard in &self.state.shards {
            let mut shard = shard.lock();
            let now = self.now();
            shared.extend(shard.iter_mut().filter_map(|(id, lane)| lane.look_again(now).then_some(*id)));
        }
        shared
    }

    /// Lanes there are.
    pub(super) fn len(&self) -> usize {
        self.state.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// What all gates call a model's limit: the account and the model.
pub(super) fn name(call: &Call) -> Arc<str> {
    named("", "", call)
}

/// What all gates call a limit: what it is, whose, and of which account and model.
pub(super) fn named(what: &str, whose: &str, call: &Call) -> Arc<str> {
    shortened(what, &[whose, call.counted_as(), &call.model.id])
}

/// A name is shortened to a digest where a client made it long, or so that it could be another's.
pub(super) fn shortened(what: &str, parts: &[&str]) -> Arc<str> {
    let (model, rest) = parts.split_last().unwrap_or((&"", &[]));
    let is_plain = rest.iter().all(|part| !part.contains([':', '/', '#']));
    let name = match rest {
        [] => format!("{what}:{model}"),
        ["", account] if what.is_empty() => format!("{account}/{model}"),
        ["", account] => format!("{what}:{account}/{model}"),
        rest => format!("{what}:{}/{model}", rest.join(":")),
    };
    if is_plain && name.len() <= LONGEST_NAME {
        return name.into();
    }
    let digest = Sha256::digest(format!("{what}\0{}", parts.join("\0")).as_bytes());
    digest.iter().take(16).fold(String::from("#"), |name, byte| name + &format!("{byte:02x}")).into()
}

fn rates(quota: &Quota) -> Rates {
    Rates { requests: quota.requests.map(rate), tokens: quota.tokens.map(rate) }
}

fn rate(limit: Limit) -> Rate {
    Rate::new(limit.requests.get(), limit.per)
}

/// Shared by the layer, its services, and those who wait.
pub(super) type Shared = Arc<Limits>;
