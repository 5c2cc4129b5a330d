//! Files of earlier versions, as their releases left them, are opened by this one.
//!
//! `tests/data/kept/VERSION/` has one of each. Before a release, the files of its version are kept by
//! `TOLLGATE_KEEP=1 cargo test --lib of_this_and_every_earlier_version`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::call::Call;
use crate::catalogue::Catalogue;
use crate::layers::budget::{self, Budgets, Clock, Period, Rule};
use crate::layers::testing::{LLAMA, call_read_by, versions};
use crate::neurons::Neurons;
use crate::payload::{Part, Payload};
use crate::receipt::{CallId, Cost, Outcome, Reader, Readers, Source};

struct Watch(AtomicU64);

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A moment of the month in which the budget of these files was spent.
const THEN_MS: u64 = 1_795_000_000_000;

fn budgets(records: &Arc<Records>) -> Budgets {
    let ledger = Some(records.clone() as Arc<dyn Ledger>);
    let mut settings =
        budget::Settings { ledger, clock: Arc::new(Watch(THEN_MS.into())), ..budget::Settings::default() };
    settings.rules.push(Rule::new("everyone", Neurons::from_whole(10_000), Period::Month));
    Budgets::new(settings, Catalogue::default()).unwrap()
}

fn settings(path: &Path) -> Settings {
    // The files stay longer in the repository than records are kept.
    let retention = Duration::from_secs(500 * 366 * 24 * 3600);
    Settings { path: path.to_owned(), retention, ..Settings::default() }
}

/// Writes the files of this version.
async fn write(place: &Path) {
    let path = place.join("tollgate.db");
    let records = Records::open(settings(&path)).unwrap();
    let budgets = budgets(&records);
    let readers: Readers = Arc::new([records.clone() as Arc<dyn Reader>]);
    for n in 1..=3 {
        let call: Call = call_read_by(readers.clone(), LLAMA, "{}");
        let _reserved = budgets.reserve(&call).await.unwrap();
        call.receipt.note(|facts| {
            facts.cost = Cost { neurons: Neurons::from_whole(n), source: Source::Reported, ..Cost::default() };
            (facts.outcome, facts.key) = (Outcome::Ok, Some("team".into()));
            let request = Part { bytes: b"question".to_vec().into(), length: 8, ..Part::default() };
            facts.payload = Some(Box::new(Payload { request, ..Payload::default() }));
        });
    }
    budgets.release();
    records.close();
    std::fs::remove_file(place.join("tollgate.db-lock")).unwrap_or_default();
}

#[tokio::test]
async fn the_records_and_leases_of_this_and_every_earlier_version_are_read() {
    let this = tempfile::tempdir().unwrap();
    write(this.path()).await;
    for version in versions(this.path()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tollgate.db");
        std::fs::copy(version.join("tollgate.db"), &path).unwrap();
        // The leases of a month that is over are swept once the writer runs; they are looked at before.
        drop(schema::open(&path, 8 << 30).unwrap());
        let leases = books::load(&schema::open_to_read(&path).unwrap(), "everyone/month/").unwrap();
        assert_eq!(leases.iter().map(|lease| lease.spent).sum::<Neurons>(), Neurons::from_whole(6), "{version:?}");

        let records = Records::open(settings(&path)).unwrap();
        let readers: Readers = Arc::new([records.clone() as Arc<dyn Reader>]);
        drop(call_read_by(readers, LLAMA, "{}"));
        records.close();
        let archive = Archive::open(&path).unwrap();
        let all = archive.list(&Filter::default(), 10).unwrap();
        let neurons: Vec<_> = all.iter().map(|record| record.neurons).collect();
        assert!(all.len() == 4 && [1.0, 2.0, 3.0].iter().all(|n| neurons.contains(n)), "{version:?}: {neurons:?}");
        let kept = all.iter().filter(|one| archive.payload(CallId::parse(&one.id).unwrap()).unwrap().is_some());
        assert_eq!(kept.count(), 3, "{version:?}");
        let usage = archive.usage(0, u64::MAX >> 1, &[Group::Key], &jiff::tz::TimeZone::UTC).unwrap();
        let team = usage.iter().find(|usage| usage.names == ["team"]).unwrap();
        assert_eq!((team.calls, team.neurons), (3, Neurons::from_whole(6)), "{version:?}");
    }
}
