//! The account's spend, read by the minute, and what of it passed the gate.
//!
//! The vendor's books lag and settle. So the gate notes now and then how it stood itself; when the books have settled up to such
//! a mark, they are asked for that moment, and both sides are compared as of it. Budgets count what the books had then and what
//! was spent here since; where even the unsettled books have more than that, they count those.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::pause::pause;
use crate::books::reconcile::Report;
use crate::books::{Account, Books, BooksError, Known, Line, REST, Sums};
use crate::catalogue::Catalogue;
use crate::layers::budget::{CurrentBudgets, Standing};
use crate::neurons::Neurons;
use crate::readers::ran::Ran;
use crate::readers::records::Archive;
use crate::sidecar::config::Account as AccountSettings;

/// What the gate has itself.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) budgets: CurrentBudgets,
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

/// What the books have until one moment, by the moment from which: the day's beginning, and each window's.
type Spent = BTreeMap<u64, Vec<Line>>;

/// The marks, and how the day began.
struct Day {
    marks: VecDeque<Mark>,
    began: SystemTime,
    /// What had run in this process when it began.
    ran_before: BTreeMap<String, Sums>,
    /// What earlier processes ran on it.
    ran_earlier: BTreeMap<String, Sums>,
}

/// A verdict of the page's: further off than this, a model differs.
const TOLERANCE: f64 = 0.01;
/// So many marks are set between two looks at the books, unless that is more than one a second.
const MARKS_A_LOOK: u32 = 10;
/// And so many while the books settle.
const MARKS_A_LAG: u32 = 1000;
/// A mark that is set later than this after its second, as on a machine that is busy, is set at the next second instead.
const MOST_LATE: Duration = Duration::from_millis(100);
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
        let between_marks = (self.every / MARKS_A_LOOK).max(self.lag / MARKS_A_LAG).max(SECOND);
        let mut day = self.first_day().await;
        let (mut failures, mut next_look) = (0, Instant::now());
        loop {
            let mark = self.mark();
            // What ran here since the second that the mark is for is not in the books of it, and would count as less spent elsewhere.
            let is_late = since_whole_second(SystemTime::now()) > MOST_LATE;
            if !is_late || day.marks.is_empty() {
                day.add(mark);
            }
            // Not by the wall clock: one that is set back would hold the next look up.
            if Instant::now() >= next_look {
                failures = match self.look(&day).await {
                    Ok(()) => 0,
                    Err(why) => {
                        if self.own.known.note_analytics_trouble(&why) {
                            tracing::warn!(%why, "what the account spends elsewhere is not known");
                        }
                        failures + 1
                    }
                };
                next_look = Instant::now() + pause(self.every, failures);
                day.forget(self.lag);
            }
            let between = if is_late { SECOND } else { between_marks };
            tokio::time::sleep(until_next_mark(SystemTime::now(), between)).await;
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
        let budgets = self.own.budgets.get().of_account(self.books.account());
        Mark { at: whole_second(SystemTime::now()), budgets, ran: self.ran.sums() }
    }

    async fn look(&self, day: &Day) -> Result<(), BooksError> {
        let Some(now) = day.marks.back() else { return Ok(()) };
        let so_far = self.read(day, now).await?;
        let account = match day.settled(self.lag) {
            Some(mark) => {
                let spent = self.read(day, mark).await?;
                let (ran, lines) = (day.ran(mark), day.lines(&spent));
                self.book(mark, &spent, has_settled(&ran, lines));
                let report = Report::new(&ran, lines, &self.own.catalogue, TOLERANCE);
                Account::new(mark.at, report.theirs.neurons, report.outside.neurons, Some(report))
            }
            None => {
                let gate = day.ran(now).values().map(|sums| sums.neurons).sum();
                Account::new(now.at, gate, total(day.lines(&so_far), &[]).saturating_sub(gate), None)
            }
        };
        self.book(now, &so_far, false);
        self.own.known.note_account(SystemTime::now(), account);
        Ok(())
    }

    /// What the books have until a mark: of the day, and of every window that a budget is in.
    async fn read(&self, day: &Day, until: &Mark) -> Result<Spent, BooksError> {
        let starts = until.budgets.iter().map(|standing| standing.start_ms).chain([millis(day.began)]);
        let mut spent = Spent::new();
        for start_ms in starts.collect::<BTreeSet<_>>() {
            let start = SystemTime::UNIX_EPOCH + Duration::from_millis(start_ms);
            spent.insert(start_ms, self.books.spent(start, until.at).await?);
        }
        Ok(spent)
    }

    /// Settled books are what was spent; others have less, and never more.
    fn book(&self, mark: &Mark, spent: &Spent, is_settled: bool) {
        let (budgets, account) = (self.own.budgets.get(), self.books.account());
        for standing in &mark.budgets {
            let Some(lines) = spent.get(&standing.start_ms) else { continue };
            let booked = total(lines, &standing.models);
            if is_settled {
                budgets.book(account, standing, booked);
            } else {
                budgets.book_at_least(account, standing, booked);
            }
        }
    }
}

