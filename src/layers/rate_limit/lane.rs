//! One model of one account: what it may have, what it had, and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::pace::Pace;
use super::queue::{Had, Queue, State, Ticket, Waiter};
use super::swept::Swept;
use super::window::{Rate, Taken, Window};
use crate::catalogue::Slot;

/// The state of one limit. What only busy or refused models need lies apart, for there may be very many.
#[derive(Debug)]
pub(super) struct Lane {
    requests: Bound,
    /// The only key that has asked so far.
    solo: u64,
    more: Option<Box<More>>,
    slot: Slot,
}

/// A limit and what was taken of it.
#[derive(Clone, Debug)]
struct Bound {
    rate: Rate,
    window: Window,
}

#[derive(Debug)]
struct More {
    pace: Pace,
    /// Upstream asked to be left alone until then.
    held_until: u64,
    tokens: Option<Bound>,
    /// More than one key has asked, or a key has limits of its own.
    keys: Option<Swept<Key>>,
    has_key_limits: bool,
    queue: Queue,
}

/// One key of the model: what it had, and its own limits.
#[derive(Debug, Default)]
struct Key {
    had: Had,
    requests: Option<Box<Bound>>,
    tokens: Option<Box<Bound>>,
}

/// What a model or a key may have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) requests: Option<Rate>,
    pub(super) tokens: Option<Rate>,
}

/// What a call asks of its lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) key: u64,
    /// Input and output, as estimated; zero where nothing limits them.
    pub(super) tokens: u32,
    /// The key's own limits.
    pub(super) own: Rates,
}

/// What a call took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    key: u64,
    requests: Taken,
    tokens: Option<Taken>,
    own_requests: Option<Taken>,
    own_tokens: Option<Taken>,
}

/// A lane's answer.
#[derive(Debug)]
pub(super) enum Answer {
    Granted(Permit),
    Queued(Ticket, Arc<Waiter>),
    Refused(Refusal),
}

/// Why a call gets no permit, and how things stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) why: Why,
    pub(super) retry_after: Duration,
    pub(super) units: u32,
    pub(super) per: Duration,
    pub(super) left: u32,
    pub(super) waiting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing comes free within `max_wait`.
    TooLong,
    /// It waited `max_wait`.
    Waited,
    /// The queue is full.
    Full,
}

/// How long and how many may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_wait: u64,
    pub(super) max_queue: usize,
}

/// How a lane stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) slot: Slot,
    pub(super) left: u32,
    pub(super) waiting: usize,
    pub(super) pace: f32,
}

/// How many keys are looked at, whether they are idle, each time their lane is.
const KEY_LOOKS: usize = 64;

// === impl Bound ===

impl Bound {
    fn new(rate: Rate, now: u64) -> Self {
        Self { rate, window: Window::new(rate, now) }
    }

    fn advance(&mut self, now: u64) {
        self.window.advance(self.rate, self.rate.units, now);
    }

    fn is_open(&self, units: u32) -> bool {
        self.window.is_open(self.rate, self.rate.units, units)
    }

    fn opens_at(&self, units: u32, now: u64) -> u64 {
        self.window.opens_at(self.rate, self.rate.units, units, now)
    }

    fn charge(&mut self, units: u32) -> Taken {
        self.window.charge(units.min(self.rate.units))
    }

    fn is_idle(&mut self, now: u64) -> bool {
        self.advance(now);
        self.window.is_idle(self.rate.units)
    }

    /// Puts right what was taken by estimate.
    fn correct(&mut self, taken: Taken, real: u32, now: u64) {
        self.advance(now);
        let real = real.min(self.rate.units);
        if real > taken.units() {
            self.window.charge(real - taken.units());
        } else {
            self.window.give_back(self.rate, taken.less(real));
        }
    }
}

// === impl Key ===

impl Key {
    fn new(own: Rates, now: u64) -> Self {
        let bound = |rate: Option<Rate>| rate.map(|rate| Box::new(Bound::new(rate, now)));
        Self { had: Had::default(), requests: bound(own.requests), tokens: bound(own.tokens) }
    }

    fn bounds(&mut self) -> impl Iterator<Item = &mut Bound> {
        self.requests.iter_mut().chain(&mut self.tokens).map(|bound| &mut **bound)
    }

    fn is_open(&self, tokens: u32) -> bool {
        self.requests.as_ref().is_none_or(|bound| bound.is_open(1))
            && self.tokens.as_ref().is_none_or(|bound| bound.is_open(tokens))
    }

