//! One model of one account: what it may have, what it had, and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::busy::{Busy, Caller};
use super::limit_window::LimitWindow;
use super::permit::Permit;
use super::queue::{RecentUse, Ticket, Waiter, WaiterState};
use super::refusal::{By, Held, Refusal, Why};
use super::request::{LaneRequest, Rates, WaitLimits};
use super::swept_map::SweptMap;
use super::window::Rate;
use crate::catalogue::Slot;

/// The state of one limit. What only busy or refused models need lies apart, for there may be very many.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) requests: LimitWindow,
    /// The only caller that has asked so far.
    solo: u64,
    pub(super) busy: Option<Box<Busy>>,
    slot: Slot,
    /// Which limit it is.
    pub(super) by: By,
}

/// A lane's answer.
#[derive(Debug)]
pub(super) enum Answer {
    Granted(Permit),
    Queued(Ticket, Arc<Waiter>),
    Refused(Refusal),
}

/// A pause as clients are told it: in milliseconds, in whole seconds from one second on. `retry-after` has no others, and who
/// reads that one comes when who reads `retry-after-ms` does.
fn as_told(nanos: u64) -> u64 {
    const MILLI: u64 = 1_000_000;
    let unit = if nanos > 1000 * MILLI { 1000 * MILLI } else { MILLI };
    nanos.div_ceil(unit).max(1).saturating_mul(unit)
}

/// How a lane stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) slot: Slot,
    pub(super) limit: u32,
    pub(super) left: u32,
    pub(super) waiting: usize,
    pub(super) pace: f32,
}

/// How many callers are looked at, whether they are idle, each time their lane is.
const CALLER_LOOKS: usize = 64;
/// Callers without keys that a lane knows at a time: a quarter of its queue's places, and so many at least and at most. Those
/// who come when it knows so many share [`SHARED`] names, so that a client that makes up tokens fills no queue with them.
const LEAST_CALLERS: usize = 16;
const MOST_CALLERS: usize = 256;
const SHARED: u64 = 16;
/// Who waits for a shared limit is woken when there is a turn, and looks again by itself after so many nanoseconds.
const SHARED_LOOK: u64 = 100_000_000;

// === impl Lane ===

impl Lane {
    pub(super) fn new(slot: Slot, by: By, ask: &LaneRequest, now: u64) -> Self {
        let busy =
            ask.tokens_limit.map(|rate| Box::new(Busy { tokens: Some(LimitWindow::new(rate, now)), ..Busy::new() }));
        Self { requests: LimitWindow::new(ask.requests_limit, now), solo: ask.caller, busy, slot, by }
    }

    /// Its units are tokens.
    pub(super) fn counts_tokens(&self) -> bool {
        matches!(self.by, By::Tokens | By::KeyTokens)
    }

    /// Its units that a call of so many tokens needs.
    pub(super) fn units(&self, tokens: u32) -> u32 {
        if self.counts_tokens() { tokens.clamp(1, self.requests.rate.units) } else { 1 }
    }

    pub(super) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_with(|| Box::new(Busy::new()))
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The call's limits are those that the lane holds to.
    pub(super) fn holds_to(&self, ask: &LaneRequest) -> bool {
        self.holds(ask.requests_limit, ask.tokens_limit)
    }

    pub(super) fn holds(&self, requests: Rate, tokens: Option<Rate>) -> bool {
        let own = self.busy.as_ref().and_then(|busy| busy.tokens.as_ref()).map(|bound| bound.rate);
        self.requests.rate == requests && own == tokens
    }

    /// The model's limits have changed. What was taken of the old ones counts.
    #[cold]
    pub(super) fn hold_to(&mut self, ask: &LaneRequest, now: u64) {
        self.hold(ask.requests_limit, ask.tokens_limit, now);
    }

    /// See [`hold_to`](Self::hold_to).
    pub(super) fn hold(&mut self, requests: Rate, tokens_limit: Option<Rate>, now: u64) {
        self.advance(now);
        self.requests.change(requests, now);
        if tokens_limit.is_some() || self.busy.is_some() {
            let busy = self.busy();
            match (&mut busy.tokens, tokens_limit) {
                (Some(bound), Some(rate)) => bound.change(rate, now),
                (tokens, rate) => *tokens = rate.map(|rate| LimitWindow::new(rate, now)),
            }
            // The next turn may be sooner than it was.
            busy.queue.wake_driver();
        }
    }

    fn cap(&self, now: u64) -> u32 {
        self.busy.as_ref().map_or(self.requests.rate.units, |busy| busy.pace.cap(self.requests.rate, now))
    }

