//! The turns that refused callers were told to come back for.
//!
//! A caller who was told `retry-after` waits outside, and this is its place in the line. So the next one who is refused is told
//! a later time, and a newcomer does not take a turn that someone was told of and comes for.
//!
//! # Whose turn comes first
//! As in the queue, turns go round the callers: one who was told of many turns stands ahead of another by one of them. Who
//! comes when it was told goes before those who were told a later time, and before those who were told of more turns. Should
//! its turn have been taken all the same, the next one is its.
//!
//! # What bounds it
//! A turn is kept for [`LATE`] after its time and is anyone's then. One caller is told of at most [`MOST_OF_ONE`] turns, all
//! callers of at most [`MOST`]; those who are refused beyond that share the last one's time, and may be refused again.

use std::collections::VecDeque;

use super::swept_map::ById;

/// The turns that were told of, of one model of one account.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// In the order of the times that callers were told.
    made: VecDeque<Promise>,
}

/// One turn. Times are nanoseconds on the layer's clock.
#[derive(Clone, Copy, Debug)]
struct Promise {
    caller: u64,
    /// From when on the turn is kept: when there is one.
    from: u64,
    /// When the caller was told to come.
    at: u64,
}

/// Nanoseconds for which a turn is kept: `retry-after` is in whole seconds, and the call has to arrive.
const LATE: u64 = 1_500_000_000;
const MOST: usize = 128;
const MOST_OF_ONE: usize = 64;

// === impl Promises ===

impl Promises {
    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Forgets those who did not come.
    pub(super) fn expire(&mut self, now: u64) {
        while self.made.front().is_some_and(|first| first.at.saturating_add(LATE) <= now) {
            self.made.pop_front();
        }
    }

    /// How many turns between now and `latest` are others' before this call's. `second` is when there is another turn if this
    /// call takes one now: a turn that comes early is kept for one who was to come before that. Where no turn of its caller's
    /// is due, the call is no one who was told of one, and those of its own caller who were go before it as well.
    pub(super) fn claims(&self, caller: u64, latest: u64, second: u64, now: u64) -> u32 {
        let firsts = self.firsts();
        let others = || firsts.iter().filter(|(told, _)| told.caller != caller);
        let own = firsts.iter().find(|(told, _)| told.caller == caller).filter(|(first, _)| first.at <= now);
        let claims = match own {
            Some((first, turns)) => {
                let is_its_turn = |told: &Promise| told.from <= now || told.at < second;
                let goes_first =
                    |(told, its): &&(Promise, usize)| is_its_turn(told) && (told.at < first.at || its < turns);
                others().filter(goes_first).count()
            }
            None => {
                let own = self.made.iter().filter(|told| told.caller == caller);
                let firsts = others().map(|(told, _)| told);
                firsts.chain(own).filter(|told| told.from <= latest || told.at < second).count()
            }
        };
        claims as u32
    }

    /// The times of those who go before one more turn of this caller, earliest first, and how many of them are its own.
    pub(super) fn ahead_of(&self, caller: u64) -> (Vec<u64>, usize) {
        let own = self.made.iter().filter(|told| told.caller == caller).count();
        let mut turns: ById<usize> = ById::default();
        let mut goes_first = |told: &&Promise| {
            let turn = turns.entry(told.caller).or_default();
            *turn += 1;
            told.caller == caller || *turn <= own + 1
        };
        (self.made.iter().filter(|told| goes_first(told)).map(|told| told.at).collect(), own)
    }

    /// The times of others whose turns there are by now, for a caller who has come and finds its own taken.
    pub(super) fn ahead_of_late(&self, caller: u64, now: u64) -> Vec<u64> {
        let others = self.made.iter().filter(|told| told.caller != caller && told.from <= now);
        others.map(|told| told.at).collect()
    }

    /// The last turn that a caller was told of, where it, or all together, can be told of no more.
    pub(super) fn shared(&self, caller: u64) -> Option<u64> {
        let own = || self.made.iter().filter(|told| told.caller == caller);
        if own().count() < MOST_OF_ONE && self.made.len() < MOST {
            return None;
        }
        own().next_back().or_else(|| self.made.back()).map(|last| last.at)
    }

    /// Tells a caller to come at a time for the turn that there is from an earlier one on.
    pub(super) fn make(&mut self, caller: u64, from: u64, at: u64) {
        let place = self.made.partition_point(|told| told.at <= at);
        self.made.insert(place, Promise { caller, from, at });
    }

    /// Forgets this caller's first turn, if it was to come by now: it has come. True where it was.
    pub(super) fn redeem_due(&mut self, caller: u64, now: u64) -> bool {
        let first = self.made.iter().position(|told| told.caller == caller && told.at <= now);
        first.and_then(|place| self.made.remove(place)).is_some()
    }

    /// Each caller's first turn, and how many it was told of.
    fn firsts(&self) -> Vec<(Promise, usize)> {
        let mut firsts = Vec::new();
        let mut places: ById<usize> = ById::default();
        for told in &self.made {
            let place = *places.entry(told.caller).or_insert(firsts.len());
            if place == firsts.len() {
                firsts.push((*told, 0));
            }
            firsts[place].1 += 1;
        }
        firsts
    }
}
