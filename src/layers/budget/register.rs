//! A budget that several gates share: what each may spend of it stands in a register at a store.
//!
//! A gate spends no more than its register says, and the registers of all gates together never pass the limit. A register is raised at
//! the store before it is raised here, and lowered here before it is lowered there; it is always told as a whole figure, so a word
//! that is lost or comes twice changes nothing. Reserving and settling stay here: only a raise asks the store. A gate that dies has
//! its register counted as spent until the window ends, or until it is back under its name with its records.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::{Bucket, State};
use crate::neurons::Neurons;

/// Who speaks with the store for buckets.
pub trait Registers: Send + Sync + 'static {
    /// Has a bucket's register told soon: [`Bucket::register`] says what, and [`Bucket::granted`] is to be told. Called on a
    /// request's path: it must not block. A bucket is not named again until it was asked.
    fn want(&self, bucket: Arc<Bucket>);
}

/// What a bucket tells the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Register {
    /// The budget, by its name and what else makes it count differently.
    pub budget: Arc<str>,
    /// The bucket: empty for a budget that is not split.
    pub bucket: Arc<str>,
    /// What all gates together may spend.
    pub limit: Neurons,
    /// When it is by the gate's wall clock, in milliseconds since 1970, UTC.
    pub now_ms: u64,
    /// What was spent before a restart is among what is told.
    pub is_restored: bool,
    /// What counts now, oldest first; only the last may be raised.
    pub slots: Vec<Slot>,
}

/// One window, or a slice of one that slides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// When it began, in milliseconds since 1970, UTC.
    pub start_ms: u64,
    /// When it counts no more.
    pub expires_ms: u64,
    /// Spent and settled.
    pub spent: Neurons,
    /// Spent or reserved.
    pub used: Neurons,
    /// What the register should be.
    pub upto: Neurons,
    /// What it is, as far as the gate knows.
    pub held: Neurons,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The register of the last slot from here on.
    pub upto: Neurons,
    /// What the other gates have spent.
    pub spent_elsewhere: Neurons,
    /// What they may spend, with what they have.
    pub upto_elsewhere: Neurons,
    /// Gates that have a register, this one among them.
    pub gates: u32,
}

/// What is known of the other gates.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) spent: Neurons,
    pub(super) upto: Neurons,
    gates: u32,
    is_asking: bool,
    is_restored: bool,
    /// It was granted less than it asked for.
    is_short: bool,
    heard: Option<Instant>,
    /// When the store could not be reached, where it has said nothing since.
    lost: Option<Instant>,
}

/// A register runs ahead by this part of the limit, where there is plenty.
const LEAD: u64 = 100;
/// A refusal is not asked about again for so long.
const REMEMBERED: Duration = Duration::from_millis(250);

// === impl Grant ===

impl Grant {
    /// As the store says.
    pub fn new(upto: Neurons, spent_elsewhere: Neurons, upto_elsewhere: Neurons, gates: u32) -> Self {
        Self { upto, spent_elsewhere, upto_elsewhere, gates }
    }
}

// === impl Elsewhere ===

impl Elsewhere {
    /// What is known of the others was told just now.
    fn is_fresh(&self) -> bool {
        self.heard.is_some_and(|heard| heard.elapsed() < REMEMBERED)
    }

    /// The store could not be reached just now. Who speaks with it asks all buckets when it can be again.
    fn is_lost(&self) -> bool {
        self.lost.is_some_and(|lost| lost.elapsed() < REMEMBERED)
    }
}

// === impl Bucket ===

