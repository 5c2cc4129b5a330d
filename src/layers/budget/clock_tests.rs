//! A wall clock that is set forth and back, against a plain reckoning of what was spent when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tower::ServiceExt;

use super::window::Millis;
use super::*;
use crate::catalogue::Catalogue;
use crate::layers::testing::{LLAMA, Vendor, call, ok};
use crate::neurons::Neurons;
use crate::receipt::{Cost, Estimate, Source};

/// Both clocks, set by hand.
#[derive(Default)]
struct Watch {
    wall: AtomicU64,
    steady: AtomicU64,
}

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(self.wall.load(Ordering::SeqCst))
    }

    fn steady(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.steady.load(Ordering::SeqCst))
    }
}

impl Watch {
    fn moment(&self) -> (Millis, Millis) {
        (self.wall.load(Ordering::SeqCst), self.steady.load(Ordering::SeqCst))
    }

    fn pass(&self, millis: Millis) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
        self.steady.fetch_add(millis, Ordering::SeqCst);
    }

    fn set(&self, by: i64) {
        self.wall.store(self.wall.load(Ordering::SeqCst).saturating_add_signed(by), Ordering::SeqCst);
    }
}

/// Books in memory, written by a task.
struct Book {
    leases: Mutex<Vec<Lease>>,
    renewals: UnboundedSender<Arc<dyn Lessee>>,
}

impl Book {
    fn start() -> Arc<Self> {
        let (renewals, mut renewed) = unbounded_channel::<Arc<dyn Lessee>>();
        let book = Arc::new(Self { leases: Mutex::default(), renewals });
        let writing = book.clone();
        tokio::spawn(async move {
            while let Some(bucket) = renewed.recv().await {
                writing.write(&*bucket, false);
            }
        });
        book
    }

    fn write(&self, bucket: &dyn Lessee, is_closing: bool) {
        let new = bucket.leases(is_closing);
        let mut all = self.leases.lock();
        all.retain(|old| !new.iter().any(|new| (&new.bucket, new.start_ms) == (&old.bucket, old.start_ms)));
        all.extend(new.iter().cloned());
        drop(all);
        bucket.written(&new);
    }
}

impl Ledger for Book {
    fn load(&self, _: &str, _: u64) -> Result<Vec<Lease>, LedgerError> {
        Ok(self.leases.lock().clone())
    }

