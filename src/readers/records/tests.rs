use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::*;
use crate::call::Call;
use crate::catalogue::Catalogue;
use crate::layers::budget::{self, Budgets, Period, Rule};
use crate::layers::testing::{LLAMA, call, call_read_by};
use crate::neurons::Neurons;
use crate::payload::{Part, Payload};
use crate::receipt::{CallId, Cost, Outcome, Readers, Receipt, Source};

fn settings(directory: &tempfile::TempDir) -> Settings {
    Settings { path: directory.path().join("tollgate.db"), ..Settings::default() }
}

fn readers(records: &Arc<Records>) -> Readers {
    Arc::new([records.clone() as Arc<dyn Reader>])
}

fn charge(call: &Call, neurons: Neurons) {
    call.receipt.note(|facts| {
        facts.cost = Cost { neurons, source: Source::Reported, ..Cost::default() };
        facts.outcome = Outcome::Ok;
    });
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_record_is_read_back_and_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    for n in 1..=3 {
        let call = call_read_by(readers(&records), LLAMA, "{}");
        call.receipt.note(|facts| facts.key = Some("team".into()));
        charge(&call, Neurons::from_whole(n));
    }
    // One whose caller wants nothing kept, but who pays as others do.
    let unlogged = call_read_by(readers(&records), LLAMA, "{}");
    unlogged.receipt.note(|facts| (facts.collect.log, facts.key) = (Some(false), Some("team".into())));
    charge(&unlogged, Neurons::from_whole(4));
    drop(unlogged);
    records.close();
    let archive = Archive::open(&directory.path().join("tollgate.db")).unwrap();
    let all = archive.list(&Filter::default(), 10).unwrap();
    assert_eq!(all.iter().map(|record| record.neurons).collect::<Vec<_>>(), [3.0, 2.0, 1.0]);
    let id = CallId::parse(&all[1].id);
    let before = archive.list(&Filter { before: id, key: Some("team".into()), ..Filter::default() }, 10).unwrap();
    assert_eq!(before.len(), 1);
    for group in [Group::Day, Group::Model, Group::Key] {
        let usage = archive.usage(0, u64::MAX >> 1, &[group], &TimeZone::UTC).unwrap();
        assert_eq!((usage.len(), usage[0].calls, usage[0].neurons), (1, 4, Neurons::from_whole(10)), "{usage:?}");
    }
    assert!(archive.judge(id.unwrap(), Some(1), Some(90), None).unwrap());
    assert_eq!(archive.get(id.unwrap()).unwrap().unwrap().score, Some(90));
    assert_eq!(archive.delete(&Filter::default()).unwrap(), 3);
}

#[test]
fn records_are_found_by_metadata_cost_duration_and_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    for n in 1..=3 {
        let call = call_read_by(readers(&records), LLAMA, "{}");
        call.receipt.note(|facts| facts.usage.input_tokens = 100 * n);
        charge(&call, Neurons::from_whole(1000 * n));
    }
    records.close();
    let archive = Archive::open(&directory.path().join("tollgate.db")).unwrap();
    let all = archive.list(&Filter::default(), 10).unwrap();
    let metadata = r#"{"team": "search", "is live": true, "n": 3}"#;
    assert!(archive.judge(CallId::parse(&all[0].id).unwrap(), None, None, Some(metadata)).unwrap());
    let found = |filter: Filter| archive.list(&filter, 10).unwrap().iter().map(|it| it.neurons).collect::<Vec<_>>();
    let entry = |name: &str, value: &str| Filter { metadata: Some((name.into(), value.into())), ..Filter::default() };
    for (name, value) in [("team", "search"), ("is live", "true"), ("n", "3")] {
        assert_eq!(found(entry(name, value)), [3000.0], "{name}");
    }
    for (name, value) in [("team", "Search"), ("is live", "1"), ("other", "search"), ("' OR 1 --", "3")] {
        assert!(found(entry(name, value)).is_empty(), "{name}");
    }
    // 1,000 neurons are $0.011.
    assert_eq!(found(Filter { usd: (Some(0.02), Some(0.03)), ..Filter::default() }), [2000.0]);
    assert_eq!(found(Filter { tokens_in: (Some(200), None), ..Filter::default() }), [3000.0, 2000.0]);
    assert_eq!(found(Filter { tokens_out: (None, Some(0)), ..Filter::default() }).len(), 3);
    assert!(found(Filter { duration_ms: (Some(60_000.0), None), ..Filter::default() }).is_empty());
    let both = Filter { duration_ms: (None, Some(60_000.0)), usd: (Some(0.03), None), ..entry("team", "search") };
    assert_eq!((found(both.clone()), archive.count(&both, 10).unwrap()), (vec![3000.0], 1));
}