impl Bucket {
    /// What is to be told the store now, if anything; also where nothing has changed here, to hear of the others.
    pub fn register(&self) -> Option<Register> {
        self.is_wanted.store(false, Ordering::Release);
        let now = self.rule.now();
        let mut state = self.lock(now);
        if !(state.is_active() || state.needs_grant() || state.is_waited_for()) {
            return None;
        }
        let lead = state.grant_lead();
        let limit = state.limit;
        let elsewhere = state.elsewhere.as_mut().filter(|elsewhere| !elsewhere.is_asking)?;
        elsewhere.is_asking = true;
        let is_restored = elsewhere.is_restored;
        let last = state.slots.len().saturating_sub(1);
        let slot = |(n, slot): (usize, &mut super::bucket::Slot)| {
            let upto = slot.used() + if n == last { lead } else { Neurons::ZERO };
            // Lowered here before it is lowered there.
            let held = slot.granted;
            slot.granted = slot.granted.min(upto);
            Slot {
                start_ms: slot.span.start,
                expires_ms: slot.span.expires,
                spent: slot.spent,
                used: slot.used(),
                upto,
                held: held.min(upto),
            }
        };
        Some(Register {
            budget: self.rule.ledger_name.clone(),
            bucket: self.name_shared(),
            limit,
            now_ms: now.wall,
            is_restored,
            slots: state.slots.iter_mut().enumerate().map(slot).collect(),
        })
    }

    /// What came of a register that was told; `None` where no answer came.
    pub fn granted(self: &Arc<Self>, register: &Register, grant: Option<Grant>) {
        let mut state = self.lock(self.rule.now());
        if let Some(elsewhere) = &mut state.elsewhere {
            elsewhere.is_asking = false;
        }
        let Some(grant) = grant else {
            drop(state);
            return self.unreached();
        };
        if let Some(elsewhere) = &mut state.elsewhere {
            (elsewhere.spent, elsewhere.upto) = (grant.spent_elsewhere, grant.upto_elsewhere);
            (elsewhere.gates, elsewhere.heard, elsewhere.lost) = (grant.gates, Some(Instant::now()), None);
            elsewhere.is_short = register.slots.last().is_some_and(|told| grant.upto < told.upto);
        }
        if let Some(slot) = register.slots.last().and_then(|told| state.slot(told.start_ms)) {
            slot.granted = grant.upto;
        }
        state.unwritten_since = None;
        state.wake_next();
        self.list(&state);
    }

    /// The store cannot be reached: no more is spent than the register says.
    pub fn unreached(&self) {
        self.is_wanted.store(false, Ordering::Release);
        if let Some(elsewhere) = &mut self.lock(self.rule.now()).elsewhere {
            elsewhere.lost = Some(Instant::now());
        }
        self.unwritten();
    }

    /// Has its register told, if it is low or too high.
    pub(super) fn want(self: &Arc<Self>, state: &State) {
        let Some(registers) = &self.rule.registers else { return };
        let may_ask =
            state.elsewhere.as_ref().is_some_and(|it| !(it.is_asking || it.is_lost() || it.is_short && it.is_fresh()));
        if may_ask && state.needs_grant() && !self.is_wanted.swap(true, Ordering::AcqRel) {
            registers.want(self.clone());
        }
    }

    /// A call is refused for what others have: they may have less by now.
    pub(super) fn want_news(self: &Arc<Self>, state: &State) {
        let Some(registers) = &self.rule.registers else { return };
        let is_old = |it: &Elsewhere| !(it.is_asking || it.is_lost() || it.is_fresh());
        if state.elsewhere.as_ref().is_some_and(|elsewhere| is_old(elsewhere))
            && !self.is_wanted.swap(true, Ordering::AcqRel)
        {
            registers.want(self.clone());
        }
    }
}

// === impl State ===

impl State {
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
    fn grant_lead(&self) -> Neurons {
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

    fn is_waited_for(&self) -> bool {
        self.elsewhere.is_some() && self.queue_length() > 0
    }

    /// The others should know of it, or it of them.
    fn is_active(&self) -> bool {
        let is_ours = || self.slots.iter().any(|slot| !slot.used().is_zero() || !slot.granted.is_zero());
        self.elsewhere.as_ref().is_some_and(|elsewhere| !elsewhere.upto.is_zero() || is_ours())
    }
}
