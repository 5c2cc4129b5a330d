//! What a lane has of a limit that several gates share.
//!
//! The limit's window then stands at a store, kept by owner: each gate tells how much of it its own window holds ([`Word`]), and
//! is told how much more it may take ([`Heard`]). The owner's word counts over the store's, so a word that is lost or repeated
//! changes nothing. What a gate holds comes free only when the gate itself says so, or when it has been silent for
//! [`Sharing::keep_for`] and a window.
//!
//! # While the store is away
//! A gate that cannot reach the store goes on with what the store counts as its own, as that comes free, for `keep_for` from the
//! last word that was answered; the store counts it as used for longer than that. So no window sees more than the limit, also
//! while one gate is cut off and the others go on. See [`OnStoreLoss`] for the other rules.
//!
//! # What it does not do
//! It sends nothing: whoever drives it asks [`RateLimitLayer::word`](super::RateLimitLayer::word) what is to be told, and tells
//! [`RateLimitLayer::heard`](super::RateLimitLayer::heard) what came back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What a gate does with its limits while the store cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnStoreLoss {
    /// It goes on with what it held, for `keep_for`, and then stops: no limit is passed.
    #[default]
    Keep,
    /// It stops at once: no limit is passed.
    Closed,
    /// It counts alone, as one gate does: each gate then has the whole limit.
    Open,
}

/// What the gate's lanes have in common with whoever speaks to the store for them.
#[derive(Debug)]
pub struct Sharing {
    on_store_loss: OnStoreLoss,
    keep_for: Duration,
    wants: Mutex<Vec<u64>>,
    woken: Notify,
    is_away: AtomicBool,
    /// How often the store went away: lanes that have not looked since know that it did.
    losses: AtomicU64,
}

/// What one lane tells the store. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Word {
    /// The limit, by a name that is the same at every gate.
    pub name: Arc<str>,
    /// Units a window.
    pub limit: u32,
    /// The window.
    pub window_ms: u64,
    /// Which word of this lane it is: the store takes no older one.
    pub number: u64,
    /// Units that the gate's window holds, with those it has been granted and has not used.
    pub held: u32,
    /// The same, by when they come free: in eight parts of [`horizon_ms`], the first to come free first.
    pub parts: [u32; PARTS],
    /// Units asked for.
    pub ask: u32,
    /// Units that the call needs whose turn is next: fewer are of no use.
    pub first: u32,
    /// Calls that wait.
    pub waiting: u32,
    /// What the caller whose turn is next had of late, in thousandths of a unit.
    pub had: u64,
    /// Upstream refused a call for its rate since the last word.
    pub refused: bool,
    /// For how long upstream has asked to be left alone.
    pub hold_ms: u64,
    /// All of it may go at once: nothing is spread over the window.
    pub is_unpaced: bool,
}

/// What the store answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// Units granted.
    pub granted: u32,
    /// The store has lost its memory and grants nothing for so long; what the gate holds it goes on with.
    pub frozen_ms: u64,
    /// When there may be a turn for the next call that waits.
    pub due_ms: u64,
    /// How far apart this gate's turns are from then on.
    pub every_ms: u64,
    /// The part of the limit that upstream was last found to have room for, in millionths.
    pub pace: u32,
    /// For how long upstream has asked to be left alone.
    pub hold_ms: u64,
    /// Others wait, or little is left: what comes free is to be told at once.
    pub is_scarce: bool,
    /// Units that all gates hold together.
    pub total: u32,
    /// Gates that hold, or did of late.
    pub replicas: u32,
}

/// How a word was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answered {
    /// The store took it.
    Heard(Heard),
    /// No answer came in time: whether the store took it is not known.
    Lost,
}

/// Parts by which a word tells when units come free.
pub const PARTS: usize = 8;

/// The longest that a unit counts after it was taken: a window, its margin and a cell of the window.
pub fn horizon_ms(window_ms: u64) -> u64 {
    window_ms + window_ms / 100 + window_ms / 45 + 1
}

