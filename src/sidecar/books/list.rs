//! The vendor's list of models, read by the day.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::kept::Kept;
use super::pause::pause;
use crate::books::{Books, BooksError, Known};
use crate::catalogue::{Catalogue, Change};
use crate::readers::metrics::Metrics;

/// Reads it again and again. Cloning shares what it writes on.
#[derive(Clone)]
pub(super) struct ListWatch {
    books: Books,
    catalogue: Arc<Catalogue>,
    known: Arc<Known>,
    kept: Kept,
    every: Duration,
}

impl ListWatch {
    pub(super) fn new(books: Books, catalogue: Arc<Catalogue>, known: Arc<Known>, kept: Kept, every: Duration) -> Self {
        Self { books, catalogue, known, kept, every }
    }

    pub(super) async fn watch(self, metrics: Arc<Metrics>) {
        let mut failures = 0;
        loop {
            failures = match self.read().await {
                Ok(()) => {
                    metrics.begin_at_zero(&self.catalogue);
                    0
                }
                Err(why) => {
                    if self.known.note_list_trouble(&why) {
                        tracing::warn!(%why, "the vendor's models cannot be read: those known stay in force");
                    }
                    failures + 1
                }
            };
            tokio::time::sleep(pause(self.every, failures)).await;
        }
    }

    async fn read(&self) -> Result<(), BooksError> {
        let models = self.books.models().await?;
        let changes = self.catalogue.update(&models);
        for change in &changes {
            self.tell(change);
        }
        let now = SystemTime::now();
        tracing::debug!(models = models.len(), changes = changes.len(), "the vendor's models were read");
        self.known.note_list(now, &changes);
        let kept = self.kept.clone();
        // One that panicked has said so itself.
        let _ = tokio::task::spawn_blocking(move || kept.keep(now, models)).await;
        Ok(())
    }

    fn tell(&self, change: &Change) {
        match change {
            Change::Arrived { .. } => tracing::info!("{change}"),
            Change::Leaving { model, .. } => {
                let days_left = self.catalogue.get(model).and_then(|model| model.days_left(SystemTime::now()));
                tracing::warn!(days_left, "{change}");
            }
            _ => tracing::warn!("{change}"),
        }
    }
}
