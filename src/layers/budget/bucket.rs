//! What one bucket of a budget has spent, reserved and leased.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::active::Active;
use super::ledger::Lease;
use super::notice::{Notice, Told};
use super::raise::{BucketStatus, Raised};
use super::register::Elsewhere;
use super::window::{Millis, Moment, Span};
use crate::batches::Holding;
use crate::neurons::Neurons;

/// The spending of a budget, or of one value that it is split by.
pub struct Bucket {
    pub(super) rule: Arc<Active>,
    name: Arc<str>,
    state: Mutex<State>,
    /// The ledger has it on its list.
    is_listed: AtomicBool,
    /// Its register is to be told.
    pub(super) is_wanted: AtomicBool,
}

/// What a bucket's lock guards.
#[derive(Default)]
pub(super) struct State {
    /// What counts now, oldest first; reservations are made in the last. An aligned window has one.
    pub(super) slots: VecDeque<Slot>,
    /// What does not count now, and will again if the wall clock is set back, or forth.
    aside: Vec<Slot>,
    /// What may be spent, at the moment that it was last looked at.
    pub(super) limit: Neurons,
    /// Of this bucket alone.
    raised: Raised,
    /// What was told of this window.
    told: Told,
    /// Of all slots that count.
    pub(super) spent: Neurons,
    pub(super) reserved: Neurons,
    /// By ticket: who came first is served first.
    queue: BTreeMap<u64, Waiter>,
    /// What all who wait need.
    pub(super) wanted: Neurons,
    /// No more will be spent, so no lease runs ahead.
    pub(super) is_released: bool,
    /// Since when the ledger cannot write.
    pub(super) unwritten_since: Option<Instant>,
    /// What other gates have of it, where they share it.
    pub(super) elsewhere: Option<Box<Elsewhere>>,
    /// It has left the table: whoever still found it looks again.
    pub(super) retired: bool,
}

pub(super) struct Slot {
    pub(super) span: Span,
    pub(super) spent: Neurons,
    reserved: Neurons,
    /// Spending up to this is on the books.
    covered: Neurons,
    /// Spending up to this is in the register that gates share.
    pub(super) granted: Neurons,
    /// What the vendor's books have beyond what is spent here, or what they have less. In micro-neurons.
    beyond: i64,
    /// When it will be over by the steady clock, and can count no more wherever the wall clock is set to.
    over_at: Millis,
}

struct Waiter {
    needed: Neurons,
    notify: Arc<Notify>,
}

/// Whether a bucket has room for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Room,
    /// Not before the lease is renewed, or those are served who wait for that.
    Lease,
    /// Not before others settle.
    Settling,
    /// Not before the ledger can write again.
    Unwritten,
    /// Not in this window.
    Full,
}

