//! A further place where answers are kept: what other gates have kept, and what this one keeps for them.
//!
//! It is asked where this gate has nothing of its own, inside the call's [flight](super::flight): once for all who want the same at
//! once. A hit there goes no further than one here: no budget, no limit and no attempt knows of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::response;

use super::key::Key;
use super::snapshot;
use super::store::{Entry, Kind};
use super::{Reply, Shared};
use crate::Error;
use crate::body::Body;

/// Where answers are kept beside this gate's memory. Whatever goes wrong there is nothing found and nothing kept, never an error.
pub trait Tier: fmt::Debug + Send + Sync + 'static {
    /// What digests are keyed with: the same at all gates, so that an answer has one key at all of them.
    fn secret(&self) -> [u8; 32];

    /// The largest thing that it takes, in bytes.
    fn max_bytes(&self) -> usize;

    /// Looks for what is kept of this model under these keys, in a bounded time.
    fn look(&self, model: &str, keys: Vec<[u8; 32]>) -> Looking;

    /// Keeps this for so long, behind the call's back; `mark` is what a [look](Self::look) from before the call told.
    fn keep(&self, key: [u8; 32], mark: &Mark, bytes: Vec<u8>, ttl: Duration);

    /// Forgets one model's answers, or all of them, also for gates that cannot be reached now. Tells whether that is done; where it
    /// is not, it is done as soon as it can be, and nothing is found before.
    fn purge(&self, model: Option<&str>) -> Purging;
}

/// What was found, to come.
pub type Looking = Pin<Box<dyn Future<Output = Looked> + Send>>;
/// Whether it has been forgotten, to come; in a bounded time.
pub type Purging = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What to keep the call's answer under; `None` where it is not to be kept.
    pub mark: Option<Mark>,
    /// In the order of the keys.
    pub found: Vec<Option<Found>>,
}

/// Something that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As they were given to be kept.
    pub bytes: Vec<u8>,
    /// How long it may still be given out.
    pub left: Duration,
}

/// What was not yet purged when it was looked. An answer whose call began before a purge is kept under an older one, and so found
/// by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub Arc<[u8]>);

/// The further tier as one flight knows it.
pub(super) struct Further {
    shared: Arc<Shared>,
    tier: Arc<dyn Tier>,
    mark: OnceLock<Mark>,
}

/// Stands in the head of a flight that ended in the further tier.
#[derive(Clone)]
struct Landed(Arc<Entry>);

/// Texts of one call that are looked for at once.
pub(super) const MAX_LOOKED: usize = 128;

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
            // Whoever waits makes the reply of the entry; one without a body is not kept again.
            let mut reply = Reply::new(Body::from(Bytes::new()));
            reply.extensions_mut().insert(Landed(Arc::new(entry)));
            Ok(reply)
        }
        _ => call.await,
    }
}

/// What a flight has found in the further tier.
pub(super) fn landed(shared: &Shared, head: &Result<Arc<response::Parts>, Error>) -> Option<Arc<Entry>> {
    shared.tier.as_ref()?;
    let Landed(entry) = head.as_ref().ok()?.extensions.get()?;
    Some(entry.clone())
}