    fn opens_at(&self, tokens: u32, now: u64) -> u64 {
        let requests = self.requests.as_ref().map_or(now, |bound| bound.opens_at(1, now));
        requests.max(self.tokens.as_ref().map_or(now, |bound| bound.opens_at(tokens, now)))
    }

    fn is_idle(&mut self, now: u64, window: u64) -> bool {
        self.had.at(now, window) < 0.01 && self.bounds().all(|bound| bound.is_idle(now))
    }
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(slot: Slot, limit: Rate, tokens: Option<Rate>, key: u64, now: u64) -> Self {
        let more = tokens.map(|rate| Box::new(More { tokens: Some(Bound::new(rate, now)), ..More::new() }));
        Self { requests: Bound::new(limit, now), solo: key, more, slot }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_with(|| Box::new(More::new()))
    }

    fn cap(&self, now: u64) -> u32 {
        self.more.as_ref().map_or(self.requests.rate.units, |more| more.pace.cap(self.requests.rate, now))
    }

    fn advance(&mut self, now: u64) -> u32 {
        let cap = self.cap(now);
        self.requests.window.advance(self.requests.rate, cap, now);
        if let Some(tokens) = self.more.as_mut().and_then(|more| more.tokens.as_mut()) {
            tokens.advance(now);
        }
        cap
    }

    /// A permit, a place in the queue, or a no.
    #[inline]
    pub(super) fn ask(&mut self, ask: Ask, bounds: Bounds, now: u64) -> Answer {
        let cap = self.advance(now);
        if ask.key != self.solo || ask.own.is_any() || self.more.is_some() {
            self.meet(ask, now);
        }
        let nobody_waits = self.more.as_ref().is_none_or(|more| more.queue.is_empty());
        if nobody_waits && self.is_open(ask.key, ask.tokens, cap, now) {
            return Answer::Granted(self.charge(ask.key, ask.tokens, now));
        }
        self.queue_up(ask, bounds, cap, now)
    }

    /// Makes sure that the key is known, where there is more than one.
    fn meet(&mut self, ask: Ask, now: u64) {
        let (window, solo) = (self.requests.rate.nanos(), self.solo);
        let had = Had::new(self.requests.window.held(self.requests.rate), now);
        if ask.key == solo && !ask.own.is_any() && self.more.as_ref().is_none_or(|more| more.keys.is_none()) {
            return;
        }
        let more = self.more();
        more.has_key_limits |= ask.own.is_any();
        let keys = more.keys.get_or_insert_with(|| {
            let mut keys = Swept::default();
            let first = if ask.key == solo { ask.own } else { Rates::default() };
            let mut key = Key::new(first, now);
            key.had = had;
            keys.insert(solo, key, |_| false);
            keys
        });
        match keys.get_mut(ask.key) {
            Some(key) => key.bounds().for_each(|bound| bound.advance(now)),
            None => keys.insert(ask.key, Key::new(ask.own, now), |key| key.is_idle(now, window)),
        }
    }

    fn is_open(&self, key: u64, tokens: u32, cap: u32, now: u64) -> bool {
        let requests = self.requests.window.is_open(self.requests.rate, cap, 1);
        requests && self.more.as_ref().is_none_or(|more| more.is_open(key, tokens, now))
    }

    fn charge(&mut self, key: u64, tokens: u32, now: u64) -> Permit {
        let window = self.requests.rate.nanos();
        let requests = self.requests.window.charge(1);
        let mut permit = Permit { key, requests, tokens: None, own_requests: None, own_tokens: None };
        let Some(more) = &mut self.more else { return permit };
        permit.tokens = more.tokens.as_mut().map(|bound| bound.charge(tokens));
        if let Some(key) = more.key(key) {
            key.had.add(1.0, now, window);
            permit.own_requests = key.requests.as_mut().map(|bound| bound.charge(1));
            permit.own_tokens = key.tokens.as_mut().map(|bound| bound.charge(tokens));
        }
        permit
    }

    #[cold]
    fn queue_up(&mut self, ask: Ask, bounds: Bounds, cap: u32, now: u64) -> Answer {
        if self.more.as_ref().is_none_or(|more| more.queue.is_empty()) {
            self.requests.window.respread(self.requests.rate, cap, now);
        }
        let opens_at = self.opens_at(ask.key, ask.tokens, cap, now);
        if opens_at > now.saturating_add(bounds.max_wait) {
            return Answer::Refused(self.refusal(Why::TooLong, opens_at, now));
        }
        let all = Had::new(self.requests.window.held(self.requests.rate), now);
        let more = self.more();
        if !more.queue.make_room(ask.key, bounds.max_queue) {
            return Answer::Refused(self.refusal(Why::Full, opens_at, now));
        }
        // Where no other key has asked, all that was taken was this one's.
        let had = more.key(ask.key).map_or(all, |key| key.had);
        let waiter = Waiter::new(ask.tokens);
        let ticket = more.queue.push(ask.key, had, waiter.clone());
        self.dispatch(now);
        Answer::Queued(ticket, waiter)
    }

