//! A call's look into the further tier, and what it keeps there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::key::Key;
use super::landed::Landed;
use super::shared::Shared;
use super::snapshot;
use super::store::{Entry, Kind};
use super::tier::{Found, Looked, Mark, Tier};
use crate::Error;
use crate::layers::Reply;

/// The further tier as one flight knows it.
pub(super) struct Further {
    shared: Arc<Shared>,
    tier: Arc<dyn Tier>,
    mark: OnceLock<Mark>,
}

/// Texts of one call that are looked for at once: what comes back is to be here within a few milliseconds.
pub(super) const MAX_LOOKED: usize = 32;

// === impl Further ===

impl Further {
    /// `None` where the cache has no further tier.
    pub(super) fn of(shared: &Arc<Shared>) -> Option<Arc<Self>> {
        let tier = shared.tier.clone()?;
        Some(Arc::new(Self { shared: shared.clone(), tier, mark: OnceLock::new() }))
    }

    /// What is kept under these keys there; from here on it is kept here, too.
    pub(super) async fn find(&self, model: &Arc<str>, keys: &[Key]) -> Vec<Option<Entry>> {
        let Shared { store, purges, landings, .. } = &*self.shared;
        let purged = purges.load(Ordering::Acquire);
        let names: Vec<_> = keys.iter().map(|key| self.name(*key)).collect();
        let Looked { mark, found } = self.tier.look(model, names.clone()).await;
        // What was forgotten here while it was looked for there is not brought back.
        if purges.load(Ordering::Acquire) != purged {
            return vec![None; keys.len()];
        }
        if let Some(mark) = mark {
            // Only the first look of a flight tells one.
            let _ = self.mark.set(mark);
        }
        let mut entries = Vec::with_capacity(keys.len());
        for (place, key) in keys.iter().enumerate() {
            let found = found.get(place).and_then(Option::as_ref);
            let entry = found.and_then(|found| self.entry(names[place], found)).filter(|entry| entry.model == *model);
            if let Some(entry) = &entry {
                store.keep(*key, entry.clone());
            }
            entries.push(entry);
        }
        if entries.iter().any(Option::is_some) {
            landings.fetch_add(1, Ordering::Release);
        }
        entries
    }

    /// Keeps it there, too, where that was looked at before the call.
    pub(super) fn keep(&self, key: Key, entry: &Entry) {
        let Some(mark) = self.mark.get().filter(|_| entry.body.len() <= self.tier.max_bytes()) else { return };
        let name = self.name(key);
        if let Some(bytes) = snapshot::encode(Key(name), entry) {
            self.tier.keep(name, mark, bytes, entry.ttl);
        }
    }

    /// The key by which other gates know it: those before another upstream have other answers.
    fn name(&self, key: Key) -> [u8; 32] {
        key.before(self.shared.store.secret(), &self.shared.settings.upstream)
    }

    /// As old as both clocks say that it is: a gate's own, and what is left by the tier's.
    fn entry(&self, name: [u8; 32], found: &Found) -> Option<Entry> {
        let (key, mut entry) = snapshot::decode(&found.bytes)?;
        let now = self.shared.store.now();
        let told = now.duration_since(entry.kept_at).unwrap_or_default();
        let age = told.max(entry.ttl.saturating_sub(found.left));
        entry.kept_at = now.checked_sub(age)?;
        (key.0 == name && age < entry.ttl).then_some(entry)
    }
}

/// The answer of the further tier, or what the call itself brings.
pub(super) async fn or_call(
    further: Option<&Further>,
    key: Key,
    model: Arc<str>,
    call: impl Future<Output = Result<Reply, Error>>,
) -> Result<Reply, Error> {
    let Some(further) = further else { return call.await };
    match further.find(&model, &[key]).await.pop().flatten() {
        Some(entry) if matches!(entry.kind, Kind::Reply(_)) => {
            Ok(Landed { entry: Arc::new(entry), similar: None }.reply())
        }
        _ => call.await,
    }
}
