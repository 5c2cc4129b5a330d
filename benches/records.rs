//! A million records: what they cost a request's path, and how fast they are read back.
//!
//!   cargo bench --bench records

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tollgate::catalogue::Catalogue;
use tollgate::readers::records::{Archive, Filter, Group, Records, Settings};
use tollgate::receipt::{CallId, Facts, Outcome, Reader, Receipt};

const RECORDS: u64 = 1_000_000;
const QUEUE: u64 = 65_536;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    let mut settings = Settings::default();
    settings.path = path.clone();
    settings.retention = Duration::from_secs(365 * 24 * 3600);
    let records = Records::open(settings).unwrap();
    let catalogue = Catalogue::default();
    let models = catalogue.models();
    let now = SystemTime::now();
    let mut on_the_path = Duration::ZERO;
    for n in 0..RECORDS {
        // No faster than they can be written, or they would be lost by design.
        while records.stats().waiting > QUEUE / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let facts = facts(&models, now, n);
        let began = Instant::now();
        records.sealed(&facts);
        on_the_path += began.elapsed();
    }
    records.close();
    println!("on the request's path: {:?} a record; {:?}", on_the_path / RECORDS as u32, records.stats());

    let archive = Archive::open(&path).unwrap();
    for group in [Group::Day, Group::Model, Group::Key] {
        let began = Instant::now();
        let usage = archive.usage(0, u64::MAX >> 1, &[group], &jiff::tz::TimeZone::UTC).unwrap();
        println!("usage of all by {group:?}: {:?}, {} lines", began.elapsed(), usage.len());
    }
    // The commands, as people run them: a month of them all.
    let month = |arguments: &[&str]| {
        let began = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).arg("--records").arg(&path).args(["--since", "31d"]).current_dir(directory.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        println!("{}: {:?}, {} bytes", arguments.join(" "), began.elapsed(), output.stdout.len());
    };
    month(&["report", "--by", "key"]);
    month(&["report", "--by", "key", "--csv"]);
    month(&["usage", "--by", "key,day"]);
    month(&["usage", "--format", "focus"]);
    let filter = |change: &dyn Fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    let rare = models[3].id.to_string();
    for filter in [
        filter(&|_| {}),
        filter(&|filter| filter.key = Some("team-7".into())),
        filter(&|filter| (filter.model, filter.outcome) = (Some(rare.clone()), Some("timeout".into()))),
        filter(&|filter| (filter.key, filter.model) = (Some("team-8".into()), Some(rare.clone()))),
        filter(&|filter| (filter.cached, filter.key) = (Some(true), Some("team-7".into()))),
        filter(&|filter| filter.success = Some(false)),
        filter(&|filter| {
            (filter.key, filter.outcome, filter.status) = (Some("team-7".into()), Some("aborted".into()), Some(500))
        }),
    ] {
        let began = Instant::now();
        // As the log API reads it: the page, a far one, and the total.
        let page = archive.page(&filter, 0, 50).unwrap();
        let near = began.elapsed();
        archive.page(&filter, 9_950, 50).unwrap();
        let total = archive.count(&filter, 10_000).unwrap();
        println!(
            "a page of {} of {total}: {near:?}, with a far one and the total {:?}: {filter:?}",
            page.len(),
            began.elapsed()
        );
    }
}

/// The n-th of a million calls spread over the last month.
fn facts(models: &[Arc<tollgate::catalogue::Model>], now: SystemTime, n: u64) -> Facts {
    let receipt = Receipt::open(Arc::new([]), models[(n % 40) as usize].clone());
    let mut facts = receipt.read(Clone::clone);
    facts.received_at = now - Duration::from_millis(2_592 * (RECORDS - n));
    let ms = facts.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    facts.id = CallId::from_bytes((ms << 80 | u128::from(n)).to_be_bytes());
    facts.key = Some(format!("team-{}", n % 50).into());
    facts.outcome = Outcome::ALL[(n % 97 % 8) as usize];
    facts
}