    pub(super) fn advance(&mut self, now: u64) -> u32 {
        let cap = self.cap(now);
        self.requests.window.advance(self.requests.rate, cap, now);
        if let Some(tokens) = self.busy.as_mut().and_then(|busy| busy.tokens.as_mut()) {
            tokens.advance(now);
        }
        cap
    }

    /// A permit, a place in the queue, or a no.
    #[inline]
    pub(super) fn ask(&mut self, mut ask: LaneRequest, bounds: WaitLimits, now: u64) -> Answer {
        let cap = self.advance(now);
        if ask.caller != self.solo || ask.own.is_any() || self.busy.is_some() {
            ask.caller = self.meet(ask, bounds, now);
        }
        let nobody_is_ahead = self.busy.as_ref().is_none_or(|busy| busy.queue.is_empty() && busy.promises.is_empty());
        if nobody_is_ahead && self.is_open(ask.caller, ask.tokens, cap, now) {
            return Answer::Granted(self.charge(ask.caller, ask.tokens, now));
        }
        self.queue_up(ask, bounds, cap, now)
    }

    /// Makes sure that the caller is known, where there is more than one, and tells under which name.
    fn meet(&mut self, ask: LaneRequest, bounds: WaitLimits, now: u64) -> u64 {
        let (window, solo) = (self.requests.rate.nanos(), self.solo);
        let had = RecentUse::new(self.requests.window.held(self.requests.rate), now);
        if ask.caller == solo && !ask.own.is_any() && self.busy.as_ref().is_none_or(|busy| busy.callers.is_none()) {
            return ask.caller;
        }
        let busy = self.busy();
        busy.has_key_limits |= ask.own.is_any();
        let callers = busy.callers.get_or_insert_with(|| {
            let mut callers = SweptMap::default();
            let first = if ask.caller == solo { ask.own } else { Rates::default() };
            let mut caller = Caller::new(first, now);
            caller.had = had;
            callers.insert(solo, caller, |_| false);
            callers
        });
        let most = (bounds.max_queue / 4).clamp(LEAST_CALLERS, MOST_CALLERS);
        let is_one_too_many =
            ask.is_keyless && callers.get(ask.caller).is_none() && callers.len().max(busy.queue.callers()) >= most;
        let name = if is_one_too_many { 1 + ask.caller % SHARED } else { ask.caller };
        match callers.get_mut(name) {
            Some(caller) => {
                caller.bounds().for_each(|bound| bound.advance(now));
                caller.hold_to(ask.own, now);
            }
            None => callers.insert(name, Caller::new(ask.own, now), |caller| caller.is_idle(now, window)),
        }
        name
    }

    fn is_open(&self, caller: u64, tokens: u32, cap: u32, now: u64) -> bool {
        self.has_turn(self.units(tokens), cap, now)
            && self.busy.as_ref().is_none_or(|busy| busy.is_open(caller, tokens, now))
    }

    fn charge(&mut self, caller: u64, tokens: u32, now: u64) -> Permit {
        let window = self.requests.rate.nanos();
        let units = self.units(tokens);
        let requests = self.requests.window.charge(units);
        self.take_share(units, now);
        let mut permit = Permit { caller, requests, tokens: None, own_requests: None, own_tokens: None };
        let Some(busy) = &mut self.busy else { return permit };
        permit.tokens = busy.tokens.as_mut().map(|bound| bound.charge(tokens));
        if let Some(known) = busy.caller(caller) {
            known.had.add(units as f32, now, window);
            permit.own_requests = known.requests.as_mut().map(|bound| bound.charge(1));
            permit.own_tokens = known.tokens.as_mut().map(|bound| bound.charge(tokens));
        }
        permit
    }

    /// A permit if there is one now. A call that gets none leaves no trace.
    pub(super) fn try_take(&mut self, mut ask: LaneRequest, bounds: WaitLimits, now: u64) -> Option<Permit> {
        let cap = self.advance(now);
        if ask.caller != self.solo || ask.own.is_any() || self.busy.is_some() {
            ask.caller = self.meet(ask, bounds, now);
        }
        let nobody_waits = self.busy.as_ref().is_none_or(|busy| busy.queue.is_empty());
        let is_open =
            nobody_waits && self.turn_for(ask, now, cap, now) <= now && self.is_open(ask.caller, ask.tokens, cap, now);
        if !is_open {
            return None;
        }
        if let Some(busy) = &mut self.busy {
            busy.promises.redeem_due(ask.caller, now);
        }
        Some(self.charge(ask.caller, ask.tokens, now))
    }

