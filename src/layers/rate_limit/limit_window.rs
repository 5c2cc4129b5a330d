//! A limit, and what was taken of it.

use super::refusal::{By, Held};
use super::window::{Rate, Taken, Window};

/// A limit of a model or a key, in requests or in tokens.
#[derive(Clone, Debug)]
pub(super) struct LimitWindow {
    pub(super) rate: Rate,
    pub(super) window: Window,
}

// === impl LimitWindow ===

impl LimitWindow {
    pub(super) fn new(rate: Rate, now: u64) -> Self {
        Self { rate, window: Window::new(rate, now) }
    }

    pub(super) fn advance(&mut self, now: u64) {
        self.window.advance(self.rate, self.rate.units, now);
    }

    pub(super) fn is_open(&self, units: u32) -> bool {
        self.window.is_open(self.rate, self.rate.units, units)
    }

    pub(super) fn opens_at(&self, units: u32, now: u64) -> u64 {
        self.window.opens_at(self.rate, self.rate.units, units, now)
    }

    /// When a call of so many units has its turn, where nobody else asks but so many like it, and then others at these times.
    pub(super) fn turn_after(&self, units: u32, before: u32, at: &[u64], now: u64) -> u64 {
        self.window.turn_after_those(self.rate, self.rate.units, units, before, at, now)
    }

    /// How it stands for a call that needs so many units, where upstream has room for `cap`.
    pub(super) fn held(&self, by: By, cap: u32, needed: u32) -> Held {
        Held {
            by,
            units: self.rate.units,
            per: self.rate.per(),
            cap,
            left: cap.saturating_sub(self.window.held(self.rate)),
            needed: needed.min(cap),
            is_open: self.window.is_open(self.rate, cap, needed),
        }
    }

    /// Another limit holds from now on. What was taken of the old one counts.
    pub(super) fn change(&mut self, rate: Rate, now: u64) {
        if self.rate != rate {
            self.window.change(self.rate, rate, now);
            self.rate = rate;
        }
    }

    pub(super) fn charge(&mut self, units: u32) -> Taken {
        self.window.charge(units.min(self.rate.units))
    }

    pub(super) fn is_idle(&mut self, now: u64) -> bool {
        self.advance(now);
        self.window.is_idle(self.rate.units)
    }

    /// Puts right what was taken by estimate.
    pub(super) fn correct(&mut self, taken: Taken, real: u32, now: u64) {
        self.advance(now);
        let real = real.min(self.rate.units);
        if real > taken.units() {
            self.window.charge(real - taken.units());
        } else {
            self.window.give_back(self.rate, taken.less(real));
        }
    }
}