#[test]
fn a_locked_database_holds_nobody_up_and_loses_what_it_must_only() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(Settings { queue: 50, ..settings(&directory) }).unwrap();
    let other = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let readers = readers(&records);
    let began = Instant::now();
    for _ in 0..40 {
        drop(call_read_by(readers.clone(), LLAMA, "{}"));
    }
    until("it failed", || records.stats().failures > 0);
    // The thread takes rows from the queue while it tries again: so many that the queue is full between two tries.
    let (model, mut sent) = (Catalogue::default().nameless(crate::catalogue::Task::Unknown), 40);
    while records.stats().lost == 0 && began.elapsed() < Duration::from_secs(8) {
        drop(Receipt::open(readers.clone(), model.clone()));
        sent += 1;
    }
    let stats = records.stats();
    assert_eq!(stats.written, 0, "{stats:?}");
    assert!(stats.waiting + stats.lost == sent && stats.lost > 0, "{sent} sent, {stats:?}");
    other.execute_batch("COMMIT").unwrap();
    until("it goes on", || records.stats().waiting == 0);
    let stats = records.stats();
    assert_eq!(stats.written + stats.lost, sent, "{stats:?}");
}

#[test]
fn the_log_comes_into_the_database_without_the_thread_that_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    let (connection, _lock) = schema::open(&path, Settings::default().max_bytes).unwrap();
    let pages = connection.query_row("PRAGMA wal_autocheckpoint", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pages, schema::MAX_LOG_PAGES, "whoever writes would wait for the disk");
    drop((connection, _lock));

    let records = Records::open(settings(&directory)).unwrap();
    drop(call_read_by(readers(&records), LLAMA, "{}"));
    // The database alone, without its log.
    let copy = directory.path().join("copy.db");
    until("it is in the database", || {
        std::fs::copy(&path, &copy).unwrap();
        Archive::open(&copy).unwrap().list(&Filter::default(), 10).is_ok_and(|all| all.len() == 1)
    });
}

#[test]
fn what_cannot_be_written_to_the_end_is_counted_as_lost() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    let other = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let readers = readers(&records);
    // More than one batch of them.
    for _ in 0..4_500 {
        drop(Receipt::open(readers.clone(), Catalogue::default().nameless(crate::catalogue::Task::Unknown)));
    }
    records.close();
    assert_eq!((records.stats().written, records.stats().lost), (0, 4_500));
}

#[test]
fn a_lease_that_finds_room_does_not_hide_that_records_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    let other = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
    other.execute_batch("CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(FAIL, 'full'); END").unwrap();
    drop(call_read_by(readers(&records), LLAMA, "{}"));
    until("it failed", || records.stats().failures > 0);
    let commits = || records.shared.commits.load(Ordering::Relaxed);
    let before = commits();
    let held = budgets(&records, Neurons::from_whole(10_000));
    held.release();
    until("a lease was written", || commits() > before);
    assert!(!records.stats().lag.is_zero());
    other.execute_batch("DROP TRIGGER full").unwrap();
    until("the record is written", || records.stats().written == 1);
    until("that is told", || records.stats().lag.is_zero());
}