    /// How long a call would wait now, in nanoseconds: behind those who wait already.
    pub(super) fn foresee(&mut self, ask: LaneRequest, bounds: WaitLimits, now: u64) -> u64 {
        let cap = self.advance(now);
        let nobody_waits = self.busy.as_ref().is_none_or(|busy| busy.queue.is_empty());
        if nobody_waits && self.is_open(ask.caller, ask.tokens, cap, now) {
            return 0;
        }
        let mut turn = self.turn_for(ask, now.saturating_add(bounds.max_wait), cap, now);
        if !nobody_waits {
            turn = turn.max(self.turn_after(ask, bounds, cap, &[], 0, now));
        }
        turn.saturating_sub(now).max(1)
    }

    #[cold]
    fn queue_up(&mut self, ask: LaneRequest, bounds: WaitLimits, cap: u32, now: u64) -> Answer {
        let nobody_waits = self.busy.as_ref().is_none_or(|busy| busy.queue.is_empty());
        if nobody_waits {
            self.requests.window.respread(self.requests.rate, cap, now);
        }
        let latest = now.saturating_add(bounds.max_wait);
        let opens_at = self.turn_for(ask, latest, cap, now);
        if opens_at > latest {
            return Answer::Refused(self.refusal(Why::TooLong, ask, bounds, now));
        }
        let was_told = self.busy().promises.redeem_due(ask.caller, now);
        if nobody_waits && self.is_open(ask.caller, ask.tokens, cap, now) {
            return Answer::Granted(self.charge(ask.caller, ask.tokens, now));
        }
        let all = RecentUse::new(self.requests.window.held(self.requests.rate), now);
        let busy = self.busy();
        // Who was told to come now has its place beside the queue's.
        if !was_told && !busy.queue.make_room(ask.caller, bounds.max_queue) {
            return Answer::Refused(self.refusal(Why::Full, ask, bounds, now));
        }
        // Where no other caller has asked, all that was taken was this one's.
        let had = busy.caller(ask.caller).map_or(all, |caller| caller.had);
        let waiter = Waiter::new(ask.tokens);
        let ticket = busy.queue.push(ask.caller, had, waiter.clone());
        self.dispatch(now);
        Answer::Queued(ticket, waiter)
    }

    /// When a call would find room that no other has a claim on. Those who wait do not count: turns are fair, so that a
    /// newcomer may go before them.
    fn turn_for(&mut self, ask: LaneRequest, latest: u64, cap: u32, now: u64) -> u64 {
        let (mut claims, mut nobody_waits) = (0, true);
        let units = self.units(ask.tokens);
        if let Some(turn) = self.shared_turn(units, 0, now) {
            return self.busy.as_ref().map_or(turn, |busy| turn.max(busy.opens_at(ask.caller, ask.tokens, now)));
        }
        let LimitWindow { rate, window } = &self.requests;
        if let Some(busy) = &mut self.busy {
            busy.promises.expire(now);
            if !busy.promises.is_empty() {
                let second = window.turn_after(*rate, cap, units, 1, now);
                claims = busy.promises.claims(ask.caller, latest, second, now);
            }
            nobody_waits = busy.queue.is_empty();
        }
        let requests = if claims > 0 || nobody_waits {
            window.turn_after(*rate, cap, units, claims, now)
        } else {
            window.opens_at(*rate, cap, units, now)
        };
        self.busy.as_ref().map_or(requests, |busy| requests.max(busy.opens_at(ask.caller, ask.tokens, now)))
    }

    /// Gives turns as long as there is room, and tells when there will be more.
    pub(super) fn dispatch(&mut self, now: u64) -> u64 {
        let cap = self.advance(now);
        let window = self.requests.rate.nanos();
        if let Some(busy) = &mut self.busy {
            busy.advance_callers(now);
        }
        while let Some((ticket, tokens)) = self.next(cap, now) {
            let permit = self.charge(ticket.key, tokens, now);
            self.busy().queue.grant(ticket, permit, now, window);
        }
        self.want_turn(now);
        self.next_turn_at(cap, now)
    }

    /// Who has a turn now.
    fn next(&self, cap: u32, now: u64) -> Option<(Ticket, u32)> {
        let (rate, requests) = (self.requests.rate, &self.requests.window);
        let busy = self.busy.as_ref().filter(|busy| !busy.queue.is_empty())?;
        let may = |caller: u64, waiter: &Waiter| busy.caller_is_open(caller, waiter.tokens);
        let next = if self.has_turn(1, cap, now) {
            busy.queue.next(now, rate.nanos(), may)
        } else if busy.share.is_none() && requests.lends(rate, cap) {
            busy.queue.next_ahead(now, rate.nanos(), may)
        } else {
            None
        };
        let fits = |tokens: u32| !self.counts_tokens() || self.has_turn(self.units(tokens), cap, now);
        next.filter(|(ticket, tokens)| fits(*tokens) && busy.is_open(ticket.key, *tokens, now))
    }

