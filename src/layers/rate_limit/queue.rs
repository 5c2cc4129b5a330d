//! Who waits, and whose turn it is: fair between keys, first come first served within one.
//!
//! The key that had least of late goes first, so that a newcomer's one call does not wait behind another's thousand; it may
//! even go a little ahead of the pace, at the expense of a key that had more than twice as much. Every
//! forty-eighth turn goes to the key whose last one is longest ago, so that a key that had much is slowed and never starved.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::permit::Permit;

/// Everyone who waits for one model of one account.
#[derive(Debug, Default)]
pub(super) struct Queue {
    keys: HashMap<u64, Line>,
    length: usize,
    next: u64,
    turns: u64,
    /// Who watches the clock for all.
    driver: Option<Ticket>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) key: u64,
    number: u64,
}

/// One key's waiters, oldest first.
#[derive(Debug)]
struct Line {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    /// What the key had of late, and as of when.
    had: RecentUse,
    /// When it last had a turn or began to wait for one, counted in turns.
    served: u64,
}

/// What a key had of late: a count of units that halves with each half window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RecentUse {
    units: f32,
    /// Nanoseconds on the layer's clock.
    as_of: u64,
}

/// One call that waits. Its state changes under the lane's lock; it reads it without.
#[derive(Debug)]
pub(super) struct Waiter {
    state: AtomicU8,
    pub(super) changed: Notify,
    pub(super) tokens: u32,
    permit: Mutex<Option<Permit>>,
}

/// How it stands with a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum WaiterState {
    /// It waits.
    Waiting,
    /// It waits, and watches the clock for all.
    Driving,
    /// It has its permit.
    Granted,
    /// It had to make room.
    Displaced,
}

const ROUND_EVERY: u64 = 48;

// === impl RecentUse ===

impl RecentUse {
    pub(super) fn new(units: u32, as_of: u64) -> Self {
        Self { units: units as f32, as_of }
    }

    pub(super) fn at(self, now: u64, window: u64) -> f32 {
        let halves = now.saturating_sub(self.as_of) as f32 / (window / 2).max(1) as f32;
        if halves > 64.0 { 0.0 } else { self.units * (-halves).exp2() }
    }

    pub(super) fn add(&mut self, units: f32, now: u64, window: u64) {
        *self = Self { units: self.at(now, window) + units, as_of: now };
    }
}

// === impl Waiter ===

impl Waiter {
    pub(super) fn new(tokens: u32) -> Arc<Self> {
        let state = AtomicU8::new(WaiterState::Waiting as u8);
        Arc::new(Self { state, changed: Notify::new(), tokens, permit: Mutex::new(None) })
    }

    pub(super) fn state(&self) -> WaiterState {
        match self.state.load(Ordering::Acquire) {
            0 => WaiterState::Waiting,
            1 => WaiterState::Driving,
            2 => WaiterState::Granted,
            _ => WaiterState::Displaced,
        }
    }

    fn set(&self, state: WaiterState) {
        self.state.store(state as u8, Ordering::Release);
        self.changed.notify_one();
    }

    fn grant(&self, permit: Permit) {
        *self.permit.lock() = Some(permit);
        self.set(WaiterState::Granted);
    }

