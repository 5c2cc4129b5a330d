//! Cached answers that several gates share: a [`Tier`] over a [`Shelf`].
//!
//! What lies there is [sealed](seal) under a secret of the gates', so whoever reads or writes the store learns no question, no answer,
//! and cannot have one given out for another. A call waits for a look there for [`SharedSettings::wait`] at most, and for nothing
//! else: connections are opened and answers are put by [`SharedCache::run_until`], which goes on beside the calls. Where the store
//! is away, late in three looks one after the other, or full, each gate goes on with its own memory.
//!
//! # Purges
//! A value is sealed under two marks, which stand at the store: that of everything, and its model's. A purge sets another mark, so what was
//! put before is found by nobody, also by a gate that could not be told. A store that has lost its marks gets others, and whatever
//! is left in it is lost with them.
//!
//! # What it does not do
//! It does not make two gates wait for one call: where both lack an answer at once, both ask upstream. It does not tell other
//! gates to empty their own memory.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use tollgate::layers::cache::{CacheLayer, Settings};
//! use tollgate::replicas::{LocalShelf, SharedCache, SharedSettings};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let shelf = Arc::new(LocalShelf::new(64 << 20));
//! let gate = || {
//!     let shared = SharedCache::new(shelf.clone(), b"what all gates know", "fleet", SharedSettings::default()).unwrap();
//!     let running = shared.clone();
//!     tokio::spawn(async move { running.run_until(std::future::pending()).await });
//!     CacheLayer::new(Settings::default()).with_tier(Arc::new(shared))
//! };
//! // Each goes into the stack of a gate of its own; what one has kept the other finds.
//! let (one, other) = (gate(), gate());
//! # drop((one, other));
//! # });
//! ```

mod counts;
mod link;
mod seal;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::counts::SharedCounts;
use self::counts::{Lookup, Write};
pub use self::link::CacheLink;
use self::seal::{Marks, Sealer, Unread};
pub use self::shelf::{LocalShelf, Look, Put, Seen, Shelf, Stored};
use crate::layers::cache::{Found, Looked, Looking, Mark, Purging, Tier};
use crate::replicas::Away;

/// A further tier of the cache at a store. Clones share it.
#[derive(Clone)]
pub struct SharedCache(Arc<Inner>);

/// How much is shared, and how long a call waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// How long a call that has no answer here waits for the store's.
    pub wait: Duration,
    /// The largest answer that is shared, in bytes as it lies there.
    pub max_entry_bytes: usize,
    /// What is written a second, in bytes; more is not shared.
    pub max_write_bytes: usize,
}

struct Inner {
    shelf: Arc<dyn Shelf>,
    sealer: Sealer,
    settings: SharedSettings,
    queue: Mutex<Queue>,
    woken: Notify,
    is_open: AtomicBool,
    /// The store has no mark.
    is_new: AtomicBool,
    /// Looks that were answered too late, one after the other.
    late: AtomicU32,
    opened: Mutex<Option<Instant>>,
    counts: SharedCounts,
}

struct Queue {
    puts: VecDeque<Waiting>,
    bytes: usize,
    /// What may be written now, and when that was reckoned.
    allowed: usize,
    at: Instant,
    /// Models whose answers are to be forgotten, or `None` for all.
    purges: VecDeque<Option<String>>,
    /// Purges that were asked for.
    asked: u64,
    /// Purges that are done.
    done: watch::Sender<u64>,
}

/// An answer that is to be put, as it was given.
struct Waiting {
    name: String,
    marks: Marks,
    plain: Vec<u8>,
    ttl: Duration,
}

/// Looks that are late, one after the other, for which the connection is given up.
const MOST_LATE: u32 = 3;
/// A store that is away is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);
/// What waits to be put, at most.
const MAX_WAITING_BYTES: usize = 8 << 20;
const MAX_WAITING: usize = 4096;
/// More models than this are purged as everything.
const MAX_PURGES: usize = 64;
/// How long a purge is waited for, and how long a gate that ends puts what waits.
const PURGED_WITHIN: Duration = Duration::from_secs(1);
/// The vector of one of several texts, at most; a whole answer may have more.
const MAX_ITEM_BYTES: usize = 48 << 10;
/// Nothing is kept for longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

// === impl SharedSettings ===

impl Default for SharedSettings {
    fn default() -> Self {
        Self { wait: Duration::from_millis(5), max_entry_bytes: 256 << 10, max_write_bytes: 16 << 20 }
    }
}

// === impl SharedCache ===

impl SharedCache {
    /// Over this shelf, for all gates that have the same secret and fleet. `None` where the system has no randomness.
    pub fn new(shelf: Arc<dyn Shelf>, secret: &[u8], fleet: &str, settings: SharedSettings) -> Option<Self> {
        let sealer = Sealer::new(secret, fleet)?;
        let queue = Queue {
            puts: VecDeque::new(),
            bytes: 0,
            allowed: settings.max_write_bytes,
            at: Instant::now(),
            purges: VecDeque::new(),
            asked: 0,
            done: watch::Sender::new(0),
        };
        Some(Self(Arc::new(Inner {
            shelf,
            sealer,
            settings,
            queue: Mutex::new(queue),
            woken: Notify::new(),
            is_open: AtomicBool::new(false),
            is_new: AtomicBool::new(false),
            late: AtomicU32::new(0),
            opened: Mutex::new(None),
            counts: SharedCounts::default(),
        })))
    }

