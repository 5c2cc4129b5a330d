//! The account's spend, read by the minute, and what of it passed the gate.
//!
//! The vendor's books lag and settle. So the gate notes now and then how it stood itself; when the books have settled up to such
//! a mark, they are asked for that moment, and both sides are compared as of it. Budgets count what the books had then and what
//! was spent here since; where even the unsettled books have more than that, they count those.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::pause;
use crate::catalogue::Catalogue;
use crate::layers::budget::{Budgets, Standing};
use crate::neurons::Neurons;
use crate::readers::ran::Ran;
use crate::readers::records::Archive;
use crate::sidecar::spending::Account as AccountSettings;
use crate::vendor::reconcile::Report;
use crate::vendor::{Account, Books, BooksError, Known, Line, REST, Sums};

/// What the gate has itself.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) known: Arc<Known>,
}

/// Reads it again and again. Cloning shares what it writes on.
#[derive(Clone)]
pub(super) struct AccountWatch {
    books: Books,
    own: Own,
    ran: Arc<Ran>,
    every: Duration,
    lag: Duration,
    records: Option<PathBuf>,
}

/// How the gate stood at a whole second.
#[derive(Clone, Debug)]
struct Mark {
    at: SystemTime,
    budgets: Vec<Standing>,
    ran: BTreeMap<String, Sums>,
}

/// The marks, and how the day began.
struct Day {
    marks: VecDeque<Mark>,
    began: SystemTime,
    /// What had run in this process when it began.
    ran_before: BTreeMap<String, Sums>,
    /// What earlier processes ran on it.
    ran_earlier: BTreeMap<String, Sums>,
}

/// The line of models in no table.
const OTHER: &str = "other";
/// A verdict of the page's: further off than this, a model differs.
const TOLERANCE: f64 = 0.01;
/// So many marks are set between two looks at the books, unless that is more than one a second.
const MARKS_A_LOOK: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

// === impl AccountWatch ===

impl AccountWatch {
    pub(super) fn new(books: Books, own: Own, settings: &AccountSettings, records: Option<PathBuf>) -> Self {
        let ran = Arc::new(Ran::new(books.account()));
        Self { books, own, ran, every: settings.analytics_every, lag: settings.analytics_lag, records }
    }

    pub(super) fn ran(&self) -> Arc<Ran> {
        self.ran.clone()
    }

    pub(super) async fn watch(self) {
        let between_marks = (self.every / MARKS_A_LOOK).max(SECOND);
        let mut day = self.first_day().await;
        let (mut failures, mut next_look) = (0, SystemTime::now());
        loop {
            day.add(self.mark());
            if SystemTime::now() >= next_look {
                failures = match self.look(&day).await {
                    Ok(()) => 0,
                    Err(why) => {
                        if self.own.known.note_analytics_trouble(&why) {
                            tracing::warn!(%why, "what the account spends elsewhere is not known");
                        }
                        failures + 1
                    }
                };
                next_look = SystemTime::now() + pause(self.every, failures);
                day.forget(self.lag);
            }
            tokio::time::sleep(until_next_mark(SystemTime::now(), between_marks)).await;
        }
    }

    /// What ran today before this process did, from the records.
    async fn first_day(&self) -> Day {
        let began = midnight(SystemTime::now());
        let (path, account) = (self.records.clone(), self.books.account().to_owned());
        let earlier = tokio::task::spawn_blocking(move || {
            let from = millis(began);
            let archive = Archive::open(path.as_deref()?).ok()?;
            archive.ran(from, from + DAY.as_millis() as u64, &account).ok()
        });
        let ran_earlier = earlier.await.ok().flatten().unwrap_or_default();
        // What ran in this process and is recorded already is counted once.
        Day { marks: VecDeque::new(), began, ran_before: self.ran.sums(), ran_earlier }
    }

    fn mark(&self) -> Mark {
        let budgets = self.own.budgets.of_account(self.books.account());
        Mark { at: whole_second(SystemTime::now()), budgets, ran: self.ran.sums() }
    }

    async fn look(&self, day: &Day) -> Result<(), BooksError> {
        let Some(now) = day.marks.back() else { return Ok(()) };
        let so_far = self.books.spent(day.began, now.at).await?;
        let settled = day.settled(self.lag);
        let account = match settled {
            Some(mark) => {
                let lines = self.books.spent(day.began, mark.at).await?;
                let ran = day.ran(mark);
                self.book_settled(day, mark, &lines, covers(&lines, &ran)).await?;
                let report = Report::new(&ran, &lines, &self.own.catalogue, TOLERANCE);
                Account::new(mark.at, report.theirs.neurons, report.outside.neurons, Some(report))
            }
            None => {
                let gate = day.ran(now).values().map(|sums| sums.neurons).sum();
                Account::new(now.at, gate, total(&so_far, &[]).saturating_sub(gate), None)
            }
        };
        self.book_at_least(now, &so_far);
        self.own.known.note_account(SystemTime::now(), account);
        Ok(())
    }

    /// Books that lag more than they should have less than was spent; those must not make room in a budget.
    async fn book_settled(&self, day: &Day, mark: &Mark, today: &[Line], is_whole: bool) -> Result<(), BooksError> {
        let day_ms = millis(day.began);
        let book = if is_whole { Budgets::book } else { Budgets::book_at_least };
        for standing in &mark.budgets {
            let booked = if standing.start_ms == day_ms {
                total(today, &standing.models)
            } else {
                let start = SystemTime::UNIX_EPOCH + Duration::from_millis(standing.start_ms);
                total(&self.books.spent(start, mark.at).await?, &standing.models)
            };
            book(&self.own.budgets, self.books.account(), standing, booked);
        }
        Ok(())
    }

