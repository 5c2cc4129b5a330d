//! What the routes of the admin port share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::notices::Fact;
use super::page::observer::Page;
use super::reload::Reloads;
use super::replicas::StoreStatus;
use super::spending::Spending;
use crate::books::Known;
use crate::catalogue::Catalogue;
use crate::layers::cache::CacheLayer;
use crate::readers::metrics::Metrics;
use crate::replicas::SharedCache;

/// What the admin port shows.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) metrics: Arc<Metrics>,
    pub(super) page: Page,
    pub(super) cache: CacheLayer,
    pub(super) spending: Arc<Spending>,
    pub(super) known: Arc<Known>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) records_path: Option<PathBuf>,
    pub(super) store: Option<StoreStatus>,
    pub(super) shared_cache: Option<SharedCache>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) stop: CancellationToken,
}

impl Admin {
    /// Tells the other gates, where there are any.
    pub(super) fn tell(&self, fact: impl FnOnce() -> Fact) {
        if let Some(store) = &self.store {
            store.board.tell(fact());
        }
    }
}
