//! What one bucket of a budget has spent, reserved and leased.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::ledger::{Lease, Ledger};
use super::pace::Pace;
use super::rule::{OnExceeded, Rule};
use super::window::{Clock, Millis, Span, millis};
use crate::neurons::Neurons;

/// The spending of a budget, or of one value that it is split by.
pub struct Bucket {
    pub(super) rule: Arc<Active>,
    name: Arc<str>,
    state: Mutex<State>,
    /// The ledger has it on its list.
    is_listed: AtomicBool,
}

/// A rule at work.
pub(super) struct Active {
    pub(super) rule: Arc<Rule>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    /// The rule's name there.
    pub(super) ledger_name: Arc<str>,
    pub(super) rejected: AtomicU64,
    pub(super) pace: Mutex<Pace>,
}

/// What a bucket's lock guards.
#[derive(Default)]
pub(super) struct State {
    /// Oldest first; reservations are made in the last. An aligned window has one.
    slots: VecDeque<Slot>,
    /// Of all slots.
    pub(super) spent: Neurons,
    /// What the vendor's books have beyond what is spent here, or what they have less, in this window. In micro-neurons.
    beyond: i64,
    pub(super) reserved: Neurons,
    /// By ticket: who came first is served first.
    queue: BTreeMap<u64, Waiter>,
    /// What all who wait need.
    wanted: Neurons,
    /// The ledger cannot write: calls go on without a lease.
    uncovered: bool,
    /// It has left the table: whoever still found it looks again.
    pub(super) retired: bool,
}

struct Slot {
    span: Span,
    spent: Neurons,
    reserved: Neurons,
    /// Spending up to this is on the books.
    covered: Neurons,
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
    /// Not in this window.
    Full,
}

/// A lease runs ahead by this part of the limit.
const LEAD: u64 = 100;

// === impl Active ===

impl Active {
    pub(super) fn now(&self) -> Millis {
        millis(self.clock.now())
    }

    fn only_counts(&self) -> bool {
        self.rule.on_exceeded == OnExceeded::Allow
    }

    fn lead(&self) -> Neurons {
        Neurons::from_micro((self.rule.limit.micro() / LEAD).max(1))
    }
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(rule: Arc<Active>, name: &str) -> Self {
        Self { rule, name: name.into(), state: Mutex::default(), is_listed: AtomicBool::new(false) }
    }

