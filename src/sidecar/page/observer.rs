//! What the page shows besides the budgets, looked at again and again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use parking_lot::{Mutex, MutexGuard};

use super::history::{History, MINUTES};
use crate::readers::metrics::Metrics;
use crate::readers::recent::Recent;
use crate::readers::records::{Archive, Group, RecordsError};
use crate::readers::running::Running;

/// See the [module](self).
#[derive(Clone)]
pub(in crate::sidecar) struct Page {
    pub(in crate::sidecar) recent: Arc<Recent>,
    pub(super) running: Arc<Running>,
    metrics: Arc<Metrics>,
    history: Arc<Mutex<History>>,
}

/// How often the counters are looked at where nobody watches.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Lines that are read of earlier runs.
const REMEMBERED: usize = 5_000;
impl Page {
    pub(in crate::sidecar) fn new(metrics: Arc<Metrics>, recent: Arc<Recent>, running: Arc<Running>) -> Self {
        Self { recent, running, metrics, history: Arc::default() }
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

    pub(super) fn look(&self) {
        self.history.lock().observe(minute(SystemTime::now()), Instant::now(), self.metrics.totals());
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }
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
