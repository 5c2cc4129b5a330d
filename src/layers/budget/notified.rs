//! What was told of a bucket in its window, so that each thing is told once.

use super::active::Active;
use super::notice::What;
use super::rule::MAX_WARNINGS;
use super::window::Millis;
use crate::neurons::Neurons;

/// What was told of a bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notified {
    /// In the window, or slice, that began then.
    start: Millis,
    /// A bit for each of the rule's parts, and [`EXCEEDED`].
    what: u16,
}

const EXCEEDED: u16 = 1 << MAX_WARNINGS;
// === impl Notified ===

impl Notified {
    fn turn(&mut self, rule: &Active, start: Millis) {
        if self.what != 0 && !rule.windows.is_same(self.start, start) {
            tracing::info!(budget = rule.rule.name, "the budget has begun anew");
            self.what = 0;
        }
    }

    /// The highest part that is spent, where that has not been told, or that all of it is.
    pub(super) fn of_spending(&mut self, rule: &Active, start: Millis, spent: Neurons, limit: Neurons) -> Option<What> {
        self.turn(rule, start);
        let mut news = None;
        for (bit, share) in rule.rule.warn_at.iter().enumerate().filter(|(_, share)| share.of(limit) <= spent) {
            if self.note(1 << bit, start) {
                news = news.max(Some(*share));
            }
        }
        if spent >= limit && self.note(EXCEEDED, start) {
            return Some(What::Exceeded);
        }
        news.map(What::Warned)
    }

    /// Whether it is news that a call found no room.
    pub(super) fn of_refusal(&mut self, rule: &Active, start: Millis) -> bool {
        self.turn(rule, start);
        self.note(EXCEEDED, start)
    }

    fn note(&mut self, what: u16, start: Millis) -> bool {
        let is_news = self.what & what == 0;
        if self.what == 0 {
            self.start = start;
        }
        self.what |= what;
        is_news
    }
}