#[test]
fn much_is_deleted_a_little_at_a_time_so_that_others_can_write() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    let (readers, model) = (readers(&records), Catalogue::default().nameless(crate::catalogue::Task::Unknown));
    (0..6_000).for_each(|_| drop(Receipt::open(readers.clone(), model.clone())));
    until("they are written", || records.stats().written == 6_000);
    let path = directory.path().join("tollgate.db");
    let archive = Archive::open(&path).unwrap();
    let deleting = std::thread::spawn(move || Archive::open(&path).unwrap().delete(&Filter::default()).unwrap());
    until("some are gone and some are not", || {
        (1..6_000).contains(&archive.count(&Filter::default(), 10_000).unwrap())
    });
    assert_eq!(deleting.join().unwrap(), 6_000);
}

#[test]
fn bodies_that_wait_are_bounded_and_their_records_are_kept_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(Settings { max_waiting_payload_bytes: 2_500, ..settings(&directory) }).unwrap();
    let other = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for _ in 0..5 {
        let call = call_read_by(readers(&records), LLAMA, "{}");
        let request = Part { bytes: vec![b'x'; 1_000].into(), length: 1_000, ..Part::default() };
        call.receipt.note(|facts| facts.payload = Some(Box::new(Payload { request, ..Payload::default() })));
    }
    assert_eq!(records.stats().payloads_lost, 3);
    other.execute_batch("COMMIT").unwrap();
    until("all are written", || records.stats().written == 5);
    let archive = Archive::open(&directory.path().join("tollgate.db")).unwrap();
    let all = archive.list(&Filter::default(), 10).unwrap();
    let kept = all.iter().filter(|one| archive.payload(CallId::parse(&one.id).unwrap()).unwrap().is_some()).count();
    assert_eq!((all.len(), kept), (5, 2));
    drop(call_read_by(readers(&records), LLAMA, "{}"));
    assert_eq!(records.shared.waiting_payload_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_too_old_goes() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    drop(call_read_by(readers(&records), LLAMA, "{}"));
    records.close();
    std::thread::sleep(Duration::from_millis(2));
    let (_sender, rows) = sync_channel(1);
    let brief = Settings { retention: Duration::from_millis(1), ..settings(&directory) };
    let connection = schema::open(&brief.path, brief.max_bytes).unwrap();
    let mut writer = writer::Writer::new(brief.clone(), connection, rows, Arc::default());
    writer.forget(std::time::SystemTime::now()).unwrap();
    assert!(Archive::open(&brief.path).unwrap().list(&Filter::default(), 10).unwrap().is_empty());
}

fn budgets(records: &Arc<Records>, limit: Neurons) -> Arc<Budgets> {
    let mut settings = budget::Settings { ledger: Some(records.clone()), ..budget::Settings::default() };
    settings.rules.push(Rule::new("everyone", limit, Period::Month));
    Arc::new(Budgets::new(settings, Catalogue::default()).unwrap())
}

/// Spends neurons in calls that reserve more than they cost, and leaves some in flight.
async fn spend(budgets: &Arc<Budgets>, calls: usize, in_flight: usize) -> (Neurons, Vec<Call>) {
    let usual = call(LLAMA, "{}");
    let mut spent = Neurons::ZERO;
    let mut open = Vec::new();
    for n in 0..calls + in_flight {
        let call = Call { receipt: Receipt::open(Arc::new([]), usual.model.clone()), ..usual.clone() };
        let reserved = budgets.reserve(&call).await.unwrap().neurons();
        if n < calls {
            let cost = Neurons::from_micro(reserved.micro() / 2);
            charge(&call, cost);
            spent += cost;
        } else {
            open.push(call);
        }
    }
    (spent, open)
}

#[tokio::test]
async fn what_was_spent_survives_a_crash_within_one_percent_and_what_was_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    let upper = crate::receipt::Estimate::of(&call(LLAMA, "{}")).upper.unwrap();
    let limit = Neurons::from_micro(upper.micro() * 1_000);
    let mut known = Neurons::ZERO;
    for round in 0..6 {
        let records = Records::open(settings(&directory)).unwrap();
        let budgets = budgets(&records, limit);
        let before = budgets.status()[0].spent;
        assert!(before >= known, "round {round}: {before} after {known} were spent");
        let slack = Neurons::from_micro(upper.micro() * 3 + limit.micro() / 100);
        assert!(before <= known + slack, "round {round}: {before} after {known} were spent, {slack} are allowed");
        let (spent, open) = spend(&budgets, 60, 3).await;
        known = before + spent;
        std::thread::sleep(Duration::from_millis(30));
        // The process is killed here: nothing settles, nothing is released.
        std::mem::forget(open);
        std::mem::forget(budgets);
        records.shared.leases.lock().clear();
        records.close();
    }
}

