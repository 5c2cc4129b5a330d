//! A lane whose limit several gates share: what it tells the store, and what it makes of the answers.

use std::time::Duration;

use super::lane::Lane;
use super::limit_window::LimitWindow;
use super::pace::Pace;
use super::refusal::By;
use super::share::{Answered, Gate, Heard, MOST, Own, PARTS, Said, Share, Word, horizon_ms};

impl Lane {
    /// From here on the limit is shared.
    pub(super) fn share_by(&mut self, share: Share) {
        self.busy().share = Some(Box::new(share));
    }

    pub(super) fn is_shared(&self) -> bool {
        self.share().is_some()
    }

    fn share(&self) -> Option<&Share> {
        self.busy.as_ref()?.share.as_deref()
    }

    fn share_mut(&mut self) -> Option<&mut Share> {
        self.busy.as_mut()?.share.as_deref_mut()
    }

    /// There is a turn now, for one who needs so many units.
    pub(super) fn has_turn(&self, units: u32, cap: u32, now: u64) -> bool {
        let LimitWindow { rate, window } = &self.requests;
        match self.share().map(|share| (share, share.gate(now))) {
            None | Some((_, Gate::Alone)) => window.is_open(*rate, cap, units),
            Some((share, Gate::InHand)) => share.in_hand >= units,
            Some((_, Gate::Own(kept))) => window.held(*rate).saturating_add(units) <= kept.min(cap),
            Some((_, Gate::Shut)) => false,
        }
    }

    /// When there is a turn for one who needs so many units after so many others, where the store says so.
    pub(super) fn shared_turn(&self, units: u32, before: u32, now: u64) -> Option<u64> {
        let share = self.share()?;
        let LimitWindow { rate, window } = &self.requests;
        match share.gate(now) {
            Gate::Alone => None,
            Gate::InHand if share.in_hand >= before.saturating_add(1).saturating_mul(units) => Some(now),
            Gate::InHand | Gate::Shut => Some(share.turn_after(before.saturating_mul(units), now)),
            Gate::Own(kept) if kept < units => Some(share.opens_at(now)),
            Gate::Own(kept) => {
                let needed = before.saturating_add(1).saturating_mul(units).min(kept);
                Some(window.leaves_room(*rate, kept, needed, now))
            }
        }
    }

    /// What all gates together have left of it.
    pub(super) fn shared_left(&self, cap: u32) -> u32 {
        let (own, rate) = (&self.requests.window, self.requests.rate);
        let in_hand = self.share().map_or(0, |share| share.in_hand.saturating_add(share.elsewhere));
        cap.saturating_sub(own.held(rate)).saturating_sub(in_hand)
    }

    pub(super) fn take_share(&mut self, units: u32, now: u64) {
        if let Some(share) = self.share_mut() {
            let gate = share.gate(now);
            share.take(gate, units);
        }
    }

    /// A permit was not used.
    pub(super) fn keep_share(&mut self, units: u32, now: u64) {
        if let Some(share) = self.share_mut()
            && share.gate(now) == Gate::InHand
        {
            share.in_hand = share.in_hand.saturating_add(units);
        }
    }

    /// Calls wait, and nothing is in hand for them.
    pub(super) fn want_turn(&mut self, now: u64) {
        let first = self.first(now);
        let Some(busy) = &mut self.busy else { return };
        let Some(share) = &mut busy.share else { return };
        share.look();
        if first > share.in_hand && now >= busy.held_until {
            share.want_turn();
        }
    }

    /// What is to be told the store now.
    pub(super) fn word(&mut self, is_due: bool, now: u64) -> Said {
        self.advance(now);
        let own = self.own(now);
        match self.share_mut() {
            Some(share) => share.word(now, &own, is_due),
            None => Said::Nothing,
        }
    }

    /// Units that the next of those who wait needs; zero where nobody waits.
    fn first(&self, now: u64) -> u32 {
        let Some(busy) = self.busy.as_ref().filter(|busy| busy.share.is_some()) else { return 0 };
        if !self.counts_tokens() {
            return u32::from(!busy.queue.is_empty());
        }
        let next = busy.queue.next(now, self.requests.rate.nanos(), |_, _| true);
        next.map_or(0, |(_, tokens)| self.units(tokens))
    }

    fn own(&self, now: u64) -> Own {
        let LimitWindow { rate, window } = &self.requests;
        let window_ms = rate.nanos() / 1_000_000;
        let part = horizon_ms(window_ms) * 1_000_000 / PARTS as u64;
        let mut parts = [0; PARTS];
        window.leaving(*rate, |at, units| {
            let part = (at.saturating_sub(now) / part.max(1)) as usize;
            parts[part.min(PARTS - 1)] += units;
        });
        let busy = self.busy.as_ref();
        let waiting = busy.map_or(0, |busy| match self.counts_tokens() {
            true => busy.queue.waiters().fold(0_u32, |all, waiter| all.saturating_add(self.units(waiter.tokens))),
            false => busy.queue.len() as u32,
        });
        Own {
            limit: rate.units,
            window_ms,
            spacing: rate.nanos() / u64::from(rate.units),
            held: window.held(*rate),
            parts,
            waiting: waiting.min(rate.units),
            first: self.first(now),
            most: if self.counts_tokens() { rate.units / 16 } else { MOST },
            is_unpaced: self.by == By::KeyDoor,
            had: busy.map_or(0, |busy| busy.queue.least_had(now, rate.nanos())),
            hold: busy.map_or(0, |busy| busy.held_until.saturating_sub(now)),
        }
    }

    /// What came of a word. Says when the next is due.
    pub(super) fn heard(&mut self, word: &Word, answered: &Answered, now: u64) -> Option<u64> {
        let share = self.share_mut()?;
        share.heard(word, answered);
        if let Answered::Heard(heard) = answered {
            self.learn(heard, now);
        }
        self.dispatch(now);
        self.next_word(now)
    }

    /// What others found out of upstream.
    fn learn(&mut self, heard: &Heard, now: u64) {
        let held = Duration::from_millis(heard.hold_ms).as_nanos() as u64;
        let rate = self.requests.rate;
        let busy = self.busy();
        if held > 0 {
            busy.held_until = busy.held_until.max(now.saturating_add(held));
        }
        let told = heard.pace as f32 / 1e6;
        if told < busy.pace.share(rate, now) {
            busy.pace = Pace::told(told, now);
        }
    }

    pub(super) fn next_word(&self, now: u64) -> Option<u64> {
        let (share, busy) = (self.share()?, self.busy.as_ref()?);
        let LimitWindow { rate, window } = &self.requests;
        let mut leaves = None;
        window.leaving(*rate, |at, _| {
            leaves.get_or_insert(at);
        });
        let is_short = self.first(now) > share.in_hand && now >= busy.held_until;
        share.next_word(now, is_short, leaves, rate.nanos() / u64::from(rate.units))
    }

    /// The store went away, or is back.
    pub(super) fn look_again(&mut self, now: u64) -> bool {
        if !self.is_shared() {
            return false;
        }
        self.dispatch(now);
        if let Some(busy) = &self.busy {
            busy.queue.wake_driver();
        }
        true
    }
}
