//! A sliding window, paced: never more than the limit in any window, half of it at once, the rest spread evenly.
//!
//! Time is cut into cells; a cell's permits count until the last of them that could be in it is a whole window old, and a
//! margin older, for upstream sees a call some time after its permit was given. So the window never lets through more than
//! its limit, however it is asked. A token bucket of half the limit in front of it keeps a burst from spending the window
//! at once, which would leave everyone without a turn until it has passed. The bucket fills at the highest rate that can be
//! kept up from now on: the limit's own where nothing was taken, less while a burst is still in the window.

use std::time::Duration;

/// So many units (requests or tokens) in any stretch of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) units: u32,
    per_millis: u32,
}

/// What was taken lately. Times are nanoseconds on the layer's own clock.
#[derive(Clone, Copy, Debug)]
// There is one for each account and model: without padding a lane is 8 bytes smaller.
#[repr(C, packed(4))]
pub(super) struct Window {
    /// What closed cells hold, in parts of [`Rate::part`].
    cells: [u16; CELLS],
    /// The cell that is open.
    cell: u32,
    /// This cell and all before it have left the window.
    gone: u32,
    /// Taken in the open cell.
    open: u32,
    /// Parts in all closed cells.
    closed: u32,
    /// What may be taken at once; negative after more was taken than it held.
    bucket: f64,
    /// Units a second that fill the bucket.
    fill: f32,
    /// When the bucket was last filled.
    filled: u64,
}

/// Where something was taken, to give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    cell: u32,
    units: u32,
}

/// Slots in the ring: a window, the open cell, and the cell that is half gone.
const CELLS: usize = 48;
/// Cells in a window.
const CELLS_A_WINDOW: u64 = 45;
/// Changes of the rate that may go by until a turn comes: a full window has to leave, and the room that it leaves is spread
/// over one more; each cell opens and leaves.
const MOST_STEPS: usize = 6 * CELLS;
/// The part of a window by which one call may take longer to reach upstream than another: 1%, 0.6 s of a minute.
const MARGIN: u64 = 100;
/// Leaves room for what is charged over it.
const MOST: u32 = 1 << 30;
/// How much faster than the window the bucket fills.
const HASTE: f32 = 1.02;
/// The part of a burst that the bucket lends to those who had little.
const LENT: f64 = 0.125;

// === impl Rate ===

impl Rate {
    /// Zero counts as one, and so does a time under a second; more than a billion is as good as no limit.
    pub(super) fn new(units: u32, per: Duration) -> Self {
        let millis = u32::try_from(per.as_millis()).unwrap_or(u32::MAX);
        Self { units: units.clamp(1, MOST), per_millis: millis.max(1000) }
    }

    pub(super) fn per(self) -> Duration {
        Duration::from_millis(u64::from(self.per_millis))
    }

    pub(super) fn nanos(self) -> u64 {
        u64::from(self.per_millis) * 1_000_000
    }

    fn margin(self) -> u64 {
        self.nanos() / MARGIN
    }

    fn cell_nanos(self) -> u64 {
        self.nanos() / CELLS_A_WINDOW
    }

    /// Which cell a time is in.
    fn cell(self, now: u64) -> u32 {
        (now / self.cell_nanos()) as u32
    }

    /// The last cell that has left the window by this time.
    fn gone(self, now: u64) -> u32 {
        ((now.saturating_sub(self.nanos() + self.margin()) / self.cell_nanos()) as u32).saturating_sub(1)
    }

    /// When a cell opens.
    fn opens(self, cell: u32) -> u64 {
        u64::from(cell) * self.cell_nanos()
    }

    /// When a cell leaves.
    fn leaves(self, cell: u32) -> u64 {
        (u64::from(cell) + 1) * self.cell_nanos() + self.nanos() + self.margin()
    }

    /// What one count of a closed cell stands for, so that it fits its 16 bits.
    fn part(self) -> u32 {
        self.units.div_ceil(u32::from(u16::MAX))
    }

    /// A little more than the rate that can go on for ever under this cap: what holds a flood up should be the window alone.
    fn steady(self, cap: u32) -> f32 {
        (cap as f32 + 1.0) * HASTE / seconds(self.nanos())
    }
}

fn seconds(nanos: u64) -> f32 {
    nanos as f32 / 1e9
}