#[tokio::test]
async fn a_clean_end_gives_back_what_was_not_spent() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    let limit = Neurons::from_whole(10_000);
    let first = budgets(&records, limit);
    let (spent, _) = spend(&first, 10, 0).await;
    first.release();
    records.close();
    let records = Records::open(settings(&directory)).unwrap();
    assert_eq!(budgets(&records, limit).status()[0].spent, spent);
}

#[tokio::test]
async fn what_no_lease_covers_is_not_spent_while_the_ledger_cannot_write() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    let upper = crate::receipt::Estimate::of(&call(LLAMA, "{}")).upper.unwrap();
    let budgets = budgets(&records, Neurons::from_micro(upper.micro() * 1_000));
    let (_, open) = spend(&budgets, 0, 1).await;
    until("the lease runs ahead", || {
        let leases = records.load("everyone/month/", 0).unwrap();
        leases.iter().any(|lease| lease.upto.micro() >= upper.micro() * 10)
    });
    let other = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut held = vec![];
    let refused = loop {
        let call = call(LLAMA, "{}");
        match budgets.reserve(&call).await {
            Ok(_) => held.push(call),
            Err(refusal) => break refusal,
        }
    };
    let covered = 1 + held.len() as u64;
    let upto = records.load("everyone/month/", 0).unwrap().iter().map(|lease| lease.upto).max().unwrap();
    assert!(Neurons::from_micro(upper.micro() * covered) <= upto, "{covered} calls, and {upto} on the books");
    assert!((2..=12).contains(&covered), "{covered} calls");
    let why = format!("{refused:?}");
    assert!(why.contains("everyone") && why.contains("cannot be written"), "{why}");
    other.execute_batch("COMMIT").unwrap();
    until("it goes on", || records.stats().lag.is_zero());
    budgets.reserve(&call(LLAMA, "{}")).await.unwrap();
    drop((open, held));
}

#[test]
fn sums_by_days_of_the_first_version_are_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let old = rusqlite::Connection::open(&settings.path).unwrap();
    old.execute_batch(
        "CREATE TABLE days (day_ms INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, account TEXT NOT NULL,
         outcome TEXT NOT NULL, calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL,
         output_tokens INTEGER NOT NULL, neurons INTEGER NOT NULL, saved INTEGER NOT NULL,
         PRIMARY KEY (day_ms, model, key, account, outcome)) WITHOUT ROWID;
         INSERT INTO days VALUES (86400000, 'm', '', 'acc', 'ok', 7, 70, 0, 9, 5000000, 0);
         INSERT INTO days VALUES (86400000, 'm', '', 'acc', 'cache_hit', 3, 30, 0, 4, 0, 2000000);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let path = settings.path.clone();
    for _ in 0..2 {
        Records::open(settings.clone()).unwrap().close();
        let archive = Archive::open(&path).unwrap();
        let usage = archive.usage(0, 172_800_000, &[Group::Day], &TimeZone::UTC).unwrap();
        assert_eq!((usage.len(), &*usage[0].names[0], usage[0].calls), (1, "1970-01-02", 10));
        let ran = archive.ran(86_400_000, 172_800_000, "acc").unwrap();
        assert_eq!(ran["m"], crate::books::Sums::new(7, 70, 9, Neurons::from_whole(5)));
        assert!(archive.ran(86_400_000, 172_800_000, "another").unwrap().is_empty());
    }
}