/// A lease runs ahead by this part of the limit.
const LEAD: u64 = 100;
/// The ledger is waited for no longer than this; then calls that no lease covers are refused until it can write.
pub(super) const LEDGER_WAIT: Duration = Duration::from_secs(2);
/// A wall clock that is behind by less is not set back: others have read it between.
const JITTER: Millis = 500;
/// How long a window that is over is remembered, for a wall clock that is set back just then.
const GRACE: Millis = 60_000;
/// More windows than a wall clock that is set forth and back comes to in one of them.
const MAX_ASIDE: usize = 128;

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(rule: Arc<Active>, name: &str) -> Self {
        let elsewhere = rule.registers.as_ref().map(|_| Box::default());
        let state = Mutex::new(State { elsewhere, ..State::default() });
        let (is_listed, is_wanted) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { rule, name: name.into(), state, is_listed, is_wanted }
    }

    /// The value that it counts: a JSON array, or empty for a budget that is not split.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn name_shared(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Its state at a moment.
    pub(super) fn lock(&self, now: Moment) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.roll(&self.rule, now);
        state
    }

    /// Takes up what the books have; a lease that nobody settled counts as spent. Says how much that is, where it counts now.
    pub(super) fn restore(&self, lease: &Lease, now: Moment) -> Neurons {
        let mut state = self.lock(now);
        let span = self.rule.windows.span(lease.start_ms);
        if span.start != lease.start_ms {
            return Neurons::ZERO;
        }
        let spent = lease.upto.max(lease.spent);
        state.restored_from_books();
        if let Some(slot) = state.slot(span.start) {
            // The window that is now, made when the bucket was locked.
            (slot.spent, slot.covered) = (slot.spent.max(spent), spent);
            state.sum_up();
        } else {
            let over_at = now.steady + (span.expires - span.start) + GRACE;
            state.aside.push(Slot { spent, covered: spent, over_at, ..Slot::new(span) });
            state.turn(&self.rule, now);
        }
        let counts = state.slots.iter().any(|slot| slot.span.start == span.start);
        if counts { spent.saturating_sub(lease.spent) } else { Neurons::ZERO }
    }

    /// As a batch that is held here names it.
    pub(super) fn holding(&self, start: Millis) -> Holding {
        Holding { budget: self.rule.ledger_name.to_string(), bucket: self.name.to_string(), start_ms: start }
    }

    /// Reserves again what an earlier run held, which its books tell as spent.
    pub(super) fn hold_again(self: &Arc<Self>, start: Millis, needed: Neurons, now: Moment) -> bool {
        let mut state = self.lock(now);
        let Some(slot) = state.slot(start) else { return false };
        slot.spent = slot.spent.saturating_sub(needed);
        slot.reserved += needed;
        state.sum_up();
        true
    }

    /// Moves a reservation to what was spent. Where its window is over it is no matter any more.
    pub(super) fn settle(self: &Arc<Self>, start: Millis, reserved: Neurons, cost: Neurons) {
        let mut state = self.state.lock();
        let Some(slot) = state.slot(start) else { return };
        slot.reserved = slot.reserved.saturating_sub(reserved);
        slot.spent += cost;
        state.sum_up();
        state.wake_next();
        self.list(&state);
        let notice = self.warning(&mut state);
        drop(state);
        self.rule.tell(notice);
    }

    /// What is to be told of a bucket that has spent more than before.
    fn warning(&self, state: &mut State) -> Option<Notice> {
        let (counted, limit) = (state.counted(), state.limit);
        if self.rule.rule.warn_at.is_empty() && (counted < limit || self.rule.is_told_nothing()) {
            return None;
        }
        let start = state.slots.back()?.span.start;
        let what = state.told.of_spending(&self.rule, start, counted, limit)?;
        Some(self.notice(state, what))
    }

    /// It has no room for a call.
    pub(super) fn note_full(&self) {
        let mut state = self.state.lock();
        let Some(start) = state.slots.back().map(|slot| slot.span.start) else { return };
        if state.told.of_refusal(&self.rule, start) {
            let notice = self.notice(&state, super::notice::What::Exceeded);
            drop(state);
            self.rule.tell(Some(notice));
        }
    }

    pub(super) fn notice(&self, state: &State, what: super::notice::What) -> Notice {
        Notice {
            budget: self.rule.rule.name.clone(),
            bucket: self.name.to_string(),
            what,
            limit: state.limit,
            spent: state.counted(),
            resets_at: super::window::time(state.next_relief()),
        }
    }

    /// More than its rule's limit, or no more of that.
    pub(super) fn raise(self: &Arc<Self>, to: Neurons, until: Millis) {
        let mut state = self.lock(self.rule.now());
        state.raised.set(to, until);
        state.roll(&self.rule, self.rule.now());
        state.wake_next();
        self.list(&state);
    }

    /// Its limit may be another: those who wait look again, and so does the ledger.
    pub(super) fn look_again(self: &Arc<Self>, now: Moment) {
        let mut state = self.lock(now);
        state.is_released = false;
        state.wake_next();
        self.list(&state);
    }

    pub(super) fn status(&self, now: Moment) -> BucketStatus {
        let state = self.lock(now);
        let (spent, reserved) = (state.counted(), state.reserved);
        BucketStatus { bucket: self.name.clone(), limit: state.limit, spent, reserved }
    }

    /// What is spent of what counts now is spent no more. Says how much that was.
    pub(super) fn reset(self: &Arc<Self>) -> Neurons {
        let mut state = self.lock(self.rule.now());
        let spent = state.spent;
        state.slots.iter_mut().for_each(|slot| slot.spent = Neurons::ZERO);
        state.told = Told::default();
        state.sum_up();
        state.wake_next();
        self.list(&state);
        spent
    }

    /// Has the ledger look at it, if a lease is low or too high.
    pub(super) fn list(self: &Arc<Self>, state: &State) {
        self.want(state);
        let Some(ledger) = &self.rule.ledger else { return };
        if state.needs_writing() && !self.is_listed.swap(true, Ordering::AcqRel) {
            ledger.renew(self.clone());
        }
    }

    /// Has its leases lowered to what is spent, before the ledger is closed.
    pub(super) fn release(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.is_released = true;
        self.want(&state);
        drop(state);
        if let Some(ledger) = &self.rule.ledger {
            self.is_listed.store(true, Ordering::Release);
            ledger.renew(self.clone());
        }
    }

    /// For the [`Ledger`](super::Ledger), from one thread at a time: what to write now. When the process `is_closing`, that is what was
    /// spent, and no lead.
    pub fn leases(&self, is_closing: bool) -> Vec<Lease> {
        self.is_listed.store(false, Ordering::Release);
        let mut state = self.lock(self.rule.now());
        let current = state.slots.back().map(|slot| slot.span.start);
        let lead = if is_closing { Neurons::ZERO } else { state.wanted_lead() };
        let mut leases = Vec::new();
        let State { slots, aside, .. } = &mut *state;
        // What the books have too much of a window that is over is of no matter while the process lives.
        let aside = aside.iter_mut().filter(|slot| is_closing || slot.used() > slot.covered);
        for slot in slots.iter_mut().chain(aside) {
            let upto = slot.used() + if Some(slot.span.start) == current { lead } else { Neurons::ZERO };
            if slot.covered == upto {
                continue;
            }
            // A lease is lowered here before it is lowered there, and raised there before it is raised here.
            slot.covered = slot.covered.min(upto);
            leases.push(Lease {
                budget: self.rule.ledger_name.clone(),
                bucket: self.name.clone(),
                start_ms: slot.span.start,
                expires_ms: slot.span.expires,
                spent: slot.spent,
                upto,
            });
        }
        leases
    }

    /// For the [`Ledger`](super::Ledger): these are on the books.
    pub fn written<'a>(self: &Arc<Self>, leases: impl IntoIterator<Item = &'a Lease>) {
        let mut state = self.state.lock();
        state.unwritten_since = None;
        for lease in leases {
            if let Some(slot) = state.slot(lease.start_ms) {
                slot.covered = lease.upto;
            }
        }
        state.wake_next();
        self.list(&state);
    }

    /// For the [`Ledger`](super::Ledger): the books cannot be written. They have at least what the last lease covers, and no more is spent
    /// until they can.
    pub fn unwritten(&self) {
        let mut state = self.state.lock();
        state.unwritten_since.get_or_insert_with(Instant::now);
        state.wake_next();
    }

    /// The vendor's books had `booked` when `spent` was spent here, in the window that began at `start`; or at least that
    /// much. Says how much more that makes than was known.
    pub(super) fn book(&self, start: Millis, booked: Neurons, spent: Neurons, at_least: bool) -> Neurons {
        let mut state = self.lock(self.rule.now());
        let before = state.counted();
        let Some(slot) = state.slots.back_mut().filter(|slot| slot.span.start == start) else { return Neurons::ZERO };
        let micro = |neurons: Neurons| i64::try_from(neurons.micro()).unwrap_or(i64::MAX);
        let beyond = micro(booked) - micro(spent);
        slot.beyond = if at_least { beyond.max(slot.beyond) } else { beyond };
        state.wake_next();
        let more = state.counted().saturating_sub(before);
        let notice = self.warning(&mut state);
        drop(state);
        self.rule.tell(notice);
        more
    }

    /// Leaves a queue, and lets the next one have a look.
    pub(super) fn leave(&self, ticket: u64) {
        self.state.lock().leave(ticket);
    }

    /// Out of use: nothing spent in any window that counts or may count again, nothing reserved, nobody waiting. Where the
    /// table `is_full`, what does not count now is let go of.
    pub(super) fn retire_if_idle(&self, now: Moment, is_full: bool) -> bool {
        // A bucket whose lock is held is in use.
        let Some(mut state) = self.state.try_lock() else { return false };
        state.roll(&self.rule, now);
        state.aside.retain(|slot| slot.over_at > now.steady);
        let is_unused = |slot: &Slot| slot.used().is_zero() && slot.beyond == 0 && slot.granted.is_zero();
        state.retired = state.queue.is_empty()
            && !state.raised.is_in_force(now.wall)
            && state.slots.iter().all(is_unused)
            && state.aside.iter().all(|slot| is_unused(slot) || is_full && slot.reserved.is_zero());
        state.retired
    }
}

