//! What is kept, and for how long: bounded by bytes, the least useful first to go (quick_cache's S3-FIFO).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::key::{Key, Secret, Taken};
use crate::body::Body;
use crate::layers::Reply;
use crate::neurons::Neurons;

/// Kept answers. Cloning shares them.
#[derive(Clone)]
pub(super) struct Store {
    entries: Arc<Entries>,
    /// The wall clock, or another in its place.
    clock: fn() -> SystemTime,
    secret: Arc<OnceLock<Secret>>,
}

type Entries = Cache<Key, Arc<Entry>, InBytes, Taken>;

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
/// What is kept lies in parts of this size at least, each behind a lock of its own. Nothing larger than a part is kept.
const PART_BYTES: u64 = 64 << 20;
/// What an answer weighs where nobody knows better: from this it is told how many lately evicted keys to remember.
const LIKELY_BYTES: u64 = 2 << 10;

#[derive(Clone)]
struct InBytes;

impl Weighter<Key, Arc<Entry>> for InBytes {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        entry.weight() as u64
    }
}

fn bounded(max_bytes: u64) -> Entries {
    let parts = usize::try_from(max_bytes / PART_BYTES).unwrap_or(usize::MAX).clamp(1, 64);
    // Their number becomes a power of two, and each is to have its size.
    let parts = 1 << parts.ilog2();
    let likely = usize::try_from(max_bytes / LIKELY_BYTES).unwrap_or(usize::MAX);
    let options =
        OptionsBuilder::new().shards(parts).weight_capacity(max_bytes).estimated_items_capacity(likely).build();
    match options {
        // Both figures that have to be given are.
        Ok(options) => Cache::with_options(options, InBytes, Taken, DefaultLifecycle::default()),
        Err(_) => Cache::with(likely, max_bytes, InBytes, Taken, DefaultLifecycle::default()),
    }
}

impl Store {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self::with_clock(max_bytes, SystemTime::now)
    }

    /// The same by another wall clock.
    pub(super) fn with_clock(max_bytes: u64, clock: fn() -> SystemTime) -> Self {
        Self { entries: Arc::new(bounded(max_bytes)), clock, secret: Arc::default() }
    }

    /// An empty one by the same clock.
    pub(super) fn empty(&self, max_bytes: u64) -> Self {
        Self::with_clock(max_bytes, self.clock)
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
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
        self.entries.get(key).filter(|entry| !entry.left_at(self.now()).is_zero())
    }

    pub(super) fn keep(&self, key: Key, entry: Entry) {
        if !entry.left_at(self.now()).is_zero() {
            self.entries.insert(key, Arc::new(entry));
        }
    }

    /// Forgets one model's answers, or all.
    pub(super) fn purge(&self, model: Option<&str>) {
        match model {
            None => self.entries.clear(),
            Some(model) => self.entries.retain(|_, entry| &*entry.model != model),
        }
    }

    /// How many are kept, and what they weigh, in bytes. Lets go of what is too old, for which nobody has asked again.
    pub(super) fn size(&self) -> (u64, u64) {
        let now = self.now();
        self.entries.retain(|_, entry| !entry.left_at(now).is_zero());
        (self.entries.len() as u64, self.entries.weight())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> {
        let now = self.now();
        self.entries.iter().filter(move |(_, entry)| !entry.left_at(now).is_zero())
    }
}

impl Entry {
    /// Seconds since it was kept.
    pub(super) fn age(&self) -> u64 {
        self.kept_at.elapsed().map_or(0, |age| age.as_secs())
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