#[test]
fn sums_by_hours_of_the_second_version_are_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let old = rusqlite::Connection::open(&settings.path).unwrap();
    old.execute_batch(
        "CREATE TABLE hours (hour_ms INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, account TEXT NOT NULL,
         outcome TEXT NOT NULL, calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL,
         output_tokens INTEGER NOT NULL, neurons INTEGER NOT NULL, saved INTEGER NOT NULL, ran INTEGER NOT NULL,
         PRIMARY KEY (hour_ms, model, key, account, outcome)) WITHOUT ROWID;
         INSERT INTO hours VALUES (3600000, 'm', 'k', 'acc', 'ok', 7, 70, 0, 9, 5000000, 1000000, 6);
         PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(old);
    for _ in 0..2 {
        Records::open(settings.clone()).unwrap().close();
        let archive = Archive::open(&settings.path).unwrap();
        let usage = archive.usage(3_600_000, 4_500_000, &[Group::Key, Group::Day], &TimeZone::UTC).unwrap();
        assert_eq!((usage.len(), usage[0].calls, usage[0].saved), (1, 7, Neurons::from_whole(1)));
        assert_eq!(usage[0].names, ["k", "1970-01-01"]);
        let ran = archive.ran(0, 172_800_000, "acc").unwrap();
        assert_eq!(ran["m"], crate::books::Sums::new(6, 70, 9, Neurons::from_whole(5)));
    }
}

#[test]
fn a_day_is_that_of_its_time_zone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    Records::open(settings.clone()).unwrap().close();
    let connection = rusqlite::Connection::open(&settings.path).unwrap();
    // Each quarter of an hour of the two days of Berlin's change to summer time, 2026-03-29 and the day before, in UTC and around.
    let begin = "2026-03-27T22:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    for quarter in 0..4 * 49 {
        let row = "INSERT INTO quarters VALUES (?1, 'm', '', 'acc', 'ok', 1, 0, 0, 0, 1000000, 0, 1)";
        connection.execute(row, [begin + quarter * 900_000]).unwrap();
    }
    drop(connection);
    let archive = Archive::open(&settings.path).unwrap();
    let days = |zone: &str| -> Vec<(String, u64)> {
        let zone = TimeZone::get(zone).unwrap();
        let usage = archive.usage(0, u64::MAX >> 1, &[Group::Day], &zone).unwrap();
        usage.into_iter().map(|line| (line.names.concat(), line.calls)).collect()
    };
    let day = |day: &str, quarters| (day.to_owned(), quarters);
    let berlin = [day("2026-03-27", 4), day("2026-03-28", 96), day("2026-03-29", 92), day("2026-03-30", 4)];
    assert_eq!(days("Europe/Berlin"), berlin);
    assert_eq!(days("Asia/Kathmandu"), [day("2026-03-28", 81), day("2026-03-29", 96), day("2026-03-30", 19)]);
    assert_eq!(days("UTC").iter().map(|(_, quarters)| quarters).sum::<u64>(), 196);
}

#[test]
fn the_oldest_go_where_the_database_is_too_large_and_sums_stay() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(settings(&directory)).unwrap();
    for _ in 0..5_000 {
        let call = call_read_by(readers(&records), LLAMA, "{}");
        charge(&call, Neurons::from_whole(1));
    }
    records.close();
    let archive = Archive::open(&directory.path().join("tollgate.db")).unwrap();
    let newest = archive.list(&Filter::default(), 1).unwrap()[0].id.clone();
    let (_sender, rows) = sync_channel(1);
    let small = Settings { max_bytes: 1 << 20, ..settings(&directory) };
    let connection = schema::open(&small.path, small.max_bytes).unwrap();
    let mut writer = writer::Writer::new(small, connection, rows, Arc::default());
    // A sweep takes two thousand at most.
    (0..3).for_each(|_| writer.sweep().unwrap());
    let left = archive.list(&Filter::default(), 5_000).unwrap();
    assert!(!left.is_empty() && left.len() < 5_000, "{} are left", left.len());
    assert_eq!(left[0].id, newest);
    let usage = archive.usage(0, u64::MAX >> 1, &[Group::Model], &TimeZone::UTC).unwrap();
    assert_eq!((usage[0].calls, usage[0].neurons), (5_000, Neurons::from_whole(5_000)));
}