    fn renew(&self, bucket: Arc<dyn Lessee>) {
        let _ = self.renewals.send(bucket);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many seconds pass.
    Pass(u64),
    /// The wall clock is set by so many seconds.
    Set(i64),
    Spend,
    /// The process ends well, and another begins.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const YEAR: i64 = 366 * 24 * 3600;
    let step = prop_oneof![
        3 => (1u64..90).prop_map(Step::Pass),
        1 => (90u64..9_000).prop_map(Step::Pass),
        2 => prop::sample::select(&[-3600, -90, -61, -20, -2, 2, 20, 61, 90, 3600, YEAR, -YEAR, 3 * YEAR][..]).prop_map(Step::Set),
        6 => Just(Step::Spend),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// What was spent, by its moment on both clocks.
#[derive(Default)]
struct Reckoning(Vec<(Millis, Millis, Neurons)>);

impl Reckoning {
    /// What surely counts now, and what may: by the wall clock it was spent in a window that is now; surely where that window
    /// cannot be over by the time that has passed. What a lease ran ahead of the spending when its window was over may count after
    /// a restart: a hundredth of the limit in each window.
    fn bounds(&self, rule: &Rule, (wall, steady): (Millis, Millis)) -> (Neurons, Neurons) {
        let now = rule.window.span(wall, rule.sliding);
        let (mut surely, mut perhaps) = (Neurons::ZERO, Neurons::ZERO);
        for (spent_wall, spent_steady, neurons) in &self.0 {
            let span = rule.window.span(*spent_wall, rule.sliding);
            if span.start <= now.start && now.start < span.expires {
                perhaps += *neurons + Neurons::from_micro(rule.limit.neurons.micro() / 100);
                surely += if steady - spent_steady <= span.expires - spent_wall { *neurons } else { Neurons::ZERO };
            }
        }
        (surely, perhaps)
    }
}

async fn spend(budgets: &Arc<Budgets>) -> bool {
    let vendor = Vendor(|call: Call| async move {
        let neurons = Estimate::of(&call).upper.unwrap();
        call.receipt.note(|facts| facts.cost = Cost { neurons, source: Source::Reported, ..Cost::default() });
        Ok(ok("{}"))
    });
    BudgetLayer::new(budgets.clone()).layer(vendor).oneshot(call(LLAMA, "{}")).await.is_ok()
}

fn open(rule: &Rule, clock: &Arc<Watch>, book: &Arc<Book>) -> Arc<Budgets> {
    let mut settings = Settings { clock: clock.clone(), ledger: Some(book.clone()), ..Settings::default() };
    settings.rules.push(rule.clone());
    Arc::new(Budgets::new(settings, Catalogue::default()).unwrap())
}

async fn run(rule: &Rule, steps: &[Step]) -> Result<(), TestCaseError> {
    let clock = Arc::new(Watch::default());
    // A quarter of a second past a full one: setting the clock by seconds never comes within jitter of a window's end.
    clock.wall.store(1_800_000_000_250, Ordering::SeqCst);
    let (book, each) = (Book::start(), Estimate::of(&call(LLAMA, "{}")).upper.unwrap());
    let mut budgets = open(rule, &clock, &book);
    let mut reckoning = Reckoning::default();
    for step in steps {
        match step {
            Step::Pass(seconds) => clock.pass(seconds * 1000),
            Step::Set(seconds) => clock.set(seconds * 1000),
            Step::Restart => {
                for table in &budgets.tables {
                    book.write(&*table.table.find(&call(LLAMA, "{}"), window::Moment::of(&*clock)), true);
                }
                budgets = open(rule, &clock, &book);
            }
            Step::Spend => {
                let (surely, perhaps) = reckoning.bounds(rule, clock.moment());
                let passes = spend(&budgets).await;
                prop_assert!(passes || perhaps + each >= rule.limit.neurons, "refused with {} spent", perhaps);
                prop_assert!(!passes || surely + each <= rule.limit.neurons, "passed with {} spent", surely);
                if passes {
                    let (wall, steady) = clock.moment();
                    reckoning.0.push((wall, steady, each));
                }
            }
        }
        let (surely, perhaps) = reckoning.bounds(rule, clock.moment());
        let spent = budgets.status()[0].spent;
        prop_assert!(
            surely <= spent && spent <= perhaps,
            "{} counted, of {} to {}: {:?}",
            spent,
            surely,
            perhaps,
            step
        );
    }
    Ok(())
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_clock_set_forth_and_back_refuses_for_no_other_window_and_forgets_nothing_of_this_one(
        steps in steps(),
        window in prop::sample::select(&[Period::Minute, Period::Hour, Period::Month][..]),
        sliding: bool,
    ) {
        let each = Estimate::of(&call(LLAMA, "{}")).upper.unwrap();
        let limit = Neurons::from_micro(each.micro() * 9 / 2);
        let rule = Rule { sliding, ..Rule::new("everyone", limit, window) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(&rule, &steps))?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_begun_while_the_clock_was_a_year_ahead_ends_when_it_is_right_again_also_over_restarts() {
    let each = Estimate::of(&call(LLAMA, "{}")).upper.unwrap();
    let rule = Rule::new("everyone", each, Period::Minute);
    let clock = Arc::new(Watch::default());
    clock.wall.store(1_800_000_000_250, Ordering::SeqCst);
    let book = Book::start();
    let budgets = open(&rule, &clock, &book);
    clock.set(400 * 24 * 3_600_000);
    assert!(spend(&budgets).await);
    clock.set(-400 * 24 * 3_600_000);
    assert!(spend(&budgets).await, "the window that is now is empty");
    assert!(!spend(&budgets).await, "and used up by this one");
    assert!(!spend(&open(&rule, &clock, &book)).await, "also after a restart");
    clock.pass(60_000);
    assert!(spend(&open(&rule, &clock, &book)).await);
}
