//! What only a busy or a refused model needs: its pace, its queue, and what each of its callers had.

use super::limit_window::LimitWindow;
use super::pace::Pace;
use super::promises::Promises;
use super::queue::{Queue, RecentUse};
use super::refusal::By;
use super::request::{LaneRequest, Rates};
use super::share::Share;
use super::swept_map::SweptMap;
use super::window::Rate;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) pace: Pace,
    /// Upstream asked to be left alone until then.
    pub(super) held_until: u64,
    pub(super) tokens: Option<LimitWindow>,
    /// More than one caller has asked, or a key has limits of its own.
    pub(super) callers: Option<SweptMap<Caller>>,
    pub(super) has_key_limits: bool,
    pub(super) queue: Queue,
    pub(super) promises: Promises,
    /// Several gates share the limit.
    pub(super) share: Option<Box<Share>>,
}

/// One caller of the model: what it had, and the limits of its key.
#[derive(Debug, Default)]
pub(super) struct Caller {
    pub(super) had: RecentUse,
    pub(super) requests: Option<Box<LimitWindow>>,
    pub(super) tokens: Option<Box<LimitWindow>>,
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(own: Rates, now: u64) -> Self {
        let bound = |rate: Option<Rate>| rate.map(|rate| Box::new(LimitWindow::new(rate, now)));
        Self { had: RecentUse::default(), requests: bound(own.requests), tokens: bound(own.tokens) }
    }

    pub(super) fn bounds(&mut self) -> impl Iterator<Item = &mut LimitWindow> {
        self.requests.iter_mut().chain(&mut self.tokens).map(|bound| &mut **bound)
    }

    pub(super) fn is_open(&self, tokens: u32) -> bool {
        self.requests.as_ref().is_none_or(|bound| bound.is_open(1))
            && self.tokens.as_ref().is_none_or(|bound| bound.is_open(tokens))
    }

    pub(super) fn opens_at(&self, tokens: u32, now: u64) -> u64 {
        let requests = self.requests.as_ref().map_or(now, |bound| bound.opens_at(1, now));
        requests.max(self.tokens.as_ref().map_or(now, |bound| bound.opens_at(tokens, now)))
    }

    /// Its key's limits may have changed.
    pub(super) fn hold_to(&mut self, own: Rates, now: u64) {
        for (bound, rate) in [(&mut self.requests, own.requests), (&mut self.tokens, own.tokens)] {
            match (bound.as_mut(), rate) {
                (Some(bound), Some(rate)) => bound.change(rate, now),
                (None, None) => {}
                (_, rate) => *bound = rate.map(|rate| Box::new(LimitWindow::new(rate, now))),
            }
        }
    }

    pub(super) fn is_idle(&mut self, now: u64, window: u64) -> bool {
        self.had.at(now, window) < 0.01 && self.bounds().all(|bound| bound.is_idle(now))
    }
}

// === impl Busy ===

impl Busy {
    pub(super) fn new() -> Self {
        Self {
            pace: Pace::FULL,
            held_until: 0,
            tokens: None,
            callers: None,
            has_key_limits: false,
            queue: Queue::default(),
            promises: Promises::default(),
            share: None,
        }
    }

    pub(super) fn caller(&mut self, caller: u64) -> Option<&mut Caller> {
        self.callers.as_mut()?.get_mut(caller)
    }

    pub(super) fn caller_is_open(&self, caller: u64, tokens: u32) -> bool {
        let known = self.callers.as_ref().filter(|_| self.has_key_limits).and_then(|callers| callers.get(caller));
        known.is_none_or(|caller| caller.is_open(tokens))
    }

    pub(super) fn is_open(&self, caller: u64, tokens: u32, now: u64) -> bool {
        now >= self.held_until
            && self.tokens.as_ref().is_none_or(|bound| bound.is_open(tokens))
            && self.caller_is_open(caller, tokens)
    }

    /// The limits that hold a call besides the model's requests, and the units that it needs of each.
    pub(super) fn limits(&self, ask: LaneRequest) -> impl Iterator<Item = (By, &LimitWindow, u32)> {
        let own = self.callers.as_ref().and_then(|callers| callers.get(ask.caller));
        let tokens = self.tokens.iter().map(move |bound| (By::Tokens, bound, ask.tokens));
        let own_requests = own.and_then(|own| own.requests.as_deref()).map(|bound| (By::KeyRequests, bound, 1));
        let own_tokens = own.and_then(|own| own.tokens.as_deref()).map(|bound| (By::KeyTokens, bound, ask.tokens));
        tokens.chain(own_requests).chain(own_tokens)
    }

    /// When they have the call's turn, after so many calls of all callers and of its own, and after those at these times.
    pub(super) fn turn_after(&self, ask: LaneRequest, (before, at): (u32, &[u64]), own_before: u32, now: u64) -> u64 {
        let turn = |(by, bound, units): (By, &LimitWindow, u32)| match by {
            By::Tokens => bound.turn_after(units, before, at, now),
            _ => bound.turn_after(units, own_before, &[], now),
        };
        self.limits(ask).map(turn).fold(self.held_until, u64::max)
    }

    pub(super) fn opens_at(&self, caller: u64, tokens: u32, now: u64) -> u64 {
        let model = self.tokens.as_ref().map_or(now, |bound| bound.opens_at(tokens, now));
        let own = self.callers.as_ref().and_then(|callers| callers.get(caller));
        self.held_until.max(model).max(own.map_or(now, |own| own.opens_at(tokens, now)))
    }

    pub(super) fn advance_callers(&mut self, now: u64) {
        if !self.has_key_limits {
            return;
        }
        let Self { callers: Some(callers), queue, .. } = self else { return };
        for (caller, _) in queue.heads() {
            if let Some(caller) = callers.get_mut(caller) {
                caller.bounds().for_each(|bound| bound.advance(now));
            }
        }
    }

    pub(super) fn is_idle(&mut self, rate: Rate, now: u64) -> bool {
        self.promises.expire(now);
        self.queue.is_empty()
            && self.promises.is_empty()
            && now >= self.held_until
            && self.share.as_ref().is_none_or(|share| share.is_idle())
            && self.pace.share(rate, now) >= 1.0
            && self.tokens.as_mut().is_none_or(|bound| bound.is_idle(now))
            && self.callers.as_ref().is_none_or(|callers| callers.len() == 0)
    }
}
