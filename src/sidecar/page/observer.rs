//! What the page shows besides the budgets, looked at again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::tz::TimeZone;
use parking_lot::{Mutex, MutexGuard};

use super::history::{History, MINUTES};
use crate::catalogue::Catalogue;
use crate::readers::metrics::Metrics;
use crate::readers::recent::Recent;
use crate::readers::records::{Archive, Group, RecordsError};
use crate::readers::running::Running;
use crate::sidecar::advice::{self, Advice, Known};
use crate::sidecar::outlook::Outlook;

/// See the [module](self).
#[derive(Clone)]
pub(in crate::sidecar) struct Page {
    pub(in crate::sidecar) recent: Arc<Recent>,
    pub(super) running: Arc<Running>,
    metrics: Arc<Metrics>,
    history: Arc<Mutex<History>>,
    /// What the records of the last days show to be wasted.
    advice: Arc<ArcSwap<Vec<Advice>>>,
    /// How the month will end, as far as that can be said.
    pub(in crate::sidecar) outlook: Arc<ArcSwapOption<Outlook>>,
}

/// How often the counters are looked at where nobody watches.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The records are looked at for waste soon after the start, then twice as late each time, and at last as often.
const FIRST_ADVICE: Duration = Duration::from_secs(3);
const ADVISE_EVERY: Duration = Duration::from_secs(15 * 60);
/// So far back.
const ADVISED_MS: u64 = 7 * 24 * 3600 * 1000;
/// Lines that are read of earlier runs.
const REMEMBERED: usize = 5_000;
impl Page {
    pub(in crate::sidecar) fn new(metrics: Arc<Metrics>, recent: Arc<Recent>, running: Arc<Running>) -> Self {
        Self { recent, running, metrics, history: Arc::default(), advice: Arc::default(), outlook: Arc::default() }
    }

    /// Looks at the counters again and again, after it has read what earlier runs wrote.
    pub(in crate::sidecar) async fn watch(self, earlier: Option<Archive>) {
        if let Some(earlier) = earlier {
            let history = self.history.clone();
            let remembered = tokio::task::spawn_blocking(move || remember(&earlier, &history)).await;
            if let Ok(Err(why)) = remembered {
                tracing::debug!(%why, "the page begins without what earlier runs have written");
            }
        }
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    /// Looks at the records again and again for what is wasted, on a thread for such work. `priced` are the models that the config
    /// has prices for.
    pub(in crate::sidecar) async fn advise(self, records: PathBuf, catalogue: Arc<Catalogue>, priced: Vec<String>) {
        let mut pause = FIRST_ADVICE;
        loop {
            tokio::time::sleep(pause).await;
            let (records, catalogue, priced) = (records.clone(), catalogue.clone(), priced.clone());
            let advised = tokio::task::spawn_blocking(move || advised(&records, &catalogue, priced)).await;
            match advised {
                Ok(Ok(advice)) => self.advice.store(Arc::new(advice)),
                Ok(Err(why)) => tracing::debug!(%why, "the page has no advice"),
                Err(_) => {}
            }
            pause = (pause * 2).min(ADVISE_EVERY);
        }
    }

    pub(super) fn advice(&self) -> Arc<Vec<Advice>> {
        self.advice.load_full()
    }

    pub(super) fn look(&self) {
        self.history.lock().observe(minute(SystemTime::now()), Instant::now(), self.metrics.totals());
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }
}

/// Keys without use are left out: which ones there are may change by the second.
fn advised(records: &Path, catalogue: &Catalogue, priced: Vec<String>) -> Result<Vec<Advice>, RecordsError> {
    let now = SystemTime::now();
    let until_ms = u64::try_from(since_1970(now).as_millis()).unwrap_or(u64::MAX);
    let evidence = Archive::open(records)?.evidence(until_ms.saturating_sub(ADVISED_MS), until_ms)?;
    Ok(advice::advice(&evidence, &Known { catalogue, keys: Vec::new(), priced, now }))
}

fn remember(archive: &Archive, history: &Mutex<History>) -> Result<(), RecordsError> {
    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
    let now = since_1970(SystemTime::now()).as_millis() as u64;
    let midnight = now - now % DAY_MS;
    let moments = archive.minutes(now.saturating_sub(MINUTES as u64 * MINUTE_MS), now, REMEMBERED)?;
    let today = archive.usage(midnight, midnight + DAY_MS, &[Group::Model], &TimeZone::UTC)?;
    history.lock().remember(now / MINUTE_MS, moments, today);
    Ok(())
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn minute(at: SystemTime) -> u64 {
    since_1970(at).as_secs() / 60
}
