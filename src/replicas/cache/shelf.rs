//! Where sealed answers lie: what a store of them has to do, and one in this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::replicas::Away;

/// A store of values under names, each for a while, and of marks, which stay. It knows nothing of what they are.
pub trait Shelf: fmt::Debug + Send + Sync + 'static {
    /// Makes it usable: opens a connection, say. Not on a call's way; asked again after [`Away`].
    fn open(&self) -> BoxFuture<'static, Result<(), Away>>;

    /// Reads values and marks in one trip. It opens nothing: where it is not usable, it is away at once.
    fn look(&self, look: Look) -> BoxFuture<'static, Result<Seen, Away>>;

    /// Puts a value in the place of what was there.
    fn put(&self, put: Put) -> BoxFuture<'static, Result<Stored, Away>>;

    /// Sets the mark of everything where there is none.
    fn begin(&self, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>>;

    /// Sets a model's mark, or with `None` that of everything, and then forgets the models'.
    fn purge(&self, model: Option<String>, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>>;
}

/// What is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// Whose mark.
    pub model: String,
    /// Of the values.
    pub names: Vec<String>,
    /// Of a larger value, no more than one byte more is read.
    pub max_bytes: usize,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The mark of everything; `None` where the store is new, or has forgotten.
    pub all: Option<Vec<u8>>,
    /// The model's; `None` where it was never purged.
    pub model: Option<Vec<u8>>,
    /// For each name the value, empty where there is none, and how long it is still kept.
    pub values: Vec<(Vec<u8>, Option<Duration>)>,
}

/// What is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Put {
    /// Its name.
    pub name: String,
    /// Itself.
    pub value: Vec<u8>,
    /// For how long.
    pub ttl: Duration,
}

/// What became of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is kept.
    Kept,
    /// The store is full.
    Full,
    /// The store will not have it, for this reason, and goes on.
    Refused(String),
}

impl Seen {
    /// This was read.
    pub fn new(all: Option<Vec<u8>>, model: Option<Vec<u8>>, values: Vec<(Vec<u8>, Option<Duration>)>) -> Self {
        Self { all, model, values }
    }
}

/// A shelf in this process, for several stacks in one program. Clones share it.
#[derive(Clone)]
pub struct LocalShelf(Arc<Mutex<Inner>>);

struct Inner {
    values: HashMap<String, (Vec<u8>, Instant)>,
    all: Option<Vec<u8>>,
    models: HashMap<String, Vec<u8>>,
    bytes: usize,
    max_bytes: usize,
}

/// Models that have a mark of their own.
pub(super) const MAX_MODELS: usize = 256;

// === impl LocalShelf ===

impl LocalShelf {
    /// An empty one for so many bytes, which takes nothing more where it is full.
    pub fn new(max_bytes: usize) -> Self {
        let (values, models) = (HashMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Inner { values, all: None, models, bytes: 0, max_bytes })))
    }

    /// Does what somebody may do who can write there.
    #[cfg(test)]
    pub(super) fn tamper(&self, with: impl FnOnce(&mut HashMap<String, (Vec<u8>, Instant)>)) {
        with(&mut self.0.lock().values);
    }

    /// Forgets all, as `FLUSHALL` does.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        let mut inner = self.0.lock();
        (inner.all, inner.bytes) = (None, 0);
        inner.values.clear();
        inner.models.clear();
    }
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, Away>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Shelf for LocalShelf {
    fn open(&self) -> BoxFuture<'static, Result<(), Away>> {
        now(())
    }

    fn look(&self, look: Look) -> BoxFuture<'static, Result<Seen, Away>> {
        let (inner, at) = (self.0.lock(), Instant::now());
        let value = |name: &String| match inner.values.get(name) {
            Some((value, until)) if *until > at && value.len() <= look.max_bytes => (value.clone(), Some(*until - at)),
            _ => (Vec::new(), None),
        };
        let values = look.names.iter().map(value).collect();
        now(Seen { all: inner.all.clone(), model: inner.models.get(&look.model).cloned(), values })
    }

    fn put(&self, put: Put) -> BoxFuture<'static, Result<Stored, Away>> {
        let (mut inner, at) = (self.0.lock(), Instant::now());
        if inner.bytes + put.value.len() > inner.max_bytes {
            inner.values.retain(|_, (_, until)| *until > at);
            inner.bytes = inner.values.values().map(|(value, _)| value.len()).sum();
        }
        let Some(until) = at.checked_add(put.ttl).filter(|_| inner.bytes + put.value.len() <= inner.max_bytes) else {
            return now(Stored::Full);
        };
        inner.bytes += put.value.len();
        if let Some((before, _)) = inner.values.insert(put.name, (put.value, until)) {
            inner.bytes -= before.len();
        }
        now(Stored::Kept)
    }

    fn begin(&self, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>> {
        self.0.lock().all.get_or_insert(mark);
        now(())
    }

    fn purge(&self, model: Option<String>, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>> {
        let mut inner = self.0.lock();
        match model {
            Some(model) if inner.models.len() < MAX_MODELS || inner.models.contains_key(&model) => {
                inner.models.insert(model, mark);
            }
            _ => {
                inner.models.clear();
                inner.all = Some(mark);
            }
        }
        now(())
    }
}

impl fmt::Debug for LocalShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalShelf").field("bytes", &self.0.lock().bytes).finish()
    }
}
