//! What has changed of late, as lines of the log at level info: a budget that is nearly spent, is spent or begins anew, a model
//! that upstream holds back, a storm of 429s and its end, upstream down and up, records behind.
//!
//! It looks at what there is every few seconds, so that a call pays for none of it. What comes and goes between two looks has
//! no line.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::catalogue::Slot;
use crate::layers::budget::Status;
use crate::layers::rate_limit::ModelStanding;
use crate::readers::records::Stats;
use crate::receipt::{Facts, Reader};

/// How often it is looked.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Counts attempts in a row that upstream did not answer, or answered with a failure of its own, and all that it answered with 429.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: AtomicU32,
    refusals: AtomicU64,
}

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Changes {
    budgets: HashMap<String, (Fill, SystemTime)>,
    held: HashMap<Slot, bool>,
    is_down: bool,
    is_behind: bool,
    storm: Storm,
}

/// Whether upstream refuses call after call.
#[derive(Debug, Default)]
struct Storm {
    /// Refusals up to each of the last looks.
    seen: VecDeque<u64>,
    is_on: bool,
}

/// What is there now.
pub(super) struct Snapshot<'a> {
    pub(super) budgets: &'a [Status],
    pub(super) models: &'a [ModelStanding],
    /// Failed attempts in a row.
    pub(super) failures: u32,
    /// Attempts that were answered with 429, since the start.
    pub(super) refusals: u64,
    pub(super) records: Option<Stats>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Fill {
    #[default]
    Room,
    Nearly,
    Spent,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    BudgetNearlySpent { budget: String, used: f64 },
    BudgetSpent { budget: String },
    BudgetBegunAnew { budget: String },
    Held { slot: Slot, pace: f64 },
    Released { slot: Slot },
    Storm { refusals: u64 },
    StormOver,
    UpstreamDown { failures: u32 },
    UpstreamUp,
    RecordsBehind { lag: Duration },
    RecordsCaughtUp,
}

/// So many failures in a row are no accident.
const DOWN_AFTER: u32 = 5;
/// So many 429s in the last looks are a storm, and none in them is its end.
const STORM: u64 = 5;
const STORM_LOOKS: usize = 15;
const NEARLY: f64 = 0.8;
/// Most calls need more than the last percent.
const SPENT: f64 = 0.99;
const BEHIND: Duration = Duration::from_secs(5);

// === impl Health ===

