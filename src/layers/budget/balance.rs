//! What a bucket's lock guards: what is spent, reserved, leased and granted in its windows, and who waits for room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::active::Active;
use super::elsewhere::Elsewhere;
use super::notified::Notified;
use super::raised::Raised;
use super::window::{Millis, Moment, Span};
use crate::neurons::Neurons;

/// What a bucket's lock guards.
#[derive(Default)]
pub(super) struct Balance {
    /// What counts now, oldest first; reservations are made in the last. An aligned window has one.
    pub(super) slots: VecDeque<Slot>,
    /// What does not count now, and will again if the wall clock is set back, or forth.
    pub(super) aside: Vec<Slot>,
    /// What may be spent, at the moment that it was last looked at.
    pub(super) limit: Neurons,
    /// Of this bucket alone.
    pub(super) raised: Raised,
    /// What was told of it.
    pub(super) notified: Notified,
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
    pub(super) reserved: Neurons,
    /// Spending up to this is on the books.
    pub(super) covered: Neurons,
    /// Spending up to this is in the register that gates share.
    pub(super) granted: Neurons,
    /// What the vendor's books have beyond what is spent here, or what they have less. In micro-neurons.
    pub(super) beyond: i64,
    /// When it will be over by the steady clock, and can count no more wherever the wall clock is set to.
    pub(super) over_at: Millis,
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

/// A lease, and a register that gates share, runs ahead by this part of the limit.
const LEAD: u64 = 100;
/// The ledger is waited for no longer than this; then calls that no lease covers are refused until it can write.
pub(super) const LEDGER_WAIT: Duration = Duration::from_secs(2);
/// A wall clock that is behind by less is not set back: others have read it between.
const JITTER: Millis = 500;
/// How long a window that is over is remembered, for a wall clock that is set back just then.
pub(super) const GRACE: Millis = 60_000;
/// More windows than a wall clock that is set forth and back comes to in one of them.
const MAX_ASIDE: usize = 128;

// === impl Balance ===

impl Balance {
    /// Of a bucket that gates share, or one that they do not.
    pub(super) fn new(elsewhere: Option<Box<Elsewhere>>) -> Self {
        Self { elsewhere, ..Self::default() }
    }

    /// Counts what counts at this moment.
    pub(super) fn roll(&mut self, rule: &Active, now: Moment) {
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
    pub(super) fn turn(&mut self, rule: &Active, now: Moment) {
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

    pub(super) fn sum_up(&mut self) {
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
    pub(super) fn wanted_lead(&self) -> Neurons {
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

    pub(super) fn needs_writing(&self) -> bool {
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

    /// Gates share it, and those that have come back have what was spent before.
    pub(super) fn restored_from_books(&mut self) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.is_restored = true;
        }
    }

    /// What others have spent, and what they may spend beyond that.
    pub(super) fn spent_elsewhere(&self) -> Neurons {
        self.elsewhere.as_ref().map_or(Neurons::ZERO, |elsewhere| elsewhere.spent)
    }

    pub(super) fn reserved_elsewhere(&self) -> Neurons {
        self.elsewhere.as_ref().map_or(Neurons::ZERO, |elsewhere| elsewhere.upto.saturating_sub(elsewhere.spent))
    }

    /// How far the register should be ahead of what is used: so little where little is left that all gates can have it.
    pub(super) fn grant_lead(&self) -> Neurons {
        let Some(elsewhere) = &self.elsewhere else { return Neurons::ZERO };
        let is_used = self.slots.back().is_some_and(|slot| !slot.used().is_zero());
        if self.is_released || !is_used && self.queue_length() == 0 {
            return Neurons::ZERO;
        }
        let part = self.left().micro() / (4 * u64::from(elsewhere.gates.max(1)));
        let lead = (self.limit.micro() / LEAD).min(part);
        self.wanted + Neurons::from_micro(lead)
    }

    pub(super) fn needs_grant(&self) -> bool {
        let (Some(last), Some(_)) = (self.slots.back(), &self.elsewhere) else { return false };
        let (wanted, lead) = (self.grant_lead(), last.granted.saturating_sub(last.used()));
        let half = Neurons::from_micro(wanted.micro().div_ceil(2));
        lead < half || lead > wanted + half || last.used() > last.granted || self.is_waited_for() && lead < wanted
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.elsewhere.is_some() && self.queue_length() > 0
    }

    /// The others should know of it, or it of them.
    pub(super) fn is_active(&self) -> bool {
        let is_ours = || self.slots.iter().any(|slot| !slot.used().is_zero() || !slot.granted.is_zero());
        self.elsewhere.as_ref().is_some_and(|elsewhere| !elsewhere.upto.is_zero() || is_ours())
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(span: Span) -> Self {
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