/// A gate that holds something says so at least this often.
pub(super) const BEAT: u64 = 1_000_000_000;
/// Who waits asks again at least, and at most, after so long.
const SOONEST: u64 = 5_000_000;
const LATEST: u64 = 250_000_000;
/// Permits are asked for ahead for so much time, where there is plenty.
const AHEAD_SECONDS: f32 = 0.1;
/// No more of a limit is asked for ahead than one part of so many, for what one gate has in hand another may lack.
const AHEAD_PARTS: u32 = 64;
/// How far back a lane's rate looks.
const RATE_SECONDS: f32 = 0.5;
/// So many calls ask at once.
pub(super) const MOST: u32 = 64;
/// The end of a freeze is not waited out: a use is to be told before it.
const BEFORE_THE_END: u64 = 600_000_000;

// === impl Sharing ===

impl Sharing {
    /// For lanes that go on by this rule while the store is away, with what they hold for at most `keep_for`.
    pub fn new(on_store_loss: OnStoreLoss, keep_for: Duration) -> Arc<Self> {
        Arc::new(Self {
            on_store_loss,
            keep_for,
            wants: Mutex::default(),
            woken: Notify::new(),
            // Until it was reached for the first time.
            is_away: AtomicBool::new(true),
            losses: AtomicU64::new(0),
        })
    }

    /// How long a gate goes on with what it held.
    pub fn keep_for(&self) -> Duration {
        self.keep_for
    }

    /// What it does while the store is away.
    pub fn on_store_loss(&self) -> OnStoreLoss {
        self.on_store_loss
    }

    /// The store cannot be reached.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// Says whether the store can be reached; true where that is news. The lanes that wait are to be woken then:
    /// [`RateLimitLayer::look_again`](super::RateLimitLayer::look_again).
    pub fn set_away(&self, is_away: bool) -> bool {
        let was = self.is_away.swap(is_away, Ordering::AcqRel);
        if is_away && !was {
            self.losses.fetch_add(1, Ordering::AcqRel);
        }
        was != is_away
    }

    /// Waits until a lane has something to say, and takes the list of those that do.
    pub async fn wanted(&self) -> Vec<u64> {
        loop {
            let woken = self.woken.notified();
            let wants = std::mem::take(&mut *self.wants.lock());
            if !wants.is_empty() {
                return wants;
            }
            woken.await;
        }
    }

    fn want(&self, lane: u64) {
        self.wants.lock().push(lane);
        self.woken.notify_one();
    }
}

/// What holds a lane up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// What the store has granted.
    InHand,
    /// Its own window, up to so much.
    Own(u32),
    /// Its own window, up to the limit: the store is away, and the gate counts alone.
    Alone,
    /// Nothing passes.
    Shut,
}

/// A lane's part of a limit that is shared. Times are nanoseconds on the layer's clock.
#[derive(Debug)]
pub(super) struct Share {
    sharing: Arc<Sharing>,
    lane: u64,
    name: Arc<str>,
    number: u64,
    /// Granted and not used.
    pub(super) in_hand: u32,
    /// What the store counts as this gate's at least: never more than any word has told since.
    kept: u32,
    /// When the last word was sent that was answered.
    answered: Option<u64>,
    sent: u64,
    /// The store may count something as this gate's.
    is_owed: bool,
    is_listed: bool,
    is_urgent: bool,
    /// Something was used while nothing is granted, and no word tells it yet.
    is_untold: bool,
    is_in_flight: bool,
    /// The store has lost its memory: until then the gate has what it held, and no more.
    frozen: Option<(u32, u64)>,
    losses: u64,
    due_at: u64,
    every: u64,
    is_scarce: bool,
    /// What others hold.
    pub(super) elsewhere: u32,
    used: u32,
    rate: f32,
    /// What was last asked for ahead.
    ahead: u32,
    pub(super) refused: bool,
}

impl Share {
    pub(super) fn new(sharing: Arc<Sharing>, lane: u64, name: Arc<str>) -> Self {
        let losses = sharing.losses.load(Ordering::Acquire);
        Self {
            sharing,
            lane,
            name,
            number: 0,
            in_hand: 0,
            kept: 0,
            answered: None,
            sent: 0,
            is_owed: false,
            is_listed: false,
            is_urgent: false,
            is_untold: false,
            is_in_flight: false,
            frozen: None,
            losses,
            due_at: 0,
            every: 0,
            is_scarce: true,
            elsewhere: 0,
            used: 0,
            rate: 0.0,
            ahead: 0,
            refused: false,
        }
    }

