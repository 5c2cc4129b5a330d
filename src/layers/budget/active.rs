//! A rule at work: its windows, what it is raised to, and who is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::calendar::Windows;
use super::free::FREE;
use super::ledger::Ledger;
use super::notice::{Notice, Watch};
use super::pace::Pace;
use super::raised::Raised;
use super::register::Registers;
use super::rule::{OnExceeded, Rule};
use super::window::{Clock, Millis, Moment, Span};
use crate::neurons::Neurons;

/// A rule at work. What makes it count differently, its window and its splits, stays as it is; what else a reload may change is
/// beside it.
pub(super) struct Active {
    pub(super) rule: Arc<Rule>,
    /// In micro-neurons.
    limit: AtomicU64,
    only_counts: AtomicBool,
    pub(super) windows: Windows,
    /// More than the rule's limit, for a while.
    pub(super) raised: Raised,
    pub(super) watch: Option<Arc<dyn Watch>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    /// Gates share it.
    pub(super) registers: Option<Arc<dyn Registers>>,
    /// The rule's name there.
    pub(super) ledger_name: Arc<str>,
    pub(super) rejected: AtomicU64,
    pub(super) diverted: AtomicU64,
    pub(super) pace: Mutex<Pace>,
    /// What the log was told of buckets of late.
    pub(super) logged: Mutex<Logged>,
    /// The start of the window that was last told to lie in the future.
    pub(super) told_future: AtomicU64,
}

/// Lines in a minute of the steady clock.
#[derive(Default)]
pub(super) struct Logged {
    minute: Millis,
    lines: u32,
}

/// Buckets of a budget that the log is told of in a minute.
const LINES_A_MINUTE: u32 = 20;
const FIRST_TOO_MANY: u32 = LINES_A_MINUTE + 1;

// === impl Active ===

impl Active {
    pub(super) fn new(
        rule: Arc<Rule>,
        clock: Arc<dyn Clock>,
        ledger: Option<Arc<dyn Ledger>>,
        watch: Option<Arc<dyn Watch>>,
        registers: Option<Arc<dyn Registers>>,
        now: Moment,
    ) -> Self {
        Self {
            windows: Windows::of(&rule),
            raised: Raised::default(),
            watch,
            limit: AtomicU64::new(rule.limit.neurons.micro()),
            only_counts: AtomicBool::new(rule.on_exceeded == OnExceeded::Allow),
            clock,
            ledger,
            registers,
            ledger_name: rule.ledger_name().into(),
            rejected: AtomicU64::new(0),
            diverted: AtomicU64::new(0),
            pace: Mutex::new(Pace::new(now.steady)),
            logged: Mutex::default(),
            told_future: AtomicU64::new(0),
            rule,
        }
    }

    /// Holds to this rule from here on, which is the same but for what may change.
    pub(super) fn hold_to(&self, rule: &Rule) {
        self.limit.store(rule.limit.neurons.micro(), Ordering::Relaxed);
        self.only_counts.store(rule.on_exceeded == OnExceeded::Allow, Ordering::Relaxed);
    }

    pub(super) fn limit(&self) -> Neurons {
        Neurons::from_micro(self.limit.load(Ordering::Relaxed))
    }

    pub(super) fn now(&self) -> Moment {
        Moment::of(&*self.clock)
    }

    /// Tells once of each window that begins in the future.
    pub(super) fn tell_future(&self, span: Span, now: Moment) {
        if self.told_future.swap(span.start, Ordering::Relaxed) != span.start {
            tracing::warn!(
                budget = self.rule.name,
                ahead_seconds = (span.start - now.wall) / 1000,
                "calls were counted in a window that begins in the future: the clock was ahead, or is behind now; the \
                 budget counts the window that the clock tells now, and what it has of others where they come"
            );
        }
    }

    pub(super) fn tell(&self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            self.log(&notice);
            if let Some(watch) = &self.watch {
                watch.notice(&notice);
            }
        }
    }

    /// In the log, unless a crowd of buckets has filled this minute's lines: callers choose the values that some are split by.
    fn log(&self, notice: &Notice) {
        let minute = self.now().steady / 60_000;
        let mut logged = self.logged.lock();
        if logged.minute != minute {
            *logged = Logged { minute, lines: 0 };
        }
        logged.lines += 1;
        match logged.lines {
            ..=LINES_A_MINUTE => notice.log(),
            FIRST_TOO_MANY => {
                tracing::warn!(
                    budget = self.rule.name,
                    "more buckets have spent so much: they are told to webhooks and counted, and not here"
                );
            }
            _ => {}
        }
    }

    /// What is paid for anyway is no news.
    pub(super) fn is_told_nothing(&self) -> bool {
        self.only_counts() && self.rule.name == FREE
    }

    pub(super) fn only_counts(&self) -> bool {
        self.only_counts.load(Ordering::Relaxed)
    }
}