    /// Its permit, once.
    pub(super) fn take_permit(&self) -> Option<Permit> {
        self.permit.lock().take()
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Callers that wait.
    pub(super) fn callers(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Room for one more of this key: there is some, or the newest call of a key that has more waiting makes it.
    pub(super) fn make_room(&mut self, key: u64, most: usize) -> bool {
        if self.length < most {
            return true;
        }
        let own = self.keys.get(&key).map_or(0, |line| line.waiters.len());
        let Some((largest, line)) = self.keys.iter_mut().max_by_key(|(_, line)| line.waiters.len()) else {
            return false;
        };
        if line.waiters.len() <= own + 1 {
            return false;
        }
        let key = *largest;
        let Some((&number, _)) = line.waiters.last_key_value() else { return false };
        if let Some(waiter) = self.remove(Ticket { key, number }) {
            waiter.set(WaiterState::Displaced);
        }
        true
    }

    /// The end of the key's line. Whoever comes first watches the clock.
    pub(super) fn push(&mut self, key: u64, had: RecentUse, waiter: Arc<Waiter>) -> Ticket {
        let ticket = Ticket { key, number: self.next };
        self.next += 1;
        if self.driver.is_none() {
            waiter.set(WaiterState::Driving);
            self.driver = Some(ticket);
        }
        // One that comes now has not waited for a turn yet.
        let served = self.turns;
        let line = self.keys.entry(key).or_insert_with(|| Line { waiters: BTreeMap::new(), had, served });
        line.waiters.insert(ticket.number, waiter);
        self.length += 1;
        ticket
    }

    /// Whose turn it is among the keys that may have one, and what it asks for.
    pub(super) fn next(&self, now: u64, window: u64, may: impl Fn(u64, &Waiter) -> bool) -> Option<(Ticket, u32)> {
        let heads = self.keys.iter().filter_map(|(key, line)| {
            let (number, waiter) = line.waiters.first_key_value()?;
            may(*key, waiter).then_some((Ticket { key: *key, number: *number }, line, waiter))
        });
        let by_round = self.turns % ROUND_EVERY == ROUND_EVERY - 1;
        let first = heads.min_by(|(a, line_a, _), (b, line_b, _)| {
            let had = |line: &Line| if by_round { 0.0 } else { line.had.at(now, window) };
            had(line_a).total_cmp(&had(line_b)).then(line_a.served.cmp(&line_b.served)).then(a.number.cmp(&b.number))
        });
        first.map(|(ticket, _, waiter)| (ticket, waiter.tokens))
    }

    /// The key that had least, where another that waits had more than twice as much: it may go ahead of the pace, and the
    /// other pays for it.
    pub(super) fn next_ahead(
        &self,
        now: u64,
        window: u64,
        may: impl Fn(u64, &Waiter) -> bool,
    ) -> Option<(Ticket, u32)> {
        if self.keys.len() < 2 {
            return None;
        }
        let had = |line: &Line| line.had.at(now, window);
        let most = self.keys.values().map(had).max_by(f32::total_cmp)?;
        let heads = self.keys.iter().filter_map(|(key, line)| {
            let (number, waiter) = line.waiters.first_key_value()?;
            may(*key, waiter).then_some((Ticket { key: *key, number: *number }, had(line), waiter.tokens))
        });
        let (ticket, least, tokens) =
            heads.min_by(|(a, had_a, _), (b, had_b, _)| had_a.total_cmp(had_b).then(a.number.cmp(&b.number)))?;
        (most > 2.0 * (least + 1.0)).then_some((ticket, tokens))
    }

    /// How many go before one more of this caller's, where turns go round the callers, and how many of them are its own.
    pub(super) fn ahead_of(&self, caller: u64) -> (u32, u32) {
        let own = self.keys.get(&caller).map_or(0, |line| line.waiters.len());
        let others = self.keys.iter().filter(|(key, _)| **key != caller);
        let ahead = own + others.map(|(_, line)| line.waiters.len().min(own + 1)).sum::<usize>();
        (ahead as u32, own as u32)
    }

    /// What the caller whose turn is next had of late, in thousandths.
    pub(super) fn least_had(&self, now: u64, window: u64) -> u64 {
        let least = self.keys.values().map(|line| line.had.at(now, window)).min_by(f32::total_cmp);
        (least.unwrap_or(0.0).max(0.0) * 1000.0) as u64
    }

    /// Has the one who watches the clock look again.
    pub(super) fn wake_driver(&self) {
        let driver = self.driver.and_then(|ticket| self.keys.get(&ticket.key)?.waiters.get(&ticket.number));
        if let Some(driver) = driver {
            driver.changed.notify_one();
        }
    }

    /// All who wait.
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.keys.values().flat_map(|line| line.waiters.values()).map(|waiter| &**waiter)
    }

    /// Every key's first waiter.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u64, &Waiter)> {
        self.keys.iter().filter_map(|(key, line)| Some((*key, &**line.waiters.first_key_value()?.1)))
    }

    /// Gives a waiter its permit.
    pub(super) fn grant(&mut self, ticket: Ticket, permit: Permit, now: u64, window: u64) {
        self.turns += 1;
        if let Some(line) = self.keys.get_mut(&ticket.key) {
            line.had.add(permit.requests.units() as f32, now, window);
            line.served = self.turns;
        }
        if let Some(waiter) = self.remove(ticket) {
            waiter.grant(permit);
        }
    }

    /// Takes a waiter out, wherever it stands. If it watched the clock, another does now.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Arc<Waiter>> {
        let line = self.keys.get_mut(&ticket.key)?;
        let waiter = line.waiters.remove(&ticket.number)?;
        if line.waiters.is_empty() {
            self.keys.remove(&ticket.key);
        }
        self.length -= 1;
        if self.driver == Some(ticket) {
            self.driver = None;
            self.appoint();
        }
        Some(waiter)
    }

    fn appoint(&mut self) {
        let next = self.keys.iter().find_map(|(key, line)| {
            let (number, waiter) = line.waiters.last_key_value()?;
            Some((Ticket { key: *key, number: *number }, waiter))
        });
        if let Some((ticket, waiter)) = next {
            waiter.set(WaiterState::Driving);
            self.driver = Some(ticket);
        }
    }
}