    pub(super) fn gate(&self, now: u64) -> Gate {
        if !self.sharing.is_away() {
            return match self.frozen {
                Some((kept, until)) if now < until => Gate::Own(kept),
                Some(_) => Gate::Shut,
                None => Gate::InHand,
            };
        }
        match self.sharing.on_store_loss {
            OnStoreLoss::Open => Gate::Alone,
            OnStoreLoss::Closed => Gate::Shut,
            OnStoreLoss::Keep => match self.answered {
                Some(answered) if now < answered.saturating_add(nanos(self.sharing.keep_for)) => {
                    Gate::Own(self.frozen.map_or(self.kept, |(kept, _)| kept.min(self.kept)))
                }
                _ => Gate::Shut,
            },
        }
    }

    /// When a lane that is shut may open by itself.
    pub(super) fn opens_at(&self, now: u64) -> u64 {
        if self.sharing.is_away() { now.saturating_add(BEAT) } else { self.due_at.max(now) }
    }

    /// When there is a turn for one who comes after so many others.
    pub(super) fn turn_after(&self, before: u32, now: u64) -> u64 {
        if self.sharing.is_away() {
            return now.saturating_add(BEAT);
        }
        self.due_at.max(now).saturating_add(u64::from(before).saturating_mul(self.every))
    }

    /// The store went away since the lane last looked: what it has in hand is a part of what it holds.
    pub(super) fn look(&mut self) {
        let losses = self.sharing.losses.load(Ordering::Acquire);
        if losses != self.losses {
            self.losses = losses;
            self.in_hand = 0;
        }
    }

    /// A unit was taken.
    pub(super) fn take(&mut self, gate: Gate, units: u32) {
        self.used = self.used.saturating_add(units);
        if gate == Gate::InHand {
            self.in_hand = self.in_hand.saturating_sub(units);
            // Half of what was asked for ahead is left: time to ask for more.
            if self.in_hand.saturating_mul(2) < self.ahead {
                self.want();
            }
        } else {
            // What is used while nothing is granted is told at once, or the store would not know of it when it grants again.
            self.is_untold = true;
            self.want();
        }
    }

    /// Something is to be told at once.
    pub(super) fn want(&mut self) {
        self.is_urgent = true;
        self.want_turn();
    }

    /// A call waits for a turn.
    pub(super) fn want_turn(&mut self) {
        if !self.is_in_flight && !self.is_listed {
            self.is_listed = true;
            self.sharing.want(self.lane);
        }
    }

    /// How often one who waits asks, where turns are `spacing` apart.
    fn latest(&self, spacing: u64) -> u64 {
        (spacing / 8).clamp(20_000_000, LATEST)
    }

    fn ahead(&self, own: &Own) -> u32 {
        let ahead = ((self.rate * AHEAD_SECONDS) as u32).min(own.limit / AHEAD_PARTS).min(own.most);
        if self.is_scarce || ahead < 2 { 0 } else { ahead }
    }

    /// What is to be told now, of a window that holds so much and comes free like this. `is_due`: the time is up that was told
    /// for it.
    pub(super) fn word(&mut self, now: u64, own: &Own, is_due: bool) -> Said {
        self.is_listed = false;
        if self.is_in_flight {
            return Said::Nothing;
        }
        self.look();
        if self.frozen.is_some() {
            self.in_hand = 0;
        }
        let ask_at = self.due_at.min(self.sent.saturating_add(self.latest(own.spacing)));
        if !is_due && !std::mem::take(&mut self.is_urgent) && now < ask_at {
            return Said::Later(ask_at);
        }
        self.is_urgent = false;
        let since = now.saturating_sub(self.sent) as f32 / 1e9;
        if since > 0.0 {
            let weight = (since / RATE_SECONDS).min(1.0);
            self.rate += (self.used as f32 / since - self.rate) * weight;
            self.used = 0;
        }
        self.ahead = self.ahead(own);
        let needed = own.waiting.min(own.most.max(own.first)).saturating_add(self.ahead);
        self.in_hand = self.in_hand.min(needed);
        if self.in_hand < own.first {
            // A part of a turn is of no use here, and may be what another gate lacks.
            self.in_hand = 0;
        }
        let ask = needed - self.in_hand;
        let held = own.held.saturating_add(self.in_hand);
        if ask == 0 && held == 0 && !self.is_owed && !self.refused {
            return Said::Nothing;
        }
        self.kept = self.kept.min(held);
        (self.is_in_flight, self.is_untold, self.sent) = (true, false, now);
        self.is_owed |= held > 0 || ask > 0;
        self.number += 1;
        let mut parts = own.parts;
        parts[PARTS - 1] += self.in_hand;
        Said::Word(Word {
            name: self.name.clone(),
            limit: own.limit,
            window_ms: own.window_ms,
            number: self.number,
            held,
            parts,
            ask,
            first: own.first.max(1),
            waiting: own.waiting,
            had: own.had,
            refused: std::mem::take(&mut self.refused),
            hold_ms: own.hold.div_ceil(1_000_000),
            is_unpaced: own.is_unpaced,
        })
    }