    /// What has come of it.
    pub fn counts(&self) -> &SharedCounts {
        &self.0.counts
    }

    /// Whether the store can be reached.
    pub fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::Acquire)
    }

    /// Opens connections, puts answers and purges, until this comes; then puts what waits, for a second at most.
    pub async fn run_until(&self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                () = self.0.step() => {}
            }
        }
        if self.is_open() {
            let rest = async {
                while self.is_open() && self.0.has_work() {
                    self.0.step().await;
                }
            };
            drop(timeout(PURGED_WITHIN, rest).await);
        }
    }
}

impl Tier for SharedCache {
    fn secret(&self) -> [u8; 32] {
        self.0.sealer.digests()
    }

    fn max_bytes(&self) -> usize {
        self.0.settings.max_entry_bytes
    }

    fn look(&self, model: &str, keys: Vec<[u8; 32]>) -> Looking {
        if !self.is_open() || !self.0.queue.lock().purges.is_empty() {
            self.0.counts.looked(Lookup::Away, keys.len());
            return Box::pin(std::future::ready(Looked::default()));
        }
        let (inner, model) = (self.0.clone(), self.0.sealer.model(model));
        Box::pin(async move { inner.look(model, keys).await })
    }

    fn keep(&self, key: [u8; 32], mark: &Mark, plain: Vec<u8>, ttl: Duration) {
        let Ok(marks) = Marks::try_from(&*mark.0) else { return };
        let write = self.0.queue(Waiting { name: self.0.sealer.name(&key), marks, plain, ttl: ttl.min(LONGEST) });
        match write {
            None => self.0.woken.notify_one(),
            Some(write) => self.0.counts.written(write),
        }
    }

    fn purge(&self, model: Option<&str>) -> Purging {
        let (asked, mut done) = {
            let mut queue = self.0.queue.lock();
            let model = model.map(|model| self.0.sealer.model(model));
            if queue.purges.len() >= MAX_PURGES {
                queue.purges.clear();
                queue.purges.push_back(None);
            } else {
                queue.purges.push_back(model);
            }
            queue.asked += 1;
            (queue.asked, queue.done.subscribe())
        };
        self.0.woken.notify_one();
        Box::pin(async move {
            let all = done.wait_for(|done| *done >= asked);
            timeout(PURGED_WITHIN, all).await.is_ok_and(|done| done.is_ok())
        })
    }
}

impl fmt::Debug for SharedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedCache({:?})", self.0.shelf)
    }
}

// === impl Inner ===

impl Inner {
    async fn look(&self, model: String, keys: Vec<[u8; 32]>) -> Looked {
        let names: Vec<_> = keys.iter().map(|key| self.sealer.name(key)).collect();
        let mut max_bytes = self.settings.max_entry_bytes;
        if names.len() > 1 {
            max_bytes = max_bytes.min(MAX_ITEM_BYTES);
        }
        let began = Instant::now();
        let looking = self.shelf.look(Look { model, names: names.clone(), max_bytes });
        let seen = timeout(self.settings.wait, looking).await;
        self.counts.took(began.elapsed());
        let seen = match seen {
            Ok(Ok(seen)) => seen,
            Ok(Err(why)) => {
                self.counts.looked(Lookup::Away, keys.len());
                self.lose(why);
                return Looked::default();
            }
            Err(_) => {
                self.counts.looked(Lookup::Late, keys.len());
                if self.late.fetch_add(1, Ordering::AcqRel) + 1 >= MOST_LATE {
                    self.lose(Away(format!("no answer within {:?}", self.settings.wait)));
                }
                return Looked::default();
            }
        };
        self.late.store(0, Ordering::Release);
        let Some(marks) = marks(&seen) else {
            // It is new, or has forgotten: until it has a mark nothing is to be found there.
            self.is_new.store(true, Ordering::Release);
            self.woken.notify_one();
            self.counts.looked(Lookup::Miss, keys.len());
            return Looked::default();
        };
        let mut values = seen.values.into_iter();
        let mut found = |name: &String| {
            let value = values.next().filter(|(value, _)| !value.is_empty() && value.len() <= max_bytes);
            let Some((value, Some(left))) = value else {
                self.counts.looked(Lookup::Miss, 1);
                return None;
            };
            let opened = self.sealer.open(name, &marks, &value);
            self.counts.looked(
                match &opened {
                    Ok(_) => Lookup::Hit,
                    Err(Unread::Purged) => Lookup::Miss,
                    Err(Unread::Foreign) => Lookup::Foreign,
                },
                1,
            );
            Some(Found { bytes: opened.ok()?, left })
        };
        Looked { mark: Some(Mark(Arc::new(marks))), found: names.iter().map(&mut found).collect() }
    }

