//! A store in this process: the same steps as `step.lua`, over a mutex.
//!
//! It is what two gates in one process share, and the model that the scripts are held to, answer by answer. Its arithmetic is the
//! scripts' own, so that the answers are equal to the last digit.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::packed::most;
use super::store::{AGAIN_MS, Answer, Answering, Exchange, FORGET_MS, FRESH_MS, JUMP_MS, LEARN_MS, Store};
use crate::layers::budget::{Grant, Register};
use crate::layers::rate_limit::{Heard, PARTS, Word, horizon_ms};
use crate::neurons::Neurons;

/// A store that gates in one process share: the same steps as the scripts at a server, over a mutex.
#[derive(Debug)]
pub struct Local {
    memory: Mutex<Memory>,
    began: Instant,
}

/// What a store remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    fleet: Option<Fleet>,
    limits: BTreeMap<Arc<str>, Record>,
    /// By budget and bucket, and then by gate.
    budgets: BTreeMap<(Arc<str>, Arc<str>), Gates>,
}

/// Of one bucket, by gate.
type Gates = BTreeMap<Arc<str>, Registered>;

/// What one gate may spend of a bucket.
#[derive(Clone, Debug)]
struct Registered {
    who: Arc<str>,
    number: u64,
    /// When it expires, what is spent, and up to what.
    slots: Vec<[u64; 3]>,
}

#[derive(Clone, Debug)]
struct Fleet {
    id: String,
    run: String,
    since: u64,
    is_lost: bool,
    /// How far the clock was set back, less how far it was set forth.
    off: i64,
    last: u64,
    gates: BTreeMap<Arc<str>, (Arc<str>, u64)>,
}

/// One limit.
#[derive(Clone, Debug)]
struct Record {
    level: f64,
    fill: f64,
    filled: u64,
    pace: f64,
    paced: u64,
    hold: u64,
    own: BTreeMap<Arc<str>, Owned>,
    expires: u64,
}

/// What one gate has of it.
#[derive(Clone, Debug)]
struct Owned {
    who: Arc<str>,
    number: u64,
    word: u64,
    ends: u64,
    held: u32,
    parts: [u32; PARTS],
    waiting: u32,
    had: u64,
    /// It has gone.
    left: bool,
}

impl Default for Local {
    fn default() -> Self {
        Self { memory: Mutex::default(), began: Instant::now() }
    }
}