    fn next_turn_at(&self, cap: u32, now: u64) -> u64 {
        let (rate, requests) = (self.requests.rate, &self.requests.window);
        let Some(busy) = &self.busy else { return requests.opens_at(rate, cap, 1, now) };
        let requests = match (self.shared_turn(1, 0, now), busy.queue.next_ahead(now, rate.nanos(), |_, _| true)) {
            (Some(turn), _) => turn.max(now.saturating_add(SHARED_LOOK)),
            (None, Some(_)) if busy.share.is_none() => requests.lends_at(rate, cap, now),
            _ => requests.opens_at(rate, cap, 1, now),
        };
        let heads = if busy.has_key_limits || busy.tokens.is_some() {
            busy.queue.heads().map(|(caller, waiter)| busy.opens_at(caller, waiter.tokens, now)).min().unwrap_or(now)
        } else {
            busy.held_until
        };
        requests.max(heads)
    }

    /// A waiter has gone: its place or its unused permit goes to the next.
    pub(super) fn leave(&mut self, ticket: Ticket, waiter: &Waiter, now: u64) {
        self.advance(now);
        match waiter.state() {
            WaiterState::Granted => {
                if let Some(permit) = waiter.take_permit() {
                    self.give_back(permit, now);
                }
            }
            WaiterState::Waiting | WaiterState::Driving => drop(self.busy().queue.remove(ticket)),
            WaiterState::Displaced => return,
        }
        self.dispatch(now);
    }

    pub(super) fn give_back(&mut self, permit: Permit, now: u64) {
        let window = self.requests.rate.nanos();
        self.requests.window.give_back(self.requests.rate, permit.requests);
        self.keep_share(permit.requests.units(), now);
        let Some(busy) = &mut self.busy else { return };
        if let (Some(bound), Some(taken)) = (&mut busy.tokens, permit.tokens) {
            bound.window.give_back(bound.rate, taken);
        }
        if let Some(caller) = busy.caller(permit.caller) {
            caller.had.add(-(permit.requests.units() as f32), now, window);
            let own = [(&mut caller.requests, permit.own_requests), (&mut caller.tokens, permit.own_tokens)];
            for (bound, taken) in own {
                if let (Some(bound), Some(taken)) = (bound, taken) {
                    bound.window.give_back(bound.rate, taken);
                }
            }
        }
    }

    /// The call used this many tokens.
    pub(super) fn correct(&mut self, permit: Permit, tokens: u32, now: u64) {
        if self.counts_tokens() {
            self.requests.correct(permit.requests, tokens, now);
        }
        let Some(busy) = &mut self.busy else { return };
        if let (Some(bound), Some(taken)) = (&mut busy.tokens, permit.tokens) {
            bound.correct(taken, tokens, now);
        }
        if let (Some(caller), Some(taken)) = (busy.caller(permit.caller), permit.own_tokens)
            && let Some(bound) = &mut caller.tokens
        {
            bound.correct(taken, tokens, now);
        }
    }

    /// Upstream refused a call for its rate, and perhaps said for how long.
    pub(super) fn refused_upstream(&mut self, retry_after: Option<u64>, now: u64) {
        let rate = self.requests.rate;
        self.advance(now);
        let busy = self.busy();
        if let Some(share) = &mut busy.share {
            share.refused = true;
            share.want();
        }
        busy.pace.refused(rate, now);
        busy.held_until = busy.held_until.max(now.saturating_add(retry_after.unwrap_or(0)));
        let cap = busy.pace.cap(rate, now);
        self.requests.window.repace(rate, cap, now);
    }

    /// Tells a call no, and when there is a turn for it.
    fn refusal(&mut self, why: Why, ask: LaneRequest, bounds: WaitLimits, now: u64) -> Refusal {
        let cap = self.cap(now);
        let limit = self.held_by(ask, cap, now);
        let promises = &mut self.busy().promises;
        promises.expire(now);
        let is_late = promises.redeem_due(ask.caller, now);
        let told = match promises.shared(ask.caller) {
            Some(at) => at.max(self.turn_after(ask, bounds, cap, &[], 0, now)),
            None => {
                let (ahead, own) =
                    if is_late { (promises.ahead_of_late(ask.caller, now), 0) } else { promises.ahead_of(ask.caller) };
                let from = self.turn_after(ask, bounds, cap, &ahead, own as u32, now);
                let at = now.saturating_add(as_told(from.saturating_sub(now)));
                self.busy().promises.make(ask.caller, from, at);
                at
            }
        };
        let waiting = self.busy.as_ref().map_or(0, |busy| busy.queue.len());
        Refusal { why, limit, retry_after: Duration::from_nanos(as_told(told.saturating_sub(now))), waiting }
    }

