//! What is kept, and for how long: bounded by bytes, the least useful first to go (moka's TinyLFU).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use moka::Expiry;
use moka::sync::{Cache, CacheBuilder};

use super::key::{Key, Secret, Taken};
use crate::body::Body;
use crate::layers::Reply;
use crate::neurons::Neurons;

/// Kept answers. Cloning shares them.
#[derive(Clone)]
pub(super) struct Store {
    entries: Cache<Key, Arc<Entry>, Taken>,
    /// Another clock than the system's, by which moka cannot let entries expire.
    clock: Option<fn() -> SystemTime>,
    secret: Arc<OnceLock<Secret>>,
}

/// One thing kept.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The model that was asked, and answered.
    pub(super) model: Arc<str>,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    /// What it cost.
    pub(super) cost: Neurons,
    pub(super) kept_at: SystemTime,
    pub(super) ttl: Duration,
}

/// What the body of an entry is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A whole reply's, with these headers: as a list, which takes a third of a map's room.
    Reply(Box<[(HeaderName, HeaderValue)]>),
    /// A vector, as it was written, and how the model pooled where it said so.
    Vector(Option<Bytes>),
}

/// What an entry takes besides its body and headers: key, counters, lists (measured by `benches/cache_memory.rs`).
const OVERHEAD_BYTES: usize = 800;
const HEADER_BYTES: usize = 96;

struct ByTtl;

impl Expiry<Key, Arc<Entry>> for ByTtl {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.left())
    }

    fn expire_after_update(&self, _: &Key, entry: &Arc<Entry>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.left())
    }
}

fn bounded(max_bytes: u64) -> CacheBuilder<Key, Arc<Entry>, Cache<Key, Arc<Entry>>> {
    Cache::builder()
        .max_capacity(max_bytes)
        .weigher(|_: &Key, entry: &Arc<Entry>| u32::try_from(entry.weight()).unwrap_or(u32::MAX))
        .support_invalidation_closures()
}

impl Store {
    pub(super) fn new(max_bytes: u64) -> Self {
        let cache = bounded(max_bytes).expire_after(ByTtl);
        Self { entries: cache.build_with_hasher(Taken), clock: None, secret: Arc::default() }
    }

    /// The same by another wall clock.
    pub(super) fn with_clock(max_bytes: u64, clock: fn() -> SystemTime) -> Self {
        let entries = bounded(max_bytes).build_with_hasher(Taken);
        Self { entries, clock: Some(clock), secret: Arc::default() }
    }

    /// An empty one by the same clock.
    pub(super) fn empty(&self, max_bytes: u64) -> Self {
        self.clock.map_or_else(|| Self::new(max_bytes), |clock| Self::with_clock(max_bytes, clock))
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.map_or_else(SystemTime::now, |clock| clock())
    }

    /// What the keys are made with.
    pub(super) fn secret(&self) -> Secret {
        *self.secret.get_or_init(Secret::random)
    }

    /// Takes up the secret that kept keys were made with; false where it has another one by now.
    pub(super) fn adopt(&self, secret: Secret) -> bool {
        *self.secret.get_or_init(|| secret) == secret
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.get(key)?;
        self.clock.is_none_or(|clock| !entry.left_at(clock()).is_zero()).then_some(entry)
    }

    pub(super) fn keep(&self, key: Key, entry: Entry) {
        if !entry.left_at(self.now()).is_zero() {
            self.entries.insert(key, Arc::new(entry));
        }
    }

    /// Forgets one model's answers, or all.
    pub(super) fn purge(&self, model: Option<&str>) {
        match model {
            None => self.entries.invalidate_all(),
            Some(model) => {
                let model: Arc<str> = model.into();
                // It fails only where closures are not supported, and they are.
                let _ = self.entries.invalidate_entries_if(move |_, entry| entry.model == model);
            }
        }
        self.entries.run_pending_tasks();
    }

    /// How many are kept, and what they weigh, in bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }
}

impl Entry {
    /// Seconds since it was kept.
    pub(super) fn age(&self) -> u64 {
        self.kept_at.elapsed().map_or(0, |age| age.as_secs())
    }

    fn left(&self) -> Duration {
        self.left_at(SystemTime::now())
    }

    fn left_at(&self, now: SystemTime) -> Duration {
        self.ttl.saturating_sub(now.duration_since(self.kept_at).unwrap_or_default())
    }

    fn weight(&self) -> usize {
        let headers = match &self.kind {
            Kind::Reply(headers) => headers.len() * HEADER_BYTES,
            Kind::Vector(_) => 0,
        };
        // An allocator rounds up, by an eighth at most.
        OVERHEAD_BYTES + self.body.len() + self.body.len() / 8 + headers
    }

    /// The whole reply that it is; `None` for a vector.
    pub(super) fn reply(&self) -> Option<Reply> {
        let Kind::Reply(headers) = &self.kind else { return None };
        let mut reply = Response::new(Body::from(self.body.clone()));
        *reply.status_mut() = StatusCode::OK;
        reply.headers_mut().extend(headers.iter().cloned());
        Some(reply)
    }
}
