//! What people change of budgets while they are in force, and what is told of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tower::ServiceExt;

use super::*;
use crate::catalogue::Catalogue;
use crate::layers::testing::{LLAMA, Vendor, call, ok};
use crate::neurons::Neurons;
use crate::receipt::{Cost, Estimate, Metadatum, Source};

const DAY_MS: u64 = 86_400_000;

/// A clock that stands still until it is moved.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.steady()
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Notice>>);

impl Watch for Heard {
    fn notice(&self, notice: &Notice) {
        self.0.lock().push(notice.clone());
    }
}

impl Heard {
    fn take(&self) -> Vec<(String, What)> {
        std::mem::take(&mut *self.0.lock()).into_iter().map(|notice| (notice.bucket, notice.what)).collect()
    }
}

/// A book that keeps changes alone.
#[derive(Default)]
struct Changes(Mutex<Vec<Change>>);

impl Ledger for Changes {
    fn load(&self, _: &str, _: u64) -> Result<Vec<Lease>, LedgerError> {
        Ok(Vec::new())
    }

    fn renew(&self, bucket: Arc<dyn Lessee>) {
        tokio::spawn(async move {
            let leases = bucket.leases(false);
            bucket.written(&leases);
        });
    }

    fn changes(&self, budget: &str, now_ms: u64) -> Result<Vec<Change>, LedgerError> {
        let kept = self.0.lock().clone().into_iter();
        Ok(kept.filter(|change| change.budget == budget && change.until_ms > now_ms).collect())
    }

    fn keep(&self, change: &Change) -> Result<(), LedgerError> {
        self.0.lock().push(change.clone());
        Ok(())
    }
}

struct World {
    clock: Arc<Hand>,
    heard: Arc<Heard>,
    ledger: Option<Arc<Changes>>,
    budgets: Arc<Budgets>,
}

/// The most that the usual call costs.
fn each() -> Neurons {
    Estimate::of(&call(LLAMA, "{}")).upper.unwrap()
}

fn calls(n: u64) -> Neurons {
    Neurons::from_micro(each().micro() * n)
}

fn share(part: f64) -> Share {
    Share::try_from(part).unwrap()
}

impl World {
    fn new(rule: Rule, ledger: Option<Arc<Changes>>) -> Self {
        let clock = Arc::new(Hand(AtomicU64::new(20_000 * DAY_MS + 1)));
        let heard = Arc::new(Heard::default());
        let mut settings = Settings { clock: clock.clone(), watch: Some(heard.clone()), ..Settings::default() };
        settings.rules.push(rule);
        settings.ledger = ledger.clone().map(|ledger| ledger as Arc<dyn Ledger>);
        Self { clock, heard, ledger, budgets: Arc::new(Budgets::new(settings, Catalogue::default()).unwrap()) }
    }

    async fn ask(&self, call: Call) -> bool {
        let vendor = Vendor(|call: Call| async move {
            let neurons = each();
            call.receipt.note(|facts| {
                facts.model = call.model.clone();
                facts.cost = Cost { neurons, source: Source::Reported, ..Cost::default() };
            });
            Ok(ok("{}"))
        });
        BudgetLayer::new(self.budgets.clone()).layer(vendor).oneshot(call).await.is_ok()
    }

    async fn spend(&self, times: usize) -> usize {
        let mut passed = 0;
        for _ in 0..times {
            passed += usize::from(self.ask(call(LLAMA, "{}")).await);
        }
        passed
    }

    fn pass(&self, millis: u64) {
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
    }
}

fn keyed(name: &str) -> Call {
    Call { key: Some(name.into()), ..call(LLAMA, "{}") }
}