impl Store for Local {
    fn exchange(&self, exchange: Exchange) -> Answering {
        let now = 1_000_000_000 + self.began.elapsed().as_millis() as u64;
        // It goes by this process's clock, which nobody's wall clock is compared with.
        let answer = Answer { now_ms: 0, ..self.memory.lock().step(&exchange, now, "local") };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

impl Memory {
    /// One exchange, at a time in milliseconds by the store's clock, in the store's run.
    pub(super) fn step(&mut self, exchange: &Exchange, now: u64, run: &str) -> Answer {
        let now_ms = now;
        let (fleet, now) = self.fleet(exchange, now, run);
        // A moment later, for a clock that is set back may be so much behind.
        self.limits.retain(|_, record| now < record.expires + FRESH_MS);
        let heard = exchange.words.iter().map(|word| {
            let record = self.limits.entry(word.name.clone()).or_insert_with(|| Record::new(word, now));
            if now >= record.expires {
                *record = Record::new(word, now);
            }
            record.step(word, exchange, &fleet, now)
        });
        let heard = heard.collect();
        let grants = exchange.registers.iter().map(|(number, register)| {
            let bucket = (register.budget.clone(), register.bucket.clone());
            grant(self.budgets.entry(bucket).or_default(), *number, register, exchange, &fleet, now)
        });
        Answer { now_ms, grants: grants.collect(), heard, fleet: fleet.id.into() }
    }

    /// The fleet as it is with this exchange, and its time.
    fn fleet(&mut self, exchange: &Exchange, wall: u64, run: &str) -> (Fleet, u64) {
        let id = |now: u64| format!("{now}{}", &run[..run.len().min(8)]);
        let is_new = self.fleet.is_none();
        let fleet = self.fleet.get_or_insert_with(|| Fleet {
            id: id(wall),
            run: run.into(),
            since: wall,
            is_lost: !exchange.fleet.is_empty(),
            off: 0,
            last: wall,
            gates: BTreeMap::new(),
        });
        // A clock that is set back, or forth, goes on from where it was.
        let mut now = wall.saturating_add_signed(fleet.off);
        let seen = fleet.gates.get(&exchange.id).map(|(_, word)| *word);
        if let Some(seen) = seen.filter(|_| exchange.since_ms > 0) {
            now = now.min(seen + exchange.since_ms + JUMP_MS);
        }
        let now = now.max(fleet.last);
        let off = now.cast_signed() - wall.cast_signed();
        let mut is_same = !is_new && off == fleet.off;
        fleet.off = off;
        if fleet.run != run {
            (fleet.id, fleet.run, fleet.since, fleet.is_lost) = (id(now), run.into(), now, true);
            is_same = false;
        } else if !exchange.fleet.is_empty() && *exchange.fleet != *fleet.id {
            is_same &= fleet.is_lost;
            fleet.is_lost = true;
        }
        // What one says within a moment of what is written is not written again.
        if !is_same || exchange.is_leaving || seen.is_none_or(|seen| now >= seen + FRESH_MS) {
            fleet.last = now;
            fleet.gates.retain(|_, (_, word)| now < *word + FORGET_MS);
            if exchange.is_leaving {
                fleet.gates.remove(&exchange.id);
            } else {
                fleet.gates.insert(exchange.id.clone(), (exchange.who.clone(), now));
            }
        }
        (fleet.clone(), now)
    }
}

fn grant(
    own: &mut Gates,
    number: u64,
    register: &Register,
    exchange: &Exchange,
    fleet: &Fleet,
    now: u64,
) -> Option<Grant> {
    let (id, wall) = (&exchange.id, register.now_ms);
    if own.get(id).is_some_and(|me| number <= me.number) {
        return None;
    }
    // It is told anew; one that has its books back has all of it in them.
    own.retain(|other, it| other != id && !(register.is_restored && it.who == exchange.who));
    let (mut spent, mut upto) = (0, 0);
    own.retain(|_, it| {
        for slot in it.slots.iter().filter(|slot| slot[0] > wall) {
            (spent, upto) = (spent + slot[1], upto + slot[2]);
        }
        it.slots.retain(|slot| slot[0] + 3_600_000 > wall);
        !it.slots.is_empty()
    });
    let until = fleet.since + if fleet.is_lost { AGAIN_MS } else { LEARN_MS };
    let (mut mine, mut granted, mut room) = (Vec::new(), 0, most(register.limit) as i64 - upto as i64);
    for slot in &register.slots {
        let [spent, used, wanted, held] = [slot.spent, slot.used, slot.upto, slot.held].map(most);
        granted = match wanted > held {
            true if until > now => held,
            true => held.max(room.min(wanted as i64).max(0) as u64),
            false => wanted,
        };
        // What is used counts, whatever was granted.
        mine.push([slot.expires_ms, spent, granted.max(used)]);
        room -= granted.max(used) as i64;
    }
    let gates = own.len() as u32 + 1;
    own.insert(id.clone(), Registered { who: exchange.who.clone(), number, slots: mine });
    let [granted, spent, upto] = [granted, spent, upto].map(Neurons::from_micro);
    Some(Grant::new(granted, spent, upto, gates))
}

impl Record {
    fn new(word: &Word, now: u64) -> Self {
        Self {
            level: f64::from(word.limit.div_ceil(2)),
            fill: f64::from(word.limit + 1) * 1.02 / word.window_ms as f64,
            filled: now,
            pace: 1.0,
            paced: 0,
            hold: 0,
            own: BTreeMap::new(),
            expires: u64::MAX,
        }
    }

    fn share(&self, window: f64, now: u64) -> f64 {
        if self.pace >= 1.0 { 1.0 } else { (self.pace + (now - self.paced) as f64 / window * 0.05).min(1.0) }
    }

    fn step(&mut self, word: &Word, exchange: &Exchange, fleet: &Fleet, now: u64) -> Option<Heard> {
        let id = &exchange.id;
        // The fleet's time is not written at each step, so a clock that is set back may be a moment behind here.
        let now = now.max(self.filled);
        if self.own.get(id).is_some_and(|me| word.number <= me.number) {
            return None;
        }
        let (window, units) = (word.window_ms as f64, word.limit);
        let horizon = horizon_ms(word.window_ms) as f64;
        let counts = word.window_ms + word.window_ms.div_ceil(100);
        let part = horizon / PARTS as f64;
        for (other, it) in &mut self.own {
            if other != id && it.who == exchange.who && !it.left && it.ends > now + counts {
                (it.ends, it.waiting) = (now + counts, 0);
            }
        }
        self.own.retain(|_, it| now < it.ends);
        let ends = now + if exchange.is_leaving { horizon_ms(word.window_ms) } else { exchange.keep_ms + counts };
        let mut me = Owned {
            who: exchange.who.clone(),
            number: word.number,
            word: now,
            ends,
            held: word.held,
            parts: word.parts,
            waiting: word.waiting,
            had: word.had,
            left: exchange.is_leaving,
        };
        self.own.remove(id);

        if word.refused && (self.pace >= 1.0 || (now - self.paced) as f64 >= window / 60.0) {
            let share = self.share(window, now);
            (self.pace, self.paced, self.level) = ((share * 0.7).max(0.05), now, self.level.min(0.0));
        }
        self.hold = self.hold.max(now + word.hold_ms);
        let share = self.share(window, now);
        let cap = (f64::from(units) * share).floor().max(1.0);
        let burst = if word.is_unpaced { cap } else { (cap / 2.0).ceil() };
        let level = burst.min(self.level + self.fill * (now - self.filled) as f64);
        self.level = if word.is_unpaced { cap } else { level };
        self.filled = now;

        let (mut total, mut rivals, mut leaving) = (f64::from(me.held), 0, me.parts.map(f64::from));
        for it in self.own.values_mut() {
            let passed = ((now - it.word) as f64 / part).floor() as usize;
            if it.left {
                // One that has gone takes nothing more, so what it held comes free as it told.
                it.held = it.parts.iter().skip(passed).sum();
            }
            total += f64::from(it.held);
            for (n, units) in it.parts.iter().enumerate() {
                leaving[n.saturating_sub(passed)] += f64::from(*units);
            }
            if it.waiting > 0 {
                if now - it.word < 1500 {
                    rivals += 1;
                } else {
                    it.waiting = 0;
                }
            }
        }
        // What those may claim who had less: a turn for each that they had less.
        let claims = |granted: u32| -> f64 {
            let had = word.had + u64::from(granted) * 1000;
            let claim = |it: &Owned| u64::from(it.waiting).min(had.saturating_sub(it.had) / 1000);
            self.own.values().map(claim).sum::<u64>() as f64
        };

        let frozen = match fleet.is_lost {
            true => (fleet.since + counts + LEARN_MS).saturating_sub(now),
            false => (fleet.since + LEARN_MS).saturating_sub(now),
        };
        let (mut room, mut granted) = (cap - total, 0_u32);
        if frozen == 0 && self.hold <= now && word.ask > 0 {
            let free = room.min(self.level.floor());
            if rivals == 0 {
                granted = f64::from(word.ask).min(free).max(0.0) as u32;
            } else if word.ask <= 64 {
                while granted < word.ask && free - claims(granted) >= f64::from(granted + 1) {
                    granted += 1;
                }
            }
            if granted < word.first {
                let first = f64::from(word.first);
                let fits = word.first > 1 && room - claims(0) >= first && self.level >= first.min(burst);
                granted = if fits { word.first } else { 0 };
            }
        }
        let taken = f64::from(granted);
        me.held += granted;
        me.parts[PARTS - 1] += granted;
        leaving[PARTS - 1] += taken;
        me.waiting = me.waiting.saturating_sub(granted);
        (total, room, self.level) = (total + taken, room - taken, self.level - taken);

        // The highest rate that can be kept up: until each part leaves, no more than the room there is.
        let steady = (cap + 1.0) * 1.02 / window;
        let (mut fill, mut ahead) = (steady, cap + 1.0 - total);
        for (n, units) in leaving.iter().enumerate() {
            ahead += units;
            fill = fill.min(ahead.max(0.0) / ((n + 1) as f64 * part));
        }
        self.fill = fill.max(steady / 100.0);

        // When there may be a turn for one more of this gate's.
        let (claimed, next) = (claims(granted), f64::from(if granted < word.first { word.first } else { 1 }));
        let (needed, level) = (claimed + next, claimed + next.min(burst));
        let mut due = if self.level < level { (level - self.level) / self.fill } else { 0.0 };
        if needed > room {
            let (over, mut left, mut at) = (needed - room, 0.0, horizon);
            for (n, units) in leaving.iter().enumerate() {
                if left + units >= over {
                    at = (n as f64 + (over - left) / units) * part;
                    break;
                }
                left += units;
            }
            due = due.max(at);
        }
        let hold_ms = self.hold.saturating_sub(now);
        let due = due.max(hold_ms as f64).max(frozen as f64).ceil().min(window * 2.0);
        let every = window.min((f64::from(1 + rivals) / self.fill).ceil());
        let is_scarce = rivals > 0 || room < cap / 8.0 || self.level < burst / 4.0;
        self.own.insert(id.clone(), me);
        self.expires = now + exchange.keep_ms + counts + 60_000;
        Some(Heard::new(
            granted,
            [frozen, due as u64, every as u64, hold_ms],
            (share * 1e6).floor() as u32,
            is_scarce,
            (total as u32, self.own.len() as u32),
        ))
    }
}