    /// The value that it counts: a JSON array, or empty for a budget that is not split.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state at a moment.
    pub(super) fn lock(&self, now: Millis) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.roll(&self.rule.rule, now);
        state
    }

    /// Takes up what the books have; a lease that nobody settled counts as spent. Says how much that is.
    pub(super) fn restore(&self, lease: &Lease, now: Millis) -> Neurons {
        let mut state = self.state.lock();
        let span = self.rule.rule.window.span(lease.start_ms, self.rule.rule.sliding);
        if span.start != lease.start_ms || span.expires <= now || state.slots.iter().any(|s| s.span.start >= span.start)
        {
            return Neurons::ZERO;
        }
        let spent = lease.upto.max(lease.spent);
        state.slots.push_back(Slot { span, spent, reserved: Neurons::ZERO, covered: spent });
        state.spent += spent;
        spent.saturating_sub(lease.spent)
    }

    /// Moves a reservation to what was spent. Where its window is over it is no matter any more.
    pub(super) fn settle(self: &Arc<Self>, start: Millis, reserved: Neurons, cost: Neurons) {
        let mut state = self.state.lock();
        let Some(slot) = state.slots.iter_mut().rev().find(|slot| slot.span.start == start) else { return };
        slot.reserved = slot.reserved.saturating_sub(reserved);
        slot.spent += cost;
        state.reserved = state.reserved.saturating_sub(reserved);
        state.spent += cost;
        state.wake_next();
        self.list(&state);
    }

    /// Has the ledger look at it, if a lease is low or too high.
    pub(super) fn list(self: &Arc<Self>, state: &State) {
        let Some(ledger) = &self.rule.ledger else { return };
        if state.needs_writing(&self.rule) && !self.is_listed.swap(true, Ordering::AcqRel) {
            ledger.renew(self.clone());
        }
    }

    /// Has the ledger look at it in any case.
    pub(super) fn list_always(self: &Arc<Self>) {
        if let Some(ledger) = &self.rule.ledger {
            self.is_listed.store(true, Ordering::Release);
            ledger.renew(self.clone());
        }
    }

    /// For the [`Ledger`], from one thread at a time: what to write now. When the process `is_closing`, that is what was
    /// spent, and no lead.
    pub fn leases(&self, is_closing: bool) -> Vec<Lease> {
        self.is_listed.store(false, Ordering::Release);
        let mut state = self.lock(self.rule.now());
        let last = state.slots.len().saturating_sub(1);
        let target = |(n, slot): (usize, &Slot)| {
            let lead = if n == last && !is_closing { state.wanted_lead(&self.rule) } else { Neurons::ZERO };
            slot.used() + lead
        };
        let targets: Vec<_> = state.slots.iter().enumerate().map(target).collect();
        let mut leases = Vec::new();
        for (slot, upto) in state.slots.iter_mut().zip(targets) {
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

    /// For the [`Ledger`]: these are on the books.
    pub fn written<'a>(self: &Arc<Self>, leases: impl IntoIterator<Item = &'a Lease>) {
        let mut state = self.state.lock();
        state.uncovered = false;
        for lease in leases {
            if let Some(slot) = state.slots.iter_mut().find(|slot| slot.span.start == lease.start_ms) {
                slot.covered = lease.upto;
            }
        }
        state.wake_next();
        self.list(&state);
    }

    /// For the [`Ledger`]: the books cannot be written. Calls go on without a lease until they can.
    pub fn unwritten(&self) {
        let mut state = self.state.lock();
        state.uncovered = true;
        // What the books have is not known now; all of it is written again.
        state.slots.iter_mut().for_each(|slot| slot.covered = Neurons::ZERO);
        state.wake_next();
    }

    /// The vendor's books had `booked` when `spent` was spent here, in the window that began at `start`; or at least that
    /// much. Says how much more that makes than was known.
    pub(super) fn book(&self, start: Millis, booked: Neurons, spent: Neurons, at_least: bool) -> Neurons {
        let mut state = self.lock(self.rule.now());
        if state.slots.back().is_none_or(|slot| slot.span.start != start) {
            return Neurons::ZERO;
        }
        let micro = |neurons: Neurons| i64::try_from(neurons.micro()).unwrap_or(i64::MAX);
        let before = state.counted();
        let beyond = micro(booked) - micro(spent);
        state.beyond = if at_least { beyond.max(state.beyond) } else { beyond };
        state.wake_next();
        state.counted().saturating_sub(before)
    }

    /// Leaves a queue, and lets the next one have a look.
    pub(super) fn leave(&self, ticket: u64) {
        self.state.lock().leave(ticket);
    }

    /// Out of use: nothing spent in any window that still counts, nothing reserved, nobody waiting.
    pub(super) fn retire_if_idle(&self, now: Millis) -> bool {
        // A bucket whose lock is held is in use.
        let Some(mut state) = self.state.try_lock() else { return false };
        state.roll(&self.rule.rule, now);
        state.retired =
            state.queue.is_empty() && state.spent.is_zero() && state.reserved.is_zero() && state.beyond == 0;
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
        !state.retired && state.verdict(&bucket.rule, needed, u64::MAX, true) == Verdict::Room
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
    /// Lets go of what counts no more. A clock that goes back changes nothing.
    fn roll(&mut self, rule: &Rule, now: Millis) {
        if self.slots.back().is_some_and(|last| now < last.span.end) {
            return;
        }
        let span = rule.window.span(now, rule.sliding);
        while let Some(first) = self.slots.front().filter(|first| first.span.expires <= span.start) {
            self.spent = self.spent.saturating_sub(first.spent);
            self.reserved = self.reserved.saturating_sub(first.reserved);
            self.slots.pop_front();
        }
        self.beyond = 0;
        self.slots.push_back(Slot { span, spent: Neurons::ZERO, reserved: Neurons::ZERO, covered: Neurons::ZERO });
    }

    /// What is spent, as far as anyone knows.
    pub(super) fn counted(&self) -> Neurons {
        let beyond = Neurons::from_micro(self.beyond.unsigned_abs());
        if self.beyond < 0 { self.spent.saturating_sub(beyond) } else { self.spent + beyond }
    }

    pub(super) fn used(&self) -> Neurons {
        self.counted() + self.reserved
    }

    pub(super) fn left(&self, rule: &Rule) -> Neurons {
        rule.limit.saturating_sub(self.used())
    }

    /// What is left beyond what those need who wait.
    pub(super) fn room(&self, rule: &Active) -> Neurons {
        if rule.only_counts() {
            return Neurons::from_micro(u64::MAX);
        }
        self.left(&rule.rule).saturating_sub(self.wanted)
    }

    /// `ticket` is the caller's place in the queue; one who `is_done_waiting` for the ledger goes on without it.
    pub(super) fn verdict(&self, rule: &Active, needed: Neurons, ticket: u64, is_done_waiting: bool) -> Verdict {
        let limit = rule.rule.limit;
        if rule.only_counts() {
            return Verdict::Room;
        }
        // What has no price is not known to fit, so it must not find the budget used up.
        if self.counted() + needed > limit || needed.is_zero() && self.counted() >= limit {
            return Verdict::Full;
        }
        let (is_behind, ahead) = self.ahead(ticket);
        if self.used() + ahead + needed > limit {
            return Verdict::Settling;
        }
        let is_short = rule.ledger.is_some() && !self.uncovered && {
            let slot = self.slots.back();
            slot.is_none_or(|slot| slot.used() + needed > slot.covered && !needed.is_zero())
        };
        if (is_behind || is_short) && !is_done_waiting { Verdict::Lease } else { Verdict::Room }
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

    fn wake_next(&self) {
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
    pub(super) fn free_at(&self, rule: &Rule, needed: Neurons) -> Option<Millis> {
        let mut spent = self.spent;
        for slot in &self.slots {
            spent = spent.saturating_sub(slot.spent);
            if spent + needed <= rule.limit {
                return Some(slot.span.expires);
            }
        }
        None
    }

    /// How far the lease should be ahead of what is used.
    fn wanted_lead(&self, rule: &Active) -> Neurons {
        (self.wanted + rule.lead()).min(self.left(&rule.rule))
    }

    fn needs_writing(&self, rule: &Active) -> bool {
        let Some(last) = self.slots.back() else { return false };
        let (wanted, lead) = (self.wanted_lead(rule), last.covered.saturating_sub(last.used()));
        let half = Neurons::from_micro(wanted.micro().div_ceil(2));
        let is_waited_for = !self.queue.is_empty() && lead < wanted;
        lead < half
            || lead > wanted + half
            || is_waited_for
            || last.used() > last.covered
            || self.slots.iter().rev().skip(1).any(|slot| slot.covered != slot.used())
    }
}

// === impl Slot ===

impl Slot {
    fn used(&self) -> Neurons {
        self.spent + self.reserved
    }
}
