//! One bucket of a budget: a balance behind a lock, and who is told of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::active::Active;
use super::balance::{Balance, Slot};
use super::elsewhere::Elsewhere;
use super::notice::{Notice, What};
use super::notified::Notified;
use super::status::BucketStatus;
use super::window::{Millis, Moment, time};
use crate::batches::Holding;
use crate::neurons::Neurons;

/// The spending of a budget, or of one value that it is split by.
pub struct Bucket {
    /// Ledger and store are handed the bucket itself.
    this: Weak<Self>,
    pub(super) rule: Arc<Active>,
    pub(super) name: Arc<str>,
    pub(super) balance: Mutex<Balance>,
    /// The ledger has it on its list.
    pub(super) is_listed: AtomicBool,
    /// Its register is to be told.
    pub(super) is_wanted: AtomicBool,
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(rule: Arc<Active>, name: &str) -> Arc<Self> {
        let elsewhere = rule.registers.as_ref().map(|_| Box::default());
        let balance = Mutex::new(Balance::new(elsewhere));
        let (is_listed, is_wanted) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new_cyclic(|this| Self { this: this.clone(), rule, name: name.into(), balance, is_listed, is_wanted })
    }

    /// The value that it counts: a JSON array, or empty for a budget that is not split.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its balance at a moment.
    pub(super) fn lock(&self, now: Moment) -> MutexGuard<'_, Balance> {
        let mut balance = self.balance.lock();
        balance.roll(&self.rule, now);
        balance
    }

    /// As a batch that is held here names it.
    pub(super) fn holding(&self, start: Millis) -> Holding {
        Holding { budget: self.rule.ledger_name.to_string(), bucket: self.name.to_string(), start_ms: start }
    }

    /// Reserves again what an earlier run held, which its books tell as spent.
    pub(super) fn hold_again(&self, start: Millis, needed: Neurons, now: Moment) -> bool {
        let mut balance = self.lock(now);
        let Some(slot) = balance.slot(start) else { return false };
        slot.spent = slot.spent.saturating_sub(needed);
        slot.reserved += needed;
        balance.sum_up();
        true
    }

    /// Moves a reservation to what was spent. Where its window is over it is no matter any more.
    pub(super) fn settle(&self, start: Millis, reserved: Neurons, cost: Neurons) {
        let mut balance = self.balance.lock();
        let Some(slot) = balance.slot(start) else { return };
        slot.reserved = slot.reserved.saturating_sub(reserved);
        slot.spent += cost;
        balance.sum_up();
        balance.wake_next();
        self.list(&balance);
        let notice = self.warning(&mut balance);
        drop(balance);
        self.rule.tell(notice);
    }

    /// What is to be told of a bucket that has spent more than before.
    fn warning(&self, balance: &mut Balance) -> Option<Notice> {
        let (counted, limit) = (balance.counted(), balance.limit);
        if self.rule.rule.warn_at.is_empty() && (counted < limit || self.rule.is_told_nothing()) {
            return None;
        }
        let start = balance.slots.back()?.span.start;
        let what = balance.notified.of_spending(&self.rule, start, counted, limit)?;
        Some(self.notice(balance, what))
    }

    /// It has no room for a call.
    pub(super) fn note_full(&self) {
        let mut balance = self.balance.lock();
        let Some(start) = balance.slots.back().map(|slot| slot.span.start) else { return };
        if balance.notified.of_refusal(&self.rule, start) {
            let notice = self.notice(&balance, What::Exceeded);
            drop(balance);
            self.rule.tell(Some(notice));
        }
    }

    pub(super) fn notice(&self, balance: &Balance, what: What) -> Notice {
        Notice {
            budget: self.rule.rule.name.clone(),
            bucket: self.name.to_string(),
            what,
            limit: balance.limit,
            spent: balance.counted(),
            currency: self.rule.rule.limit.currency,
            resets_at: time(balance.next_relief()),
        }
    }

    /// More than its rule's limit, or no more of that.
    pub(super) fn raise(&self, to: Neurons, until: Millis) {
        let mut balance = self.lock(self.rule.now());
        balance.raised.set(to, until);
        balance.roll(&self.rule, self.rule.now());
        balance.wake_next();
        self.list(&balance);
    }

    /// Its limit may be another: those who wait look again, and so does the ledger.
    pub(super) fn look_again(&self, now: Moment) {
        let mut balance = self.lock(now);
        balance.is_released = false;
        balance.wake_next();
        self.list(&balance);
    }

    pub(super) fn status(&self, now: Moment) -> BucketStatus {
        let balance = self.lock(now);
        let (spent, reserved) = (balance.counted(), balance.reserved);
        BucketStatus { bucket: self.name.clone(), limit: balance.limit, spent, reserved }
    }

    /// What is spent of what counts now is spent no more. Says how much that was.
    pub(super) fn reset(&self) -> Neurons {
        let mut balance = self.lock(self.rule.now());
        let spent = balance.spent;
        balance.slots.iter_mut().for_each(|slot| slot.spent = Neurons::ZERO);
        balance.notified = Notified::default();
        balance.sum_up();
        balance.wake_next();
        self.list(&balance);
        spent
    }

    /// Has the ledger look at it, if a lease is low or too high.
    pub(super) fn list(&self, balance: &Balance) {
        self.want(balance);
        let Some(ledger) = &self.rule.ledger else { return };
        if balance.needs_writing()
            && !self.is_listed.swap(true, Ordering::AcqRel)
            && let Some(bucket) = self.this.upgrade()
        {
            ledger.renew(bucket);
        }
    }

    /// Has its leases lowered to what is spent, before the ledger is closed.
    pub(super) fn release(&self) {
        let mut balance = self.balance.lock();
        balance.is_released = true;
        self.want(&balance);
        drop(balance);
        if let Some(ledger) = &self.rule.ledger {
            self.is_listed.store(true, Ordering::Release);
            if let Some(bucket) = self.this.upgrade() {
                ledger.renew(bucket);
            }
        }
    }

    /// Has its register told, if it is low or too high.
    pub(super) fn want(&self, balance: &Balance) {
        let Some(registers) = &self.rule.registers else { return };
        let may_ask = balance
            .elsewhere
            .as_ref()
            .is_some_and(|it| !(it.is_asking || it.is_lost() || it.is_short && it.is_fresh()));
        if may_ask
            && balance.needs_grant()
            && !self.is_wanted.swap(true, Ordering::AcqRel)
            && let Some(bucket) = self.this.upgrade()
        {
            registers.want(bucket);
        }
    }

    /// A call is refused for what others have: they may have less by now.
    pub(super) fn want_news(&self, balance: &Balance) {
        let Some(registers) = &self.rule.registers else { return };
        let is_old = |it: &Elsewhere| !(it.is_asking || it.is_lost() || it.is_fresh());
        if balance.elsewhere.as_ref().is_some_and(|elsewhere| is_old(elsewhere))
            && !self.is_wanted.swap(true, Ordering::AcqRel)
            && let Some(bucket) = self.this.upgrade()
        {
            registers.want(bucket);
        }
    }

    /// The vendor's books had `booked` when `spent` was spent here, in the window that began at `start`; or at least that
    /// much. Says how much more that makes than was known.
    pub(super) fn book(&self, start: Millis, booked: Neurons, spent: Neurons, at_least: bool) -> Neurons {
        let mut balance = self.lock(self.rule.now());
        let before = balance.counted();
        let Some(slot) = balance.slots.back_mut().filter(|slot| slot.span.start == start) else { return Neurons::ZERO };
        let micro = |neurons: Neurons| i64::try_from(neurons.micro()).unwrap_or(i64::MAX);
        let beyond = micro(booked) - micro(spent);
        slot.beyond = if at_least { beyond.max(slot.beyond) } else { beyond };
        balance.wake_next();
        let more = balance.counted().saturating_sub(before);
        let notice = self.warning(&mut balance);
        drop(balance);
        self.rule.tell(notice);
        more
    }

    /// Leaves a queue, and lets the next one have a look.
    pub(super) fn leave(&self, ticket: u64) {
        self.balance.lock().leave(ticket);
    }

    /// Out of use: nothing spent in any window that counts or may count again, nothing reserved, nobody waiting. Where the
    /// table `is_full`, what does not count now is let go of.
    pub(super) fn retire_if_idle(&self, now: Moment, is_full: bool) -> bool {
        // A bucket whose lock is held is in use.
        let Some(mut balance) = self.balance.try_lock() else { return false };
        balance.roll(&self.rule, now);
        balance.aside.retain(|slot| slot.over_at > now.steady);
        let is_unused = |slot: &Slot| slot.used().is_zero() && slot.beyond == 0 && slot.granted.is_zero();
        balance.retired = balance.queue_length() == 0
            && !balance.raised.is_in_force(now.wall)
            && balance.slots.iter().all(is_unused)
            && balance.aside.iter().all(|slot| is_unused(slot) || is_full && slot.reserved.is_zero());
        balance.retired
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let balance = self.balance.lock();
        write!(
            f,
            "Bucket({} {}: {} spent, {} reserved)",
            self.rule.rule.name, self.name, balance.spent, balance.reserved
        )
    }
}
