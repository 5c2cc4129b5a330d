//! What goes on beside the admin port, on its thread.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::admin_state::Admin;
use super::books::Reading;
use super::changes::{self, Changes, Health, Snapshot};
use super::guard::Guard;
use super::handover::Offer;
use super::listen::Serving;
use super::runtimes::Runtimes;
use super::webhooks::Watcher;
use super::{admin, listen, outlook, service, tls};
use crate::batches::Batches;
use crate::layers::rate_limit::RateLimitLayer;
use crate::readers::metrics::Metrics;
use crate::readers::records::Archive;

/// What it needs.
pub(super) struct Background {
    /// What earlier runs wrote, for the page.
    pub(super) earlier: Option<Archive>,
    /// The vendor's books.
    pub(super) reading: Arc<Reading>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) look: Watcher,
    /// The models that the config has prices for.
    pub(super) priced: Vec<String>,
    pub(super) certificates: Vec<tls::Acceptor>,
    pub(super) runtimes: Runtimes,
    pub(super) health: Arc<Health>,
    pub(super) limits: RateLimitLayer,
    /// What the next gate may have.
    pub(super) offer: Option<Offer>,
}

/// Looks now and then which batches have waited too long.
async fn release_batches(batches: Batches) {
    loop {
        tokio::time::sleep(RELEASE_EVERY).await;
        batches.release(SystemTime::now());
    }
}

const RELEASE_EVERY: Duration = Duration::from_secs(1);

/// Serves the admin port until it is stopped.
pub(super) async fn serve_admin(
    listeners: Vec<std::net::TcpListener>,
    admin: Admin,
    guard: Guard,
    background: Background,
    serving: Serving,
    stop: CancellationToken,
) -> io::Result<()> {
    tokio::spawn(admin.page.clone().watch(background.earlier));
    tokio::spawn(release_batches(admin.spending.batches.clone()));
    if let Some(records) = admin.records_path.clone() {
        tokio::spawn(admin.page.clone().advise(records.clone(), admin.catalogue.clone(), background.priced));
        let (outlook, reloads) = (admin.page.outlook.clone(), admin.reloads.clone());
        tokio::spawn(outlook::watch(records, outlook, background.look.events.clone(), move || reloads.labels()));
    }
    if let Some(offer) = background.offer {
        tokio::spawn(offer.wait(admin.stop.clone()));
    }
    background.reading.start(&background.metrics);
    tokio::spawn(background.look.watch());
    tokio::spawn(service::watchdog(background.runtimes));
    for certificates in background.certificates {
        tokio::spawn(certificates.watch());
    }
    tokio::spawn(follow_keys(admin.clone()));
    tokio::spawn(tell_changes(admin.clone(), background.health, background.limits));
    listen::serve(listeners, admin::router(admin, guard), serving, stop).await
}

/// Looks at how all stands, again and again, and tells the log what has changed.
async fn tell_changes(admin: Admin, health: Arc<Health>, limits: RateLimitLayer) {
    let mut changes = Changes::default();
    let mut ticks = tokio::time::interval(changes::LOOK_EVERY);
    loop {
        ticks.tick().await;
        let (budgets, models) = (admin.spending.budgets.get().status(), limits.snapshot());
        let records = admin.spending.records.as_ref().map(|records| records.stats());
        let seen = Snapshot {
            budgets: &budgets,
            models: &models,
            failures: health.failures(),
            refusals: health.refusals(),
            records,
        };
        let name = |slot| {
            let models = admin.catalogue.models();
            let found = models.iter().find(|model| model.is_listed() && model.slot == slot);
            found.map_or_else(|| "other".into(), |model| model.id.clone())
        };
        changes.look(&seen).iter().for_each(|change| change.log(name));
    }
}

/// How often it is looked whether another process has written the keys: what it has made or revoked is in force within a second.
const LOOK_AT_KEYS: Duration = Duration::from_millis(300);

/// Puts in force what `tollgate keys` has written.
async fn follow_keys(admin: Admin) {
    let Some(store) = admin.spending.keys.clone() else { return };
    let mut last = store.version().ok();
    let mut ticks = tokio::time::interval(LOOK_AT_KEYS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let version = match store.version() {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::warn!(%error, "the keys' file cannot be read: the keys stay as they were");
                continue;
            }
        };
        if version == last {
            continue;
        }
        let reloads = admin.reloads.clone();
        match tokio::task::spawn_blocking(move || reloads.renew()).await {
            Ok(Ok(())) => {
                last = version;
                tracing::info!("the keys were changed, and are in force");
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the keys were changed, and cannot be read: they stay as they were")
            }
            Err(_) => {}
        }
    }
}