// === impl Day ===

impl Day {
    fn add(&mut self, mark: Mark) {
        let began = midnight(mark.at);
        if began != self.began {
            // Marks of another day are of no use: the books begin anew. So they do for a clock that is set back over midnight.
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

    /// The day's own.
    fn lines<'a>(&self, spent: &'a Spent) -> &'a [Line] {
        spent.get(&millis(self.began)).map_or(&[], Vec::as_slice)
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

/// The books have the calls that ran here, but for a hundredth.
fn has_settled(ran: &BTreeMap<String, Sums>, lines: &[Line]) -> bool {
    let ours: u64 = ran.values().map(|sums| sums.calls).sum();
    let theirs: u64 = lines.iter().filter(|line| line.source == REST).map(|line| line.sums.calls).sum();
    theirs >= ours - ours / 100
}

/// The neurons of these models, or of all.
fn total(lines: &[Line], models: &[String]) -> Neurons {
    let counted = lines.iter().filter(|line| models.is_empty() || models.contains(&line.model));
    counted.map(|line| line.sums.neurons).sum()
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn whole_second(at: SystemTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(millis(at) / 1000)
}

fn since_whole_second(at: SystemTime) -> Duration {
    at.duration_since(whole_second(at)).unwrap_or_default()
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
    use crate::layers::budget::{self, Budgets, Period, Rule, Scope};
    use crate::simulator::{self, Running};
    use crate::upstream::Client;
    use crate::usage::Usage;

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
        // A clock that is set back over midnight is believed.
        day.add(mark(midnight + 120, 25));
        assert_eq!((day.marks.len(), day.began), (1, SystemTime::UNIX_EPOCH + Duration::from_secs(midnight)));
    }

    #[test]
    fn books_that_lack_calls_which_ran_here_have_not_settled() {
        let ran = |calls| mark(0, calls).ran;
        let line = |source: &str, calls| Line {
            model: "m".into(),
            source: source.into(),
            sums: Sums::new(calls, 0, 0, Neurons::ZERO),
        };
        assert!(has_settled(&ran(0), &[]) && has_settled(&ran(1000), &[line(REST, 990)]));
        assert!(
            !has_settled(&ran(1), &[]) && !has_settled(&ran(1000), &[line(REST, 989), line("workers binding", 500)])
        );
    }

    /// Watches an account of which a month's budget counts all, at a stand-in for the vendor.
    fn watching(vendor: &Running, lag: Duration) -> AccountWatch {
        let rule = Rule { scope: Scope::Account, ..Rule::new("month", Neurons::from_whole(10_000), Period::Month) };
        let catalogue = Arc::new(Catalogue::default());
        let settings = budget::Settings { rules: vec![rule], ..budget::Settings::default() };
        let budgets = Arc::new(Budgets::new(settings, catalogue.clone()).unwrap());
        let books = Books::new(Client::new().unwrap(), &vendor.base_url(), "acc", "token").unwrap();
        let own = Own { catalogue, budgets: budgets.into(), known: Arc::default() };
        let settings = AccountSettings { analytics_lag: lag, ..AccountSettings::default() };
        AccountWatch::new(books, own, &settings, None)
    }

    #[tokio::test]
    async fn books_that_have_not_settled_raise_what_a_month_counts_and_never_lower_it() {
        let vendor = simulator::start(simulator::Settings::default()).unwrap();
        let others = vendor.spend_elsewhere("acc", "@cf/meta/llama-3.2-1b-instruct", &Usage::tokens(0, 0, 1_000_000));
        let soon = whole_second(SystemTime::now()) + 2 * SECOND;
        let day = |mark: Mark| {
            let (ran_before, ran_earlier) = (BTreeMap::new(), BTreeMap::new());
            Day { marks: [mark].into(), began: midnight(soon), ran_before, ran_earlier }
        };
        // Of a gate that has just started, no mark is as old as the lag.
        let watch = watching(&vendor, DAY);
        let elsewhere = |watch: &AccountWatch| watch.own.budgets.get().status()[0].elsewhere;
        let first = Mark { at: soon, ..watch.mark() };
        watch.look(&day(first.clone())).await.unwrap();
        assert_eq!(elsewhere(&watch), others);
        // What the gate spent is not in the books that should have settled.
        let watch = AccountWatch { lag: Duration::ZERO, ..watch };
        let mut late = Mark { ran: mark(0, 100).ran, ..first };
        late.budgets[0].spent = others + others;
        watch.look(&day(late)).await.unwrap();
        assert_eq!(elsewhere(&watch), others);
    }

    #[test]
    fn a_mark_is_set_at_whole_seconds_and_at_midnight() {
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let midnight = 20_000 * DAY.as_millis() as u64;
        assert_eq!(until_next_mark(at(midnight + 1_250), SECOND), Duration::from_millis(750));
        assert_eq!(until_next_mark(at(midnight - 1_000), 30 * SECOND), SECOND);
    }
}
