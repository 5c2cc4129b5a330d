//! The database as a file: its names, its size, and what a broken disk makes of it.

use std::path::{Path, PathBuf};

use super::*;
use crate::catalogue::Catalogue;
use crate::layers::budget::{self, Budgets, OnExceeded, Period, Rule};
use crate::layers::testing::{LLAMA, call_read_by};
use crate::neurons::Neurons;
use crate::payload::{Part, Payload};
use crate::receipt::{Cost, Reader, Readers, Source};

fn settings(path: &Path) -> Settings {
    Settings { path: path.to_owned(), ..Settings::default() }
}

fn budgets(records: &Arc<Records>, on_exceeded: OnExceeded) -> Result<Budgets, budget::RuleError> {
    let ledger = Some(records.clone() as Arc<dyn Ledger>);
    let mut settings = budget::Settings { ledger, ..budget::Settings::default() };
    settings.rules.push(Rule { on_exceeded, ..Rule::new("everyone", Neurons::from_whole(10_000), Period::Month) });
    Budgets::new(settings, Catalogue::default())
}

/// A database in which a budget has spent this, closed well.
async fn spent(path: &Path, neurons: Neurons) {
    let records = Records::open(settings(path)).unwrap();
    let budgets = budgets(&records, OnExceeded::Reject).unwrap();
    let readers: Readers = Arc::new([records.clone() as Arc<dyn Reader>]);
    let call = call_read_by(readers, LLAMA, "{}");
    let _reserved = budgets.reserve(&call).await.unwrap();
    call.receipt.note(|facts| facts.cost = Cost { neurons, source: Source::Reported, ..Cost::default() });
    drop(call);
    budgets.release();
    records.close();
}

#[tokio::test]
async fn a_database_has_one_writer_by_whatever_name() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let path = place("tollgate.db");
    spent(&path, Neurons::from_whole(7)).await;
    std::os::unix::fs::symlink(&path, place("symbolic")).unwrap();
    std::fs::hard_link(&path, place("hard")).unwrap();
    let names = [path.clone(), place("symbolic"), place("hard"), directory.path().join("./tollgate.db")];
    for first in &names {
        let held = Records::open(settings(first)).unwrap();
        for second in &names {
            assert!(matches!(Records::open(settings(second)), Err(RecordsError::Taken { .. })), "{first:?} {second:?}");
        }
        assert_eq!(budgets(&held, OnExceeded::Reject).unwrap().status()[0].spent, Neurons::from_whole(7), "{first:?}");
        held.close();
    }
}

/// Changes one bit in a copy.
fn broken(whole: &[u8], place: usize, directory: &Path) -> PathBuf {
    let path = directory.join("broken.db");
    let mut bytes = whole.to_vec();
    bytes[place] ^= 1 << (place % 8);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(directory.join(format!("broken.db{suffix}")));
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `TOLLGATE_CASES=100000` for more places.
#[tokio::test]
async fn a_budget_goes_on_from_what_was_spent_or_not_at_all_whatever_bit_is_broken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    spent(&path, Neurons::from_whole(7)).await;
    let whole = std::fs::read(&path).unwrap();
    let cases: usize = std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(600);
    let (mut refused, step) = (0, (whole.len() / cases).max(1) | 1);
    for place in (0..whole.len()).step_by(step) {
        let path = broken(&whole, place, directory.path());
        let opened = Records::open(settings(&path)).map_err(|error| error.to_string());
        let restored = opened.and_then(|records| {
            let restored = budgets(&records, OnExceeded::Reject).map_err(|error| error.to_string());
            let counts = budgets(&records, OnExceeded::Allow);
            assert!(counts.is_ok(), "one that only counts goes on");
            restored.map(|budgets| budgets.status()[0].spent)
        });
        match restored {
            Ok(spent) => assert_eq!(spent, Neurons::from_whole(7), "bit {} of byte {place}", place % 8),
            Err(_) => refused += 1,
        }
    }
    println!("{refused} of {} refused", whole.len() / step);
    assert!(refused > 0);
}

#[test]
fn the_file_and_its_log_stay_under_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    let max_bytes = 6 << 20;
    let records = Records::open(Settings { max_bytes, ..settings(&path) }).unwrap();
    let readers: Readers = Arc::new([records.clone() as Arc<dyn Reader>]);
    let mut largest = 0;
    for round in 0..60 {
        for n in 0..20 {
            let call = call_read_by(readers.clone(), LLAMA, "{}");
            let bytes = vec![b'x'; if n % 5 == 0 { 100_000 } else { 2_000 }];
            let length = bytes.len() as u64;
            let request = Part { bytes: bytes.into(), length, ..Part::default() };
            call.receipt.note(|facts| facts.payload = Some(Box::new(Payload { request, ..Payload::default() })));
        }
        while records.stats().waiting > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let size = |suffix: &str| {
            std::fs::metadata(directory.path().join(format!("tollgate.db{suffix}"))).map_or(0, |file| file.len())
        };
        largest = largest.max(size("") + size("-wal") + size("-shm"));
        let parts = [size(""), size("-wal"), size("-shm")];
        assert!(largest <= max_bytes, "{largest} bytes after {round} rounds: {parts:?}");
    }
    records.close();
    let kept = Archive::open(&path).unwrap().count(&Filter::default(), 10_000).unwrap();
    println!("{largest} bytes at most, of {max_bytes} allowed; {kept} of 1,200 records are there");
    assert!(kept > 50, "{kept}");
}