/// So much fills a bucket in this time. In doubles: a limit of a few a day fills in steps too small to be added in singles.
fn filled(fill: f32, nanos: u64) -> f64 {
    f64::from(fill) * nanos as f64 / 1e9
}

/// What may be taken at once, of a cap: half of it.
fn burst(cap: u32) -> f64 {
    f64::from(cap.div_ceil(2))
}

/// The bucket's level from which it lends one more.
fn lowest(cap: u32) -> f64 {
    1.0 - burst(cap) * LENT
}

// === impl Taken ===

impl Taken {
    pub(super) fn units(self) -> u32 {
        self.units
    }

    /// What remains of it when so much was really used.
    pub(super) fn less(self, used: u32) -> Self {
        Self { units: self.units.saturating_sub(used), ..self }
    }
}

// === impl Window ===

impl Window {
    /// Empty.
    pub(super) fn new(rate: Rate, now: u64) -> Self {
        let (cell, gone) = (rate.cell(now), rate.gone(now));
        let (bucket, fill) = (burst(rate.units), rate.steady(rate.units));
        Self { cells: [0; CELLS], cell, gone, open: 0, closed: 0, bucket, fill, filled: now }
    }

    /// Lets time pass. `cap` is what the window may hold now: the rate's units, or fewer while upstream has no room for them.
    /// It passes cell by cell, so that the bucket fills the same however seldom anyone looks.
    pub(super) fn advance(&mut self, rate: Rate, cap: u32, now: u64) {
        while self.bucket < burst(cap) && self.closed + self.open > 0 {
            let changes_at = self.changes_at(rate, self.filled);
            if changes_at > now {
                break;
            }
            self.pass(rate, cap, changes_at);
        }
        self.pass(rate, cap, now);
    }

    /// Lets time pass in which the rate does not change, or the bucket is full all the time.
    fn pass(&mut self, rate: Rate, cap: u32, now: u64) {
        let (cell, gone) = (rate.cell(now).max(self.cell), rate.gone(now).max(self.gone));
        self.fill(cap, now);
        if cell == self.cell && gone == self.gone {
            return;
        }
        if cell > self.cell {
            let parts = self.open.div_ceil(rate.part());
            self.cells[slot(self.cell)] = u16::try_from(parts).unwrap_or(u16::MAX);
            self.closed += u32::from(self.cells[slot(self.cell)]);
            (self.open, self.cell) = (0, cell);
        }
        self.expire(gone);
        self.fill = self.sustainable(rate, cap, now);
    }

    fn fill(&mut self, cap: u32, now: u64) {
        let level = self.bucket + filled(self.fill, now.saturating_sub(self.filled));
        self.bucket = level.min(burst(cap));
        self.filled = self.filled.max(now);
    }

    fn expire(&mut self, gone: u32) {
        if self.closed == 0 || (gone - self.gone) as usize >= CELLS {
            self.cells = [0; CELLS];
            self.closed = 0;
        } else {
            for cell in self.gone + 1..=gone {
                self.closed -= u32::from(std::mem::take(&mut self.cells[slot(cell)]));
            }
        }
        self.gone = gone;
    }

    /// The highest rate that can be kept up from now on: until each cell leaves, no more than the room there is.
    fn sustainable(&self, rate: Rate, cap: u32, now: u64) -> f32 {
        let mut highest = rate.steady(cap);
        let mut held = self.held(rate);
        if held == 0 {
            return highest;
        }
        let mut spread = |cell, held| {
            let room = (cap + 1).saturating_sub(held);
            // A cell early, or what leaves with one cell would be spread until the next, and counted a cell longer.
            let until = rate.leaves(cell).saturating_sub(now + rate.cell_nanos());
            highest = highest.min(room as f32 / seconds(until.max(1)));
        };
        if self.closed > 0 {
            for cell in self.gone + 1..self.cell {
                let parts = u32::from(self.cells[slot(cell)]);
                if parts > 0 {
                    spread(cell, held);
                    held = held.saturating_sub(parts * rate.part());
                }
            }
        }
        if self.open > 0 {
            spread(self.cell, held);
        }
        highest
    }

    /// Looks at what is sustainable now and not when the next cell opens: a burst has just been taken, say.
    pub(super) fn respread(&mut self, rate: Rate, cap: u32, now: u64) {
        self.fill = self.sustainable(rate, cap, now);
    }