    /// When a call would find room if nobody else asked.
    fn opens_at(&self, key: u64, tokens: u32, cap: u32, now: u64) -> u64 {
        let requests = self.requests.window.opens_at(self.requests.rate, cap, 1, now);
        self.more.as_ref().map_or(requests, |more| requests.max(more.opens_at(key, tokens, now)))
    }

    /// Gives turns as long as there is room, and tells when there will be more.
    pub(super) fn dispatch(&mut self, now: u64) -> u64 {
        let cap = self.advance(now);
        let window = self.requests.rate.nanos();
        if let Some(more) = &mut self.more {
            more.advance_keys(now);
        }
        while let Some((ticket, tokens)) = self.next(cap, now) {
            let permit = self.charge(ticket.key, tokens, now);
            self.more().queue.grant(ticket, permit, now, window);
        }
        self.next_turn_at(cap, now)
    }

    /// Who has a turn now.
    fn next(&self, cap: u32, now: u64) -> Option<(Ticket, u32)> {
        let (rate, requests) = (self.requests.rate, &self.requests.window);
        let more = self.more.as_ref().filter(|more| !more.queue.is_empty())?;
        let may = |key: u64, waiter: &Waiter| more.key_is_open(key, waiter.tokens);
        let next = if requests.is_open(rate, cap, 1) {
            more.queue.next(now, rate.nanos(), may)
        } else if requests.lends(rate, cap) {
            more.queue.next_ahead(now, rate.nanos(), may)
        } else {
            None
        };
        next.filter(|(ticket, tokens)| more.is_open(ticket.key, *tokens, now))
    }

    fn next_turn_at(&self, cap: u32, now: u64) -> u64 {
        let (rate, requests) = (self.requests.rate, &self.requests.window);
        let Some(more) = &self.more else { return requests.opens_at(rate, cap, 1, now) };
        let requests = match more.queue.next_ahead(now, rate.nanos(), |_, _| true) {
            Some(_) => requests.lends_at(rate, cap, now),
            None => requests.opens_at(rate, cap, 1, now),
        };
        let heads = if more.has_key_limits || more.tokens.is_some() {
            more.queue.heads().map(|(key, waiter)| more.opens_at(key, waiter.tokens, now)).min().unwrap_or(now)
        } else {
            more.held_until
        };
        requests.max(heads)
    }

    /// A waiter has gone: its place or its unused permit goes to the next.
    pub(super) fn leave(&mut self, ticket: Ticket, waiter: &Waiter, now: u64) {
        self.advance(now);
        match waiter.state() {
            State::Granted => {
                if let Some(permit) = waiter.take_permit() {
                    self.give_back(permit, now);
                }
            }
            State::Waiting | State::Driving => drop(self.more().queue.remove(ticket)),
            State::Displaced => return,
        }
        self.dispatch(now);
    }

    fn give_back(&mut self, permit: Permit, now: u64) {
        let window = self.requests.rate.nanos();
        self.requests.window.give_back(self.requests.rate, permit.requests);
        let Some(more) = &mut self.more else { return };
        if let (Some(bound), Some(taken)) = (&mut more.tokens, permit.tokens) {
            bound.window.give_back(bound.rate, taken);
        }
        if let Some(key) = more.key(permit.key) {
            key.had.add(-1.0, now, window);
            let own = [(&mut key.requests, permit.own_requests), (&mut key.tokens, permit.own_tokens)];
            for (bound, taken) in own {
                if let (Some(bound), Some(taken)) = (bound, taken) {
                    bound.window.give_back(bound.rate, taken);
                }
            }
        }
    }

    /// The call used this many tokens.
    pub(super) fn correct(&mut self, permit: Permit, tokens: u32, now: u64) {
        let Some(more) = &mut self.more else { return };
        if let (Some(bound), Some(taken)) = (&mut more.tokens, permit.tokens) {
            bound.correct(taken, tokens, now);
        }
        if let (Some(key), Some(taken)) = (more.key(permit.key), permit.own_tokens)
            && let Some(bound) = &mut key.tokens
        {
            bound.correct(taken, tokens, now);
        }
    }