    /// Puts it in the line; or says why not.
    fn queue(&self, put: Waiting) -> Option<Write> {
        let mut queue = self.queue.lock();
        let bytes = put.plain.len();
        if bytes > self.settings.max_entry_bytes {
            return Some(Write::TooLarge);
        }
        let now = Instant::now();
        let (most, passed) = (self.settings.max_write_bytes, now - std::mem::replace(&mut queue.at, now));
        let more = most as f64 * passed.as_secs_f64().min(1.0);
        queue.allowed = most.min(queue.allowed + more as usize);
        let is_full = queue.bytes + bytes > MAX_WAITING_BYTES || queue.puts.len() >= MAX_WAITING;
        if !self.is_open.load(Ordering::Acquire) {
            return Some(Write::Away);
        } else if is_full || queue.allowed < bytes {
            return Some(Write::TooMany);
        }
        queue.allowed -= bytes;
        queue.bytes += bytes;
        queue.puts.push_back(put);
        None
    }

    fn has_work(&self) -> bool {
        let queue = self.queue.lock();
        !queue.purges.is_empty() || !queue.puts.is_empty()
    }

    /// Does the next thing that is to be done, or waits for one.
    async fn step(&self) {
        if !self.is_open.load(Ordering::Acquire) {
            // One that is there, and late, is not opened again and again.
            let before = *self.opened.lock();
            if let Some(before) = before {
                sleep_until(before + AGAIN).await;
            }
            match self.shelf.open().await {
                Ok(()) => {
                    *self.opened.lock() = Some(Instant::now());
                    self.late.store(0, Ordering::Release);
                    self.is_open.store(true, Ordering::Release);
                    if self.counts.found_again() {
                        tracing::info!("the store of the shared cache can be reached");
                    }
                }
                Err(why) => {
                    self.lose(why);
                    sleep(AGAIN).await;
                }
            }
            return;
        }
        let next = { self.queue.lock().purges.front().cloned() };
        if let Some(model) = next {
            return self.purge(model).await;
        }
        if self.is_new.swap(false, Ordering::AcqRel)
            && let Some(mark) = self.sealer.mark()
        {
            if let Err(why) = self.shelf.begin(mark.into()).await {
                self.lose_for_a_while(why).await;
            }
            return;
        }
        let next = {
            let mut queue = self.queue.lock();
            let next = queue.puts.pop_front();
            queue.bytes -= next.as_ref().map_or(0, |put| put.plain.len());
            next
        };
        match next {
            Some(put) => self.put(put).await,
            None => self.woken.notified().await,
        }
    }

    async fn purge(&self, model: Option<String>) {
        let Some(mark) = self.sealer.mark() else { return sleep(AGAIN).await };
        if let Err(why) = self.shelf.purge(model.clone(), mark.into()).await {
            return self.lose_for_a_while(why).await;
        }
        let mut queue = self.queue.lock();
        // It may have become one of everything meanwhile.
        if queue.purges.front() == Some(&model) {
            queue.purges.pop_front();
            let done = queue.asked - queue.purges.len() as u64;
            queue.done.send_replace(done);
        }
    }

    async fn put(&self, Waiting { name, marks, plain, ttl }: Waiting) {
        let Some(value) = self.sealer.seal(&name, &marks, plain) else { return };
        if value.len() > self.settings.max_entry_bytes {
            return self.counts.written(Write::TooLarge);
        }
        match self.shelf.put(Put { name, value, ttl }).await {
            Ok(Stored::Kept) => self.counts.written(Write::Kept),
            Ok(Stored::Full) => {
                if self.counts.is_first(Write::Full) {
                    tracing::warn!(
                        "the store of the shared cache is full: new answers are not shared until there is room"
                    );
                }
                self.counts.written(Write::Full);
            }
            Ok(Stored::Refused(why)) => {
                if self.counts.is_first(Write::Refused) {
                    tracing::warn!(why, "the store of the shared cache does not take an answer");
                }
                self.counts.written(Write::Refused);
            }
            Err(why) => {
                self.counts.written(Write::Away);
                self.lose_for_a_while(why).await;
            }
        }
    }

    /// The store is away.
    fn lose(&self, why: Away) {
        self.is_open.store(false, Ordering::Release);
        if self.counts.lost(&why) {
            tracing::warn!(%why, "the store of the shared cache cannot be reached: each gate has its own answers alone");
        }
        self.woken.notify_one();
    }

    async fn lose_for_a_while(&self, why: Away) {
        self.lose(why);
        sleep(AGAIN).await;
    }
}

/// What stands at the store; nothing where it has no mark of everything.
fn marks(seen: &Seen) -> Option<Marks> {
    let all: [u8; seal::MARK_BYTES] = seen.all.as_deref()?.try_into().ok()?;
    let model: [u8; seal::MARK_BYTES] = seen.model.as_deref().unwrap_or(&[0; seal::MARK_BYTES]).try_into().ok()?;
    let mut marks = [0; 2 * seal::MARK_BYTES];
    marks[..seal::MARK_BYTES].copy_from_slice(&all);
    marks[seal::MARK_BYTES..].copy_from_slice(&model);
    Some(marks)
}