    /// What the window holds.
    pub(super) fn held(&self, rate: Rate) -> u32 {
        (self.closed * rate.part()).saturating_add(self.open)
    }

    /// These units may be taken now. More than the cap counts as the cap, or it would never pass.
    pub(super) fn is_open(&self, rate: Rate, cap: u32, units: u32) -> bool {
        let units = units.min(cap);
        self.held(rate).saturating_add(units) <= cap && self.bucket >= self.needed(cap, units)
    }

    /// One request may be taken ahead of the pace, though never over the limit.
    pub(super) fn lends(&self, rate: Rate, cap: u32) -> bool {
        self.held(rate) < cap && self.bucket >= lowest(cap)
    }

    /// Takes units, be there room or not.
    pub(super) fn charge(&mut self, units: u32) -> Taken {
        self.open = self.open.saturating_add(units);
        self.bucket -= f64::from(units);
        Taken { cell: self.cell, units }
    }

    /// What the bucket must hold: it never holds more than its burst.
    fn needed(&self, cap: u32, units: u32) -> f64 {
        f64::from(units).min(burst(cap))
    }

    /// Upstream has less room than was thought: no more bursts, and a new rate.
    pub(super) fn repace(&mut self, rate: Rate, cap: u32, now: u64) {
        self.bucket = self.bucket.min(0.0);
        self.fill = self.sustainable(rate, cap, now);
    }

    /// Gives back what was not used after all.
    pub(super) fn give_back(&mut self, rate: Rate, taken: Taken) {
        self.bucket += f64::from(taken.units);
        if taken.cell == self.cell {
            self.open = self.open.saturating_sub(taken.units);
        } else if taken.cell > self.gone && taken.cell < self.cell {
            let cell = &mut self.cells[slot(taken.cell)];
            // Whole parts only: a window that thinks it is fuller than it is keeps its promise.
            let parts = u16::try_from(taken.units / rate.part()).unwrap_or(u16::MAX).min(*cell);
            *cell -= parts;
            self.closed -= u32::from(parts);
        }
    }

    /// When these units can be taken at the earliest, as far as is known now; later it may be sooner.
    pub(super) fn opens_at(&self, rate: Rate, cap: u32, units: u32, now: u64) -> u64 {
        let units = units.min(cap);
        self.fills_at(rate, self.needed(cap, units), now).max(self.leaves_room(rate, cap, units, now))
    }

    /// When a request can be taken ahead of the pace.
    pub(super) fn lends_at(&self, rate: Rate, cap: u32, now: u64) -> u64 {
        self.fills_at(rate, lowest(cap), now).max(self.leaves_room(rate, cap, 1, now))
    }

    fn fills_at(&self, rate: Rate, level: f64, now: u64) -> u64 {
        self.reaches(level, now).min(self.changes_at(rate, now))
    }

    /// When the bucket has this level, if its rate stays as it is.
    fn reaches(&self, level: f64, now: u64) -> u64 {
        let missing = level - self.bucket;
        if missing <= 0.0 { now } else { now.saturating_add((missing / f64::from(self.fill) * 1e9) as u64) }
    }

    /// The rate may change when a cell leaves, and when another opens.
    fn changes_at(&self, rate: Rate, now: u64) -> u64 {
        rate.leaves(self.gone + 1).min(rate.opens(self.cell + 1)).max(now + 1)
    }

    /// Tells what is in it, by when it leaves: the first to leave first.
    pub(super) fn leaving(&self, rate: Rate, mut tell: impl FnMut(u64, u32)) {
        for cell in self.gone + 1..self.cell {
            let parts = u32::from(self.cells[slot(cell)]);
            if self.closed > 0 && parts > 0 {
                tell(rate.leaves(cell), parts * rate.part());
            }
        }
        if self.open > 0 {
            tell(rate.leaves(self.cell), self.open);
        }
    }

    /// When enough has left for these units.
    pub(super) fn leaves_room(&self, rate: Rate, cap: u32, units: u32, now: u64) -> u64 {
        let mut over = self.held(rate).saturating_add(units).saturating_sub(cap);
        if over == 0 {
            return now;
        }
        for cell in self.gone + 1..self.cell {
            over = over.saturating_sub(u32::from(self.cells[slot(cell)]) * rate.part());
            if over == 0 {
                return rate.leaves(cell);
            }
        }
        rate.leaves(self.cell)
    }