impl Health {
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

impl Reader for Health {
    fn sealed(&self, facts: &Facts) {
        for attempt in &facts.attempts {
            if attempt.status.is_none_or(|status| status.is_server_error()) {
                self.failures.fetch_add(1, Ordering::Relaxed);
            } else if self.failures() > 0 {
                // Workers share this line of memory, and it is written where something has changed alone.
                self.failures.store(0, Ordering::Relaxed);
            }
            if attempt.status == Some(StatusCode::TOO_MANY_REQUESTS) {
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

// === impl Changes ===

impl Changes {
    /// What is new since the last look.
    pub(super) fn look(&mut self, seen: &Snapshot<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        seen.budgets.iter().for_each(|budget| changes.extend(self.budget(budget)));
        seen.models.iter().for_each(|model| changes.extend(self.model(model)));
        let is_down = if self.is_down { seen.failures > 0 } else { seen.failures >= DOWN_AFTER };
        if std::mem::replace(&mut self.is_down, is_down) != is_down {
            let failures = seen.failures;
            changes.push(if is_down { Change::UpstreamDown { failures } } else { Change::UpstreamUp });
        }
        changes.extend(self.storm.look(seen.refusals));
        let lag = seen.records.map_or(Duration::ZERO, |records| records.lag);
        let is_behind = if self.is_behind { !lag.is_zero() } else { lag > BEHIND };
        if std::mem::replace(&mut self.is_behind, is_behind) != is_behind {
            changes.push(if is_behind { Change::RecordsBehind { lag } } else { Change::RecordsCaughtUp });
        }
        changes
    }

    fn budget(&mut self, status: &Status) -> Option<Change> {
        let limit = status.limit.as_f64();
        let used = if limit > 0.0 { 1.0 - status.left.as_f64() / limit } else { 1.0 };
        let fill = match used {
            used if used >= SPENT => Fill::Spent,
            used if used >= NEARLY => Fill::Nearly,
            _ => Fill::Room,
        };
        let budget = status.name.clone();
        let before = self.budgets.insert(budget.clone(), (fill, status.resets_at));
        let (before, resets_at) = before.unwrap_or((Fill::Room, status.resets_at));
        match fill {
            Fill::Spent if before < Fill::Spent => Some(Change::BudgetSpent { budget }),
            Fill::Nearly if before < Fill::Nearly => Some(Change::BudgetNearlySpent { budget, used }),
            Fill::Room if before > Fill::Room && status.resets_at > resets_at => {
                Some(Change::BudgetBegunAnew { budget })
            }
            // A reservation that was given back is no news, and may be taken again the next moment.
            fill if fill < before && status.resets_at <= resets_at => {
                self.budgets.insert(budget, (before, resets_at));
                None
            }
            _ => None,
        }
    }

    fn model(&mut self, model: &ModelStanding) -> Option<Change> {
        let ModelStanding { slot, pace, .. } = *model;
        let was_held = self.held.get(&slot).copied().unwrap_or(false);
        let is_held = pace < 1.0;
        if was_held == is_held {
            return None;
        }
        self.held.insert(slot, is_held);
        Some(if is_held { Change::Held { slot, pace } } else { Change::Released { slot } })
    }
}

// === impl Storm ===

impl Storm {
    fn look(&mut self, refusals: u64) -> Option<Change> {
        let first = self.seen.front().copied().unwrap_or(0);
        self.seen.push_back(refusals);
        if self.seen.len() > STORM_LOOKS {
            self.seen.pop_front();
        }
        let refusals = refusals.saturating_sub(first);
        let is_on = if self.is_on { refusals > 0 } else { refusals >= STORM };
        let was_on = std::mem::replace(&mut self.is_on, is_on);
        (was_on != is_on).then_some(if is_on { Change::Storm { refusals } } else { Change::StormOver })
    }
}

// === impl Change ===

impl Change {
    /// The line, with a model's name where it is of one.
    pub(super) fn log(&self, name: impl Fn(Slot) -> Arc<str>) {
        match self {
            Self::BudgetNearlySpent { budget, .. }
            | Self::BudgetSpent { budget }
            | Self::BudgetBegunAnew { budget } => {
                tracing::info!(budget, "{self}");
            }
            Self::Held { slot, .. } | Self::Released { slot } => tracing::info!(model = &*name(*slot), "{self}"),
            Self::UpstreamDown { failures } => tracing::info!(failures, "{self}"),
            Self::Storm { refusals } => tracing::info!(refusals, "{self}"),
            Self::StormOver => tracing::info!("{self}"),
            Self::UpstreamUp | Self::RecordsBehind { .. } | Self::RecordsCaughtUp => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetNearlySpent { used, .. } => {
                write!(f, "a budget is {:.0}% spent or reserved", (used * 100.0).floor())
            }
            Self::BudgetSpent { .. } => f.write_str("a budget is spent"),
            Self::BudgetBegunAnew { .. } => f.write_str("a budget has begun anew"),
            Self::Held { pace, .. } => {
                write!(f, "Workers AI says 429 for a model: it is held to {:.0}% of its limit", pace * 100.0)
            }
            Self::Released { .. } => f.write_str("a model has all of its limit again"),
            Self::Storm { .. } => {
                f.write_str("upstream says 429 to many attempts: others use the account, or it is out of capacity")
            }
            Self::StormOver => {
                write!(f, "upstream has said no 429 for {} s", STORM_LOOKS as u64 * LOOK_EVERY.as_secs())
            }
            Self::UpstreamDown { .. } => f.write_str("upstream is down: attempts fail one after the other"),
            Self::UpstreamUp => f.write_str("upstream is up: it answers again"),
            Self::RecordsBehind { lag } => {
                write!(f, "records cannot be written since {} s; calls go on", lag.as_secs())
            }
            Self::RecordsCaughtUp => f.write_str("records are written again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::budget::{Budgets, Period, Rule, Settings};
    use crate::neurons::Neurons;

    fn budget(left: u64, resets: u64) -> Status {
        let rules = vec![Rule::new("team", Neurons::from_whole(100), Period::Day)];
        let settings = Settings { rules, ..Settings::default() };
        let mut status = Budgets::new(settings, crate::catalogue::Catalogue::default()).unwrap().status().remove(0);
        status.left = Neurons::from_whole(left);
        status.resets_at = SystemTime::UNIX_EPOCH + Duration::from_secs(resets);
        status
    }

    fn told(changes: &mut Changes, budgets: &[Status], failures: u32, lag: u64) -> Vec<String> {
        let records = Some(Stats { lag: Duration::from_secs(lag), ..Stats::default() });
        let seen = Snapshot { budgets, models: &[], failures, refusals: 0, records };
        changes.look(&seen).iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_storm_of_429s_has_a_line_and_so_has_its_end() {
        let mut storm = Storm::default();
        let mut look = |refusals| storm.look(refusals).map(|change| change.to_string());
        assert_eq!((look(0), look(4), look(4)), (None, None, None));
        assert!(look(5).is_some_and(|line| line.contains("429 to many attempts")));
        assert_eq!(look(300), None);
        let end = (0..STORM_LOOKS + 1).find_map(|_| look(300));
        assert_eq!(end.as_deref(), Some("upstream has said no 429 for 30 s"));
        assert_eq!(look(301), None);
    }

    #[test]
    fn a_budget_has_a_line_when_it_is_nearly_spent_spent_and_begins_anew() {
        let mut changes = Changes::default();
        for (left, resets, line) in [
            (100, 1, None),
            (15, 1, Some("a budget is 85% spent or reserved")),
            (30, 1, None),
            (15, 1, None),
            (0, 1, Some("a budget is spent")),
            (10, 1, None),
            (0, 1, None),
            (100, 2, Some("a budget has begun anew")),
            (100, 3, None),
        ] {
            let lines = told(&mut changes, &[budget(left, resets)], 0, 0);
            assert_eq!(lines.first().map(String::as_str), line, "{left} left, until {resets}");
        }
    }

    #[test]
    fn upstream_and_records_have_a_line_when_they_fail_and_when_they_are_back() {
        let mut changes = Changes::default();
        let mut line = |failures, lag| told(&mut changes, &[], failures, lag).join("; ");
        assert_eq!(line(4, 0), "");
        assert!(line(5, 0).starts_with("upstream is down"));
        assert_eq!(line(9, 0), "");
        assert!(line(0, 0).starts_with("upstream is up"));
        assert!(line(0, 6).starts_with("records cannot be written"));
        assert!(line(0, 0).starts_with("records are written again"));
    }
}