    /// What the books have is spent, settled or not.
    fn book_at_least(&self, now: &Mark, so_far: &[Line]) {
        for standing in now.budgets.iter().filter(|standing| standing.start_ms == millis(midnight(now.at))) {
            let booked = total(so_far, &standing.models);
            self.own.budgets.book_at_least(self.books.account(), standing, booked);
        }
    }
}

// === impl Day ===

impl Day {
    fn add(&mut self, mark: Mark) {
        let began = midnight(mark.at);
        if began > self.began {
            // Marks of yesterday are of no use: the books begin anew.
            self.marks.clear();
            (self.began, self.ran_before, self.ran_earlier) = (began, mark.ran.clone(), BTreeMap::new());
        }
        self.marks.push_back(mark);
    }

    /// The latest mark that the books have settled up to.
    fn settled(&self, lag: Duration) -> Option<&Mark> {
        let now = self.marks.back()?.at;
        self.marks.iter().rev().find(|mark| mark.at + lag <= now)
    }

    /// Lets go of marks that are older than one that is settled.
    fn forget(&mut self, lag: Duration) {
        let Some(settled) = self.settled(lag).map(|mark| mark.at) else { return };
        self.marks.retain(|mark| mark.at >= settled);
    }

    /// What had run today at a mark.
    fn ran(&self, mark: &Mark) -> BTreeMap<String, Sums> {
        let mut ran = self.ran_earlier.clone();
        for (model, sums) in &mark.ran {
            let before = self.ran_before.get(model).copied().unwrap_or_default();
            *ran.entry(model.clone()).or_default() += sums.beyond(&before);
        }
        ran
    }
}

/// The neurons of these models, or of all.
fn total(lines: &[Line], models: &[String]) -> Neurons {
    let counted = lines.iter().filter(|line| models.is_empty() || models.contains(&line.model));
    counted.map(|line| line.sums.neurons).sum()
}

/// The books have each of our calls, as far as they can be told: models in no table share a line here, and have none there.
fn covers(lines: &[Line], ran: &BTreeMap<String, Sums>) -> bool {
    let rest = lines.iter().filter(|line| line.source == REST);
    let counted =
        |model: &str| rest.clone().filter(|line| line.model == *model).map(|line| line.sums.calls).sum::<u64>();
    ran.iter().filter(|(model, _)| *model != OTHER).all(|(model, sums)| counted(model) >= sums.calls)
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn whole_second(at: SystemTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(millis(at) / 1000)
}

fn midnight(at: SystemTime) -> SystemTime {
    let seconds = millis(at) / 1000;
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds - seconds % DAY.as_secs())
}

/// To the next whole second that far on, or to midnight.
fn until_next_mark(now: SystemTime, between: Duration) -> Duration {
    let next = (whole_second(now) + between).min(midnight(now) + DAY);
    next.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(second: u64, calls: u64) -> Mark {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let sums = Sums::new(calls, 0, 0, Neurons::from_whole(calls));
        Mark { at, budgets: Vec::new(), ran: BTreeMap::from([("m".to_owned(), sums)]) }
    }

    #[test]
    fn a_day_is_compared_as_of_the_latest_mark_that_is_settled() {
        let midnight = 20_000 * DAY.as_secs();
        let earlier = BTreeMap::from([("m".to_owned(), Sums::new(5, 0, 0, Neurons::from_whole(5)))]);
        let mut day = Day {
            marks: VecDeque::new(),
            began: SystemTime::UNIX_EPOCH + Duration::from_secs(midnight),
            ran_before: mark(0, 2).ran,
            ran_earlier: earlier,
        };
        let lag = Duration::from_secs(60);
        (0..5).for_each(|n| day.add(mark(midnight + 30 * n, 10 + n)));
        let settled = day.settled(lag).unwrap().clone();
        assert_eq!(settled.at, SystemTime::UNIX_EPOCH + Duration::from_secs(midnight + 60));
        // 12 in this process, less the 2 before it looked, and 5 before it started.
        assert_eq!(day.ran(&settled)["m"].calls, 15);
        day.forget(lag);
        assert_eq!(day.marks.len(), 3);

        day.add(mark(midnight + DAY.as_secs(), 20));
        assert!(day.settled(lag).is_none());
        day.add(mark(midnight + DAY.as_secs() + 60, 23));
        assert_eq!(day.ran(day.marks.back().unwrap())["m"].calls, 3);
    }

    #[test]
    fn books_that_lack_a_call_of_ours_are_not_whole() {
        let line = |source: &str, calls| Line::new("m", source, Sums::new(calls, 0, 0, Neurons::ZERO));
        let ran = mark(0, 7).ran;
        assert!(covers(&[line("rest api", 7)], &ran));
        assert!(!covers(&[line("rest api", 5), line("workers binding", 2)], &ran));
        assert!(!covers(&[line("rest api", 6)], &ran));
        assert!(!covers(&[], &ran) && covers(&[], &BTreeMap::new()));
    }

    #[test]
    fn a_mark_is_set_at_whole_seconds_and_at_midnight() {
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let midnight = 20_000 * DAY.as_millis() as u64;
        assert_eq!(until_next_mark(at(midnight + 1_250), SECOND), Duration::from_millis(750));
        assert_eq!(until_next_mark(at(midnight - 1_000), 30 * SECOND), SECOND);
    }
}
