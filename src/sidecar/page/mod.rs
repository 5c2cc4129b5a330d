//! The live page: what is being spent on what, for whoever opens the admin port in a browser.
//!
//! The page is whole without a script; with one it asks for its changing part every two seconds. Nothing comes from
//! elsewhere, and nothing is kept but the last hour by minutes and today's sums.

mod books;
pub(crate) mod chart;
pub(crate) mod figures;
mod history;
mod speech;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::tz::TimeZone;
use parking_lot::Mutex;

use self::history::{History, MINUTES};
use self::view::Now;
use super::admin::Admin;
use crate::readers::metrics::Metrics;
use crate::readers::recent::Recent;
use crate::readers::records::{Archive, Group, RecordsError};
use crate::readers::running::Running;

/// What the page shows besides the budgets.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) recent: Arc<Recent>,
    running: Arc<Running>,
    metrics: Arc<Metrics>,
    history: Arc<Mutex<History>>,
}

/// How often the counters are looked at where nobody watches.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Lines that are read of earlier runs.
const REMEMBERED: usize = 5_000;
/// Scripts and styles are ours alone; nothing is sent anywhere. Bars and colours are set in `style` attributes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Page {
    pub(super) fn new(metrics: Arc<Metrics>, recent: Arc<Recent>, running: Arc<Running>) -> Self {
        Self { recent, running, metrics, history: Arc::default() }
    }

    /// Looks at the counters again and again, after it has read what earlier runs wrote.
    pub(super) async fn watch(self, earlier: Option<Archive>) {
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

    fn look(&self) {
        self.history.lock().observe(minute(SystemTime::now()), Instant::now(), self.metrics.totals());
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

pub(super) fn router() -> Router<Admin> {
    let file = |kind: &'static str, text: &'static str| get(async move || sent(kind, text.to_owned()));
    Router::new()
        .route("/", get(page))
        .route("/page/now", get(fragment))
        .route("/page/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/page/script.js", file("text/javascript; charset=utf-8", include_str!("script.js")))
}

async fn page(State(admin): State<Admin>) -> Response {
    sent(HTML, with_now(&admin, view::page))
}

async fn fragment(State(admin): State<Admin>) -> Response {
    sent(HTML, with_now(&admin, |now| view::fragment(now).into_string()))
}

const HTML: &str = "text/html; charset=utf-8";

fn with_now(admin: &Admin, view: impl FnOnce(&Now<'_>) -> String) -> String {
    admin.page.look();
    let history = admin.page.history.lock();
    view(&Now {
        at: SystemTime::now(),
        budgets: admin.spending.budgets.get().status(),
        history: &history,
        calls: admin.page.recent.calls(),
        sockets: admin.page.running.sockets(),
        records: admin.spending.records.as_ref().map(|records| records.stats()),
        known: &admin.known,
        catalogue: &admin.catalogue,
        trouble: admin.reloads.standing().trouble,
    })
}

fn sent(kind: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}