/// Reserves in all of these, at once and without waiting, or in none. They are locked in their order, which is the rules'.
/// Gives the window of each.
pub(super) fn reserve_in_all<'a>(
    buckets: impl Iterator<Item = &'a Arc<Bucket>> + Clone,
    needed: Neurons,
) -> Option<Vec<Millis>> {
    let mut states: Vec<_> = buckets.clone().map(|bucket| bucket.lock(bucket.rule.now())).collect();
    let has_room = |(bucket, state): (&Arc<Bucket>, &MutexGuard<'_, State>)| {
        !state.retired && state.verdict(&bucket.rule, needed, u64::MAX, false) == Verdict::Room
    };
    if !buckets.clone().zip(&states).all(has_room) {
        return None;
    }
    let starts = states.iter_mut().map(|state| state.reserve(needed)).collect();
    buckets.zip(&states).for_each(|(bucket, state)| bucket.list(state));
    Some(starts)
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        write!(f, "Bucket({} {}: {} spent, {} reserved)", self.rule.rule.name, self.name, state.spent, state.reserved)
    }
}

// === impl State ===

impl State {
    /// Counts what counts at this moment.
    fn roll(&mut self, rule: &Active, now: Moment) {
        self.limit = self.raised.at_least(rule.raised.at_least(rule.limit(), now.wall), now.wall);
        let is_current = |slot: &&mut Slot| slot.span.start <= now.wall + JITTER && now.wall < slot.span.end;
        match self.slots.back_mut().filter(is_current) {
            Some(slot) => slot.is_now(now),
            None => self.turn(rule, now),
        }
    }