    /// When a call has its turn: after those who wait and go before it, and after those who were told of these times, of whom
    /// so many are its caller's own.
    fn turn_after(&self, ask: LaneRequest, bounds: WaitLimits, cap: u32, told: &[u64], own_told: u32, now: u64) -> u64 {
        let LimitWindow { rate, window } = &self.requests;
        let Some(busy) = &self.busy else { return window.turn_after(*rate, cap, self.units(ask.tokens), 0, now) };
        if busy.share.is_some() {
            let (before, _) = busy.queue.ahead_of(ask.caller);
            let before = before.saturating_add(told.len() as u32);
            if let Some(turn) = self.shared_turn(self.units(ask.tokens), before, now) {
                return turn.max(told.last().copied().unwrap_or(0));
            }
        }
        // Of those who wait, no more will have a turn than there are turns within their time.
        let turns = f64::from(window.flow(*rate, cap)) * Duration::from_nanos(bounds.max_wait).as_secs_f64();
        let (before, own) = busy.queue.ahead_of(ask.caller);
        let [before, own] = [before, own].map(|waiting| waiting.min((turns.ceil() as u32).saturating_add(1)));
        let requests = window.turn_after_those(*rate, cap, self.units(ask.tokens), before, told, now);
        requests.max(busy.turn_after(ask, (before, told), own.saturating_add(own_told), now))
    }

    /// The limit whose next turn is the last to come.
    fn held_by(&self, ask: LaneRequest, cap: u32, now: u64) -> Held {
        let LimitWindow { rate, window } = &self.requests;
        let units = self.units(ask.tokens);
        let mut own = self.requests.held(self.by, cap, units);
        let mut opens_at = window.turn_after(*rate, cap, units, 0, now);
        if let Some(turn) = self.shared_turn(units, 0, now) {
            opens_at = turn;
            (own.left, own.is_open) = (self.shared_left(cap), self.has_turn(units, cap, now));
        }
        let Some(busy) = &self.busy else { return own };
        let rest = busy
            .limits(ask)
            .map(|(by, bound, units)| (bound.turn_after(units, 0, &[], now), bound.held(by, bound.rate.units, units)));
        let upstream = (busy.held_until, Held { by: By::Upstream, ..own });
        // Of two that open at once, the first is named.
        let last = |last: (u64, Held), next: (u64, Held)| if next.0 > last.0 { next } else { last };
        std::iter::once(upstream).filter(|(at, _)| *at > now).chain(rest).fold((opens_at, own), last).1
    }

    /// A waiter has left without its turn: what it is told.
    pub(super) fn refuse_waiter(&mut self, why: Why, ask: LaneRequest, bounds: WaitLimits, now: u64) -> Refusal {
        self.advance(now);
        self.refusal(why, ask, bounds, now)
    }

    /// How many callers are known.
    #[cfg(test)]
    pub(super) fn callers(&self) -> usize {
        self.busy.as_ref().and_then(|busy| busy.callers.as_ref()).map_or(0, SweptMap::len)
    }

    pub(super) fn standing(&mut self, now: u64) -> Standing {
        let cap = self.advance(now);
        let rate = self.requests.rate;
        let busy = self.busy.as_ref();
        Standing {
            slot: self.slot,
            limit: rate.units,
            left: if self.is_shared() {
                self.shared_left(cap)
            } else {
                cap.saturating_sub(self.requests.window.held(rate))
            },
            waiting: busy.map_or(0, |busy| busy.queue.len()),
            pace: busy.map_or(1.0, |busy| busy.pace.share(rate, now)),
        }
    }

    /// Nothing to remember.
    pub(super) fn is_idle(&mut self, now: u64) -> bool {
        let cap = self.advance(now);
        let (rate, window) = (self.requests.rate, self.requests.rate.nanos());
        self.requests.window.is_idle(cap)
            && self.busy.as_mut().is_none_or(|busy| {
                if let Some(callers) = &mut busy.callers {
                    callers.sweep(CALLER_LOOKS, |caller| caller.is_idle(now, window));
                }
                busy.is_idle(rate, now)
            })
    }
}