    /// When a call of so many units has its turn, where so many like it have theirs before as they come, and nobody else asks.
    /// [`opens_at`](Self::opens_at) tells when to look again; this follows the window up to the turn itself.
    pub(super) fn turn_after(&self, rate: Rate, cap: u32, units: u32, before: u32, now: u64) -> u64 {
        let units = units.clamp(1, cap);
        let a_window = cap / units;
        let mut window = *self;
        let turn = window.follow(rate, cap, units, before % a_window + 1, now);
        turn.saturating_add(u64::from(before / a_window) * (rate.nanos() + 2 * rate.margin()))
    }

    /// The same, where others come at these times after them, earliest first.
    pub(super) fn turn_after_those(&self, rate: Rate, cap: u32, units: u32, before: u32, at: &[u64], now: u64) -> u64 {
        if at.is_empty() {
            return self.turn_after(rate, cap, units, before, now);
        }
        let units = units.clamp(1, cap);
        let (mut window, mut turn) = (*self, now);
        if before > 0 {
            // More of them than a window has are too far off to be told apart.
            turn = window.follow(rate, cap, units, before.min(cap / units), now);
            window.charge(units);
        }
        for at in at {
            turn = turn.max(*at);
            window.advance(rate, cap, turn);
            window.charge(units);
        }
        window.follow(rate, cap, units, 1, turn)
    }

    /// Lets time pass up to the last of so many calls' turns, which is not taken yet.
    fn follow(&mut self, rate: Rate, cap: u32, units: u32, calls: u32, now: u64) -> u64 {
        let (mut left, mut at) = (calls, now);
        self.advance(rate, cap, at);
        for _ in 0..MOST_STEPS {
            let turn = self.turn_before_change(rate, cap, units, left, at);
            let until = turn.unwrap_or_else(|| self.changes_at(rate, at));
            left -= self.take_until(rate, cap, units, left, at, until);
            at = until;
            if turn.is_some() {
                break;
            }
            self.advance(rate, cap, at);
        }
        at
    }

    /// When the last of so many calls has its turn, if that is before the rate changes.
    fn turn_before_change(&self, rate: Rate, cap: u32, units: u32, calls: u32, now: u64) -> Option<u64> {
        let room = cap.saturating_sub(self.held(rate)) / units;
        let level = self.needed(cap, units) + f64::from(calls - 1) * f64::from(units);
        let turn = self.reaches(level, now);
        (room >= calls && turn <= self.changes_at(rate, now)).then_some(turn)
    }

    /// Takes what all but the last of so many calls can take between two times, in one step, and tells how many took theirs.
    fn take_until(&mut self, rate: Rate, cap: u32, units: u32, calls: u32, now: u64, until: u64) -> u32 {
        let room = cap.saturating_sub(self.held(rate)) / units;
        let level = self.bucket + filled(self.fill, until - now);
        let over = level - self.needed(cap, units);
        let filled = if over < 0.0 { 0 } else { (over / f64::from(units)) as u32 + 1 };
        let taken = room.min(filled).min(calls - 1);
        self.open += taken * units;
        self.bucket = level - f64::from(taken * units);
        self.filled = until;
        taken
    }

    /// Another limit holds from now on. What was taken of the old one counts; where that was in other times, as taken now.
    pub(super) fn change(&mut self, from: Rate, to: Rate, now: u64) {
        if from.per_millis == to.per_millis && from.part() == to.part() {
            self.bucket = (self.bucket + (burst(to.units) - burst(from.units)).max(0.0)).min(burst(to.units));
        } else {
            let held = self.held(from);
            *self = Self::new(to, now);
            self.open = held.min(MOST);
            self.bucket = burst(to.units).min(f64::from(to.units.saturating_sub(held)));
        }
        self.fill = self.sustainable(to, to.units, now);
    }

    /// Units a second, as things are.
    pub(super) fn flow(&self, rate: Rate, cap: u32) -> f32 {
        self.fill.clamp(rate.steady(cap) / 4.0, rate.steady(cap))
    }

    /// Nothing in it: it may be forgotten.
    pub(super) fn is_idle(&self, cap: u32) -> bool {
        self.open == 0 && self.closed == 0 && self.bucket >= burst(cap)
    }
}

fn slot(cell: u32) -> usize {
    cell as usize % CELLS
}

#[cfg(test)]
mod tests;