    /// Sorts all slots by whether they count in the window that the wall clock tells. Those that do not, because it is over or
    /// begins in the future, are kept aside until they are over by the steady clock too: the wall clock may have been set, and
    /// may be set again.
    fn turn(&mut self, rule: &Active, now: Moment) {
        let span = rule.windows.span(now.wall);
        let counts = |slot: &Slot| slot.span.start <= span.start && span.start < slot.span.expires;
        let all = self.slots.drain(..).chain(self.aside.drain(..));
        let (mut counting, mut aside): (Vec<_>, Vec<_>) = all.partition(counts);
        counting.sort_unstable_by_key(|slot| slot.span.start);
        if counting.last().is_none_or(|last| last.span.start != span.start) {
            counting.push(Slot::new(span));
        }
        aside.retain(|slot| slot.over_at > now.steady);
        aside.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.over_at));
        aside.truncate(MAX_ASIDE);
        if let Some(future) = aside.iter().find(|slot| slot.span.start > span.start && !slot.used().is_zero()) {
            rule.tell_future(future.span, now);
        }
        (self.slots, self.aside) = (counting.into(), aside);
        if let Some(slot) = self.slots.back_mut() {
            slot.is_now(now);
        }
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.spent = self.slots.iter().map(|slot| slot.spent).sum();
        self.reserved = self.slots.iter().map(|slot| slot.reserved).sum();
    }

    /// The slot that begins then, whether it counts now or not.
    pub(super) fn slot(&mut self, start: Millis) -> Option<&mut Slot> {
        self.slots.iter_mut().rev().chain(&mut self.aside).find(|slot| slot.span.start == start)
    }

    /// What is spent, as far as anyone knows.
    pub(super) fn counted(&self) -> Neurons {
        let beyond = self.slots.back().map_or(0, |slot| slot.beyond);
        let size = Neurons::from_micro(beyond.unsigned_abs());
        let spent = self.spent + self.spent_elsewhere();
        if beyond < 0 { spent.saturating_sub(size) } else { spent + size }
    }

    pub(super) fn used(&self) -> Neurons {
        self.counted() + self.reserved + self.reserved_elsewhere()
    }

    pub(super) fn left(&self) -> Neurons {
        self.limit.saturating_sub(self.used())
    }

    /// What is left beyond what those need who wait.
    pub(super) fn room(&self, rule: &Active) -> Neurons {
        if rule.only_counts() {
            return Neurons::from_micro(u64::MAX);
        }
        self.left().saturating_sub(self.wanted)
    }

    /// `ticket` is the caller's place in the queue, which one that stands `in_line` keeps to.
    pub(super) fn verdict(&self, rule: &Active, needed: Neurons, ticket: u64, in_line: bool) -> Verdict {
        let limit = self.limit;
        if rule.only_counts() {
            return Verdict::Room;
        }
        // What has no price is not known to fit, so it must not find the budget used up.
        if self.counted() + needed > limit || needed.is_zero() && self.counted() >= limit {
            return Verdict::Full;
        }
        // It takes nothing from those who wait, and a batch's answers free what they may be waiting for.
        if needed.is_zero() {
            return Verdict::Room;
        }
        let (is_behind, ahead) = self.ahead(ticket);
        if self.used() + ahead + needed > limit {
            return Verdict::Settling;
        }
        let is_over = |slot: &Slot| {
            let used = slot.used() + needed;
            rule.ledger.is_some() && used > slot.covered || self.elsewhere.is_some() && used > slot.granted
        };
        let is_kept = rule.ledger.is_some() || self.elsewhere.is_some();
        let is_short = is_kept && self.slots.back().is_none_or(is_over);
        let is_hopeless = || self.unwritten_since.is_some_and(|since| since.elapsed() >= LEDGER_WAIT);
        match is_short {
            true if is_hopeless() => Verdict::Unwritten,
            false if !(is_behind && in_line) => Verdict::Room,
            _ => Verdict::Lease,
        }
    }

    /// Whether others were here before, and what they need.
    fn ahead(&self, ticket: u64) -> (bool, Neurons) {
        if self.queue.last_key_value().is_none_or(|(last, _)| *last < ticket) {
            return (!self.queue.is_empty(), self.wanted);
        }
        let mut before = self.queue.range(..ticket).map(|(_, waiter)| waiter.needed).peekable();
        (before.peek().is_some(), before.sum())
    }

    /// Says in which window.
    pub(super) fn reserve(&mut self, needed: Neurons) -> Millis {
        self.reserved += needed;
        self.slots.back_mut().map_or(0, |slot| {
            slot.reserved += needed;
            slot.span.start
        })
    }

    pub(super) fn queue_length(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn wait(&mut self, ticket: u64, needed: Neurons, notify: Arc<Notify>) {
        let old = self.queue.insert(ticket, Waiter { needed, notify });
        self.wanted = (self.wanted + needed).saturating_sub(old.map_or(Neurons::ZERO, |old| old.needed));
    }

    pub(super) fn leave(&mut self, ticket: u64) {
        if let Some(waiter) = self.queue.remove(&ticket) {
            self.wanted = self.wanted.saturating_sub(waiter.needed);
            self.wake_next();
        }
    }

    pub(super) fn wake_next(&self) {
        if let Some((_, waiter)) = self.queue.first_key_value() {
            waiter.notify.notify_one();
        }
    }

    /// When the oldest of what counts will count no more.
    pub(super) fn next_relief(&self) -> Millis {
        self.slots.front().map_or(0, |slot| slot.span.expires)
    }

    /// When the oldest of what was spent counts no more.
    pub(super) fn oldest_expires(&self) -> Option<Millis> {
        self.slots.iter().find(|slot| !slot.used().is_zero()).map(|slot| slot.span.expires)
    }

    /// When so much will be free, if it ever is.
    pub(super) fn free_at(&self, needed: Neurons) -> Option<Millis> {
        let mut spent = self.spent + self.spent_elsewhere();
        for slot in &self.slots {
            spent = spent.saturating_sub(slot.spent);
            if spent + needed <= self.limit {
                return Some(slot.span.expires);
            }
        }
        None
    }

    /// How far the lease should be ahead of what is used.
    fn wanted_lead(&self) -> Neurons {
        if self.is_released {
            return Neurons::ZERO;
        }
        let lead = Neurons::from_micro((self.limit.micro() / LEAD).max(1));
        let lead = (self.wanted + lead).min(self.left());
        match (self.slots.back(), &self.elsewhere) {
            (Some(slot), Some(_)) => lead.min(slot.granted.saturating_sub(slot.used())),
            _ => lead,
        }
    }

    fn needs_writing(&self) -> bool {
        let Some(last) = self.slots.back() else { return false };
        let (wanted, lead) = (self.wanted_lead(), last.covered.saturating_sub(last.used()));
        let half = Neurons::from_micro(wanted.micro().div_ceil(2));
        let is_waited_for = !self.queue.is_empty() && lead < wanted;
        lead < half
            || lead > wanted + half
            || is_waited_for
            || last.used() > last.covered
            || self.slots.iter().rev().skip(1).any(|slot| slot.covered != slot.used())
            || self.aside.iter().any(|slot| slot.used() > slot.covered)
    }
}

// === impl Slot ===

impl Slot {
    fn new(span: Span) -> Self {
        let nothing = Neurons::ZERO;
        Self { span, spent: nothing, reserved: nothing, covered: nothing, granted: nothing, beyond: 0, over_at: 0 }
    }

    /// It is the window of this moment, so it lasts for the rest of that from here on.
    fn is_now(&mut self, now: Moment) {
        let over_at = now.steady + self.span.expires.saturating_sub(now.wall) + GRACE;
        self.over_at = self.over_at.max(over_at);
    }

    pub(super) fn used(&self) -> Neurons {
        self.spent + self.reserved
    }
}