#[tokio::test]
async fn each_part_of_a_limit_is_told_once_a_window_and_so_is_its_end() {
    let rule = Rule { warn_at: vec![share(0.5), share(0.8)], ..Rule::new("everyone", calls(10), Period::Day) };
    let world = World::new(rule, None);
    assert_eq!(world.spend(4).await, 4);
    assert_eq!(world.heard.take(), []);
    assert_eq!(world.spend(3).await, 3);
    assert_eq!(world.heard.take(), [(String::new(), What::Warned(share(0.5)))]);
    assert_eq!(world.spend(9).await, 3);
    assert_eq!(world.heard.take(), [(String::new(), What::Warned(share(0.8))), (String::new(), What::Exceeded)]);
    world.pass(DAY_MS);
    assert_eq!(world.spend(5).await, 5);
    assert_eq!(world.heard.take(), [(String::new(), What::Warned(share(0.5)))], "anew in the next window");
}

#[tokio::test]
async fn a_sliding_window_is_told_of_again_when_a_whole_one_has_passed() {
    let rule = Rule { sliding: true, warn_at: vec![share(0.25)], ..Rule::new("everyone", calls(8), Period::Hour) };
    let world = World::new(rule, None);
    let mut told = 0;
    for _ in 0..24 {
        world.spend(1).await;
        told += world.heard.take().iter().filter(|(_, what)| *what == What::Warned(share(0.25))).count();
        world.pass(20 * 60_000);
    }
    assert!((7..=8).contains(&told), "told {told} times in eight hours of as much as it may");
}

#[tokio::test]
async fn a_call_that_is_dearer_than_all_of_a_budget_does_not_make_it_exceeded() {
    let world = World::new(Rule::new("everyone", Neurons::from_micro(each().micro() / 2), Period::Day), None);
    assert_eq!(world.spend(3).await, 0);
    assert_eq!(world.heard.take(), []);
}

#[tokio::test]
async fn a_raise_holds_until_its_moment_also_over_a_restart_and_is_ended_before_it() {
    let rule = Rule::new("everyone", calls(2), Period::Month);
    let changes = Arc::new(Changes::default());
    let world = World::new(rule.clone(), Some(changes.clone()));
    assert_eq!(world.spend(3).await, 2);
    let which = Which::budget("everyone");
    let until = world.clock.now() + Duration::from_secs(3600);
    assert_eq!(world.budgets.raise(&which, calls(5), Some(until)).unwrap(), until);
    assert_eq!(world.budgets.status()[0].limit, calls(5));
    assert_eq!(world.spend(9).await, 3);
    // A restart: what was spent is the other tests' matter, so here it begins with nothing.
    let again = World::new(rule, world.ledger.clone());
    assert_eq!(again.spend(9).await, 5);
    again.pass(3_600_000);
    assert_eq!((again.spend(1).await, again.budgets.status()[0].limit), (0, calls(2)));
    world.budgets.raise(&which, calls(2), None).unwrap();
    assert_eq!(world.budgets.status()[0].limit, calls(2), "a raise to the limit ends it");
}

#[tokio::test]
async fn one_bucket_is_raised_and_begun_anew_and_no_other() {
    let rule = Rule { split_by: vec![Split::Key, Split::Model], ..Rule::new("team's", calls(1), Period::Day) };
    let world = World::new(rule, None);
    for name in ["a", "b"] {
        assert!(world.ask(keyed(name)).await && !world.ask(keyed(name)).await);
    }
    let values = |key: &str| Some([key, LLAMA].map(|value| Metadatum::String(value.into())).to_vec());
    let which = |bucket| Which { bucket, who: "ops".into(), reason: "a demo".into(), ..Which::budget("team's") };
    world.budgets.raise(&which(values("a")), calls(2), None).unwrap();
    assert_eq!((world.ask(keyed("a")).await, world.ask(keyed("b")).await), (true, false));
    assert_eq!(world.budgets.reset(&which(values("b"))).unwrap(), calls(1));
    assert_eq!((world.ask(keyed("a")).await, world.ask(keyed("b")).await), (false, true));
    let stands: Vec<_> = world.budgets.buckets_of("team's", 1).unwrap();
    assert_eq!(
        (&*stands[0].bucket, stands[0].limit, stands[0].spent),
        (&*format!("[\"a\",{LLAMA:?}]"), calls(2), calls(2))
    );
    for (bucket, found) in [(None, false), (values("nobody"), false), (Some(vec![Metadatum::Null]), false)] {
        assert_eq!(world.budgets.reset(&which(bucket.clone())).is_ok(), found, "{bucket:?}");
    }
    world.pass(DAY_MS);
    assert_eq!(
        (world.ask(keyed("a")).await, world.ask(keyed("a")).await),
        (true, false),
        "the raise was for its window"
    );
}