    /// Upstream refused a call for its rate, and perhaps said for how long.
    pub(super) fn refused_upstream(&mut self, retry_after: Option<u64>, now: u64) {
        let rate = self.requests.rate;
        self.advance(now);
        let more = self.more();
        more.pace.refused(rate, now);
        more.held_until = more.held_until.max(now.saturating_add(retry_after.unwrap_or(0)));
        let cap = more.pace.cap(rate, now);
        self.requests.window.repace(rate, cap, now);
    }

    pub(super) fn refusal(&self, why: Why, opens_at: u64, now: u64) -> Refusal {
        let rate = self.requests.rate;
        let cap = self.cap(now);
        let waiting = self.more.as_ref().map_or(0, |more| more.queue.len());
        let ahead = waiting as f64 / f64::from(self.requests.window.flow(rate, cap));
        let opens = Duration::from_nanos(opens_at.saturating_sub(now).max(1_000_000));
        // Behind those who wait now, but no longer than a window: by then things have changed.
        let retry_after = opens.max(Duration::try_from_secs_f64(ahead).unwrap_or_default().min(rate.per()));
        let left = cap.saturating_sub(self.requests.window.held(rate));
        Refusal { why, retry_after, units: rate.units, per: rate.per(), left, waiting }
    }

    /// A waiter's time is up: what it is told.
    pub(super) fn refuse_waiter(&mut self, now: u64) -> Refusal {
        let cap = self.advance(now);
        self.refusal(Why::Waited, self.next_turn_at(cap, now), now)
    }

    pub(super) fn standing(&mut self, now: u64) -> Standing {
        let cap = self.advance(now);
        let rate = self.requests.rate;
        let more = self.more.as_ref();
        Standing {
            slot: self.slot,
            left: cap.saturating_sub(self.requests.window.held(rate)),
            waiting: more.map_or(0, |more| more.queue.len()),
            pace: more.map_or(1.0, |more| more.pace.share(rate, now)),
        }
    }

    /// Nothing to remember.
    pub(super) fn is_idle(&mut self, now: u64) -> bool {
        let cap = self.advance(now);
        let (rate, window) = (self.requests.rate, self.requests.rate.nanos());
        self.requests.window.is_idle(cap)
            && self.more.as_mut().is_none_or(|more| {
                if let Some(keys) = &mut more.keys {
                    keys.sweep(KEY_LOOKS, |key| key.is_idle(now, window));
                }
                more.is_idle(rate, now)
            })
    }
}

// === impl More ===

impl More {
    fn new() -> Self {
        Self {
            pace: Pace::FULL,
            held_until: 0,
            tokens: None,
            keys: None,
            has_key_limits: false,
            queue: Queue::default(),
        }
    }

    fn key(&mut self, key: u64) -> Option<&mut Key> {
        self.keys.as_mut()?.get_mut(key)
    }

    fn key_is_open(&self, key: u64, tokens: u32) -> bool {
        let known = self.keys.as_ref().filter(|_| self.has_key_limits).and_then(|keys| keys.get(key));
        known.is_none_or(|key| key.is_open(tokens))
    }

    fn is_open(&self, key: u64, tokens: u32, now: u64) -> bool {
        now >= self.held_until
            && self.tokens.as_ref().is_none_or(|bound| bound.is_open(tokens))
            && self.key_is_open(key, tokens)
    }

    fn opens_at(&self, key: u64, tokens: u32, now: u64) -> u64 {
        let model = self.tokens.as_ref().map_or(now, |bound| bound.opens_at(tokens, now));
        let own = self.keys.as_ref().and_then(|keys| keys.get(key)).map_or(now, |key| key.opens_at(tokens, now));
        self.held_until.max(model).max(own)
    }

    fn advance_keys(&mut self, now: u64) {
        if !self.has_key_limits {
            return;
        }
        let Self { keys: Some(keys), queue, .. } = self else { return };
        for (key, _) in queue.heads() {
            if let Some(key) = keys.get_mut(key) {
                key.bounds().for_each(|bound| bound.advance(now));
            }
        }
    }

    fn is_idle(&mut self, rate: Rate, now: u64) -> bool {
        self.queue.is_empty()
            && now >= self.held_until
            && self.pace.share(rate, now) >= 1.0
            && self.tokens.as_mut().is_none_or(|bound| bound.is_idle(now))
            && self.keys.as_ref().is_none_or(|keys| keys.len() == 0)
    }
}

// === impl Permit ===

impl Permit {
    pub(super) fn counts_tokens(&self) -> bool {
        self.tokens.is_some() || self.own_tokens.is_some()
    }
}

// === impl Rates ===

impl Rates {
    pub(super) fn is_any(self) -> bool {
        self.requests.is_some() || self.tokens.is_some()
    }
}