    /// What came of a word.
    pub(super) fn heard(&mut self, word: &Word, answered: &Answered) {
        self.is_in_flight = false;
        // What was in hand before the store went away is in `kept`; what is granted now is not.
        self.look();
        let Answered::Heard(heard) = answered else {
            self.refused |= word.refused;
            return;
        };
        self.answered = Some(self.sent);
        self.is_owed = word.held + heard.granted > 0;
        self.kept = word.held.saturating_add(heard.granted);
        self.in_hand = self.in_hand.saturating_add(heard.granted);
        self.elsewhere = heard.total.saturating_sub(self.kept);
        self.is_scarce = heard.is_scarce;
        self.due_at = if heard.due_ms == 0 { 0 } else { self.sent.saturating_add(heard.due_ms * 1_000_000) };
        self.every = heard.every_ms * 1_000_000;
        self.frozen = (heard.frozen_ms > 0).then(|| {
            let until = self.sent.saturating_add(heard.frozen_ms * 1_000_000).saturating_sub(BEFORE_THE_END);
            (self.frozen.map_or(word.held, |(kept, _)| kept), until)
        });
    }

    /// When the next word is due, if nothing happens before. `leaves` is when the next units come free.
    pub(super) fn next_word(&self, now: u64, is_short: bool, leaves: Option<u64>, spacing: u64) -> Option<u64> {
        if self.is_in_flight {
            return None;
        }
        if self.is_untold && !self.sharing.is_away() {
            return Some(now);
        }
        let ask = is_short.then(|| self.due_at.clamp(now + SOONEST, now + self.latest(spacing)));
        let frees = leaves.filter(|_| self.is_scarce).map(|leaves| leaves.max(now + SOONEST));
        let beat = (self.is_owed || leaves.is_some() || self.in_hand > 0).then(|| now + BEAT);
        [ask, frees, beat].into_iter().flatten().min()
    }

    /// Nothing is in hand, under way, or counted at the store.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_owed && !self.is_in_flight && !self.is_listed && self.in_hand == 0
    }
}

/// What a lane knows of itself, for its word. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) limit: u32,
    pub(super) window_ms: u64,
    /// A window, divided by the limit.
    pub(super) spacing: u64,
    pub(super) held: u32,
    pub(super) parts: [u32; PARTS],
    /// Units that those who wait need.
    pub(super) waiting: u32,
    /// Units that the next of them needs; zero where nobody waits.
    pub(super) first: u32,
    /// So many are asked for at once, unless one call needs more.
    pub(super) most: u32,
    pub(super) is_unpaced: bool,
    pub(super) had: u64,
    /// For so long upstream asked to be left alone.
    pub(super) hold: u64,
}

/// What a lane says.
#[derive(Debug)]
pub(super) enum Said {
    Word(Word),
    /// Not before this time.
    Later(u64),
    Nothing,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

// === impl Heard ===

impl Heard {
    /// Of so many units; of `[frozen_ms, due_ms, every_ms, hold_ms]`; of the pace in millionths; and of all gates together, what
    /// they hold and how many they are.
    pub fn new(granted: u32, times_ms: [u64; 4], pace: u32, is_scarce: bool, all: (u32, u32)) -> Self {
        let [frozen_ms, due_ms, every_ms, hold_ms] = times_ms;
        Self { granted, frozen_ms, due_ms, every_ms, pace, hold_ms, is_scarce, total: all.0, replicas: all.1 }
    }
}