#[tokio::test]
async fn what_is_the_vendors_is_neither_raised_nor_reset() {
    let world = World::new(Plan::Free.rule(), None);
    let which = Which::budget(FREE);
    assert!(matches!(world.budgets.raise(&which, calls(1_000_000), None), Err(ChangeError::Refused(_))));
    assert!(matches!(world.budgets.reset(&which), Err(ChangeError::Refused(_))));
    assert!(matches!(world.budgets.reset(&Which::budget("nobody's")), Err(ChangeError::NotFound(_))));
}

#[tokio::test]
async fn a_call_that_runs_over_midnight_in_berlin_counts_in_the_day_in_which_it_was_reserved() {
    let zone = Some(Zone::try_from("Europe/Berlin".to_owned()).unwrap());
    let world = World::new(Rule { timezone: zone, ..Rule::new("everyone", calls(1), Period::Day) }, None);
    // 23:59:59 on the 24th of October 2026, when the longest day of the year is to begin.
    let before = "2026-10-24T21:59:59Z".parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
    world.clock.0.store(before, Ordering::SeqCst);
    let reserved = world.budgets.reserve_now(&call(LLAMA, "{}")).unwrap().unwrap().unwrap();
    world.pass(2_000);
    assert_eq!(world.spend(2).await, 1, "the new day has all of its limit");
    drop(reserved);
    assert_eq!(world.budgets.status()[0].spent, calls(1));
    world.pass(25 * 3_600_000 - 3_000);
    assert_eq!(world.spend(1).await, 0, "25 hours are one day");
    world.pass(2_000);
    assert_eq!(world.spend(1).await, 1);
}

#[test]
fn rules_that_cannot_be_say_what_to_write_instead() {
    let check = |change: fn(&mut Rule)| {
        let mut rule = Rule::new("everyone", calls(1), Period::Month);
        change(&mut rule);
        let settings = Settings { rules: vec![rule], ..Settings::default() };
        Budgets::new(settings, Catalogue::default()).map(drop).map_err(|error| error.why)
    };
    let zone = || Some(Zone::try_from("Asia/Kolkata".to_owned()).unwrap());
    assert_eq!(check(|rule| rule.day = Some(15)), Ok(()));
    for (change, says) in [
        (
            (|rule| (rule.window, rule.timezone) = (Period::Hour, Zone::try_from("UTC".to_owned()).ok()))
                as fn(&mut Rule),
            "timezone",
        ),
        (|rule| (rule.sliding, rule.timezone) = (true, Zone::try_from("UTC".to_owned()).ok()), "timezone"),
        (|rule| rule.starts = Some(Weekday::Monday), "week"),
        (|rule| (rule.window, rule.day) = (Period::Week, Some(3)), "month"),
        (|rule| rule.day = Some(32), "from 1 to 31"),
        (|rule| rule.day = Some(0), "from 1 to 31"),
        (|rule| rule.warn_at = vec![Share::try_from(0.5).unwrap(); 9], "eight"),
        (|rule| (rule.scope, rule.day) = (Scope::Account, Some(5)), "the vendor counts"),
    ] {
        assert!(check(change).is_err_and(|why| why.contains(says)), "{says}");
    }
    assert_eq!(zone().unwrap().to_string(), "Asia/Kolkata");
    assert!(Zone::try_from("Europe/Berlim".to_owned()).is_err_and(|why| why.contains("Europe/Berlin")));
    for part in [0.0, -0.5, 1.5, f64::NAN] {
        assert!(Share::try_from(part).is_err(), "{part}");
    }
}
