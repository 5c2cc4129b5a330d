//! One lane of a limit that gates share, asked and told by hand, for tests whose clock is their own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::lane::{Answer, Lane};
use super::limits::ASKING;
use super::queue::{Ticket, Waiter, WaiterState};
use super::refusal::By;
use super::request::{LaneRequest, Rates, WaitLimits};
use super::share::{Answered, OnStoreLoss, Said, Share, Sharing, Word};
use super::window::Rate;
use crate::catalogue::Slot;

/// Times are nanoseconds on the gate's own clock.
pub(crate) struct SharedLane {
    lane: Lane,
    sharing: Arc<Sharing>,
    rate: Rate,
    bounds: WaitLimits,
    waiting: Vec<(Ticket, Arc<Waiter>, u64)>,
}

const LANE: u64 = 7;

impl SharedLane {
    pub(crate) fn new(limit: u32, window: Duration, keep_for: Duration, max_wait: Duration, now: u64) -> Self {
        let rate = Rate::new(limit, window);
        let sharing = Sharing::new(OnStoreLoss::Keep, keep_for);
        let mut lane = Lane::new(Slot::numbered(0), By::Requests, &ask(rate), now);
        lane.share_by(Share::new(sharing.clone(), LANE, "acc/model".into()));
        let bounds = WaitLimits { max_wait: (max_wait.as_nanos() as u64).max(ASKING), max_queue: 1000 };
        Self { lane, sharing, rate, bounds, waiting: Vec::new() }
    }

    /// A call comes. True where it passes now.
    pub(crate) fn call(&mut self, now: u64) -> bool {
        match self.lane.ask(ask(self.rate), self.bounds, now) {
            Answer::Granted(_) => true,
            Answer::Queued(ticket, waiter) => {
                self.waiting.push((ticket, waiter, now + self.bounds.max_wait));
                false
            }
            Answer::Refused(_) => false,
        }
    }

    /// How many of those who waited pass now, and when to look again.
    pub(crate) fn look(&mut self, now: u64) -> (usize, Option<u64>) {
        if self.waiting.is_empty() {
            return (0, None);
        }
        let next = self.lane.dispatch(now);
        let is_granted = |waiter: &Waiter| waiter.state() == WaiterState::Granted;
        let is_over = |(_, waiter, until): &mut (_, Arc<Waiter>, u64)| now >= *until && !is_granted(waiter);
        let over: Vec<_> = self.waiting.extract_if(.., is_over).collect();
        over.iter().for_each(|(ticket, waiter, _)| self.lane.leave(*ticket, waiter, now));
        let granted = self.waiting.extract_if(.., |(_, waiter, _)| is_granted(waiter));
        let passed = granted.filter(|(_, waiter, _)| waiter.take_permit().is_some()).count();
        let until = self.waiting.iter().map(|(.., until)| *until).min();
        (passed, until.map(|until| until.min(next.max(now + 1_000_000))))
    }

    /// The lane has something to say.
    pub(crate) fn is_wanting(&self) -> bool {
        self.sharing.wanted().now_or_never().is_some()
    }

    /// What it says; or when it has something to say.
    pub(crate) fn word(&mut self, is_due: bool, now: u64) -> Result<Word, Option<u64>> {
        match self.lane.word(is_due, now) {
            Said::Word(word) => Ok(word),
            Said::Later(at) => Err(Some(at)),
            Said::Nothing => Err(None),
        }
    }

    /// What came of it, and when the next is due.
    pub(crate) fn heard(&mut self, word: &Word, answered: &Answered, now: u64) -> Option<u64> {
        self.lane.heard(word, answered, now)
    }

    pub(crate) fn is_away(&self) -> bool {
        self.sharing.is_away()
    }

    /// Whether the store can be reached; true where that is news.
    pub(crate) fn set_away(&mut self, is_away: bool, now: u64) -> bool {
        let is_news = self.sharing.set_away(is_away);
        if is_news {
            self.lane.look_again(now);
        }
        is_news
    }

    /// Nobody waits any more.
    pub(crate) fn leave(&mut self, now: u64) {
        for (ticket, waiter, _) in self.waiting.drain(..) {
            self.lane.leave(ticket, &waiter, now);
        }
    }
}

fn ask(rate: Rate) -> LaneRequest {
    LaneRequest {
        caller: 1,
        is_keyless: true,
        requests_limit: rate,
        tokens_limit: None,
        tokens: 0,
        own: Rates::default(),
    }
}
