//! Keeps a record of each call in SQLite, and the budgets' leases beside them.
//!
//! A receipt is put into a bounded queue, which takes well under a microsecond and never waits; a thread of its own writes
//! what is there some twenty-five times a second, in one transaction with the sums that usage is read from. A locked
//! database or a full disk holds no call up and loses none: the thread warns once, keeps trying, and what the queue cannot
//! hold is [counted](Stats::lost). Records go when they are older than [`Settings::retention`], and the oldest when there
//! are more than [`Settings::max_bytes`] of them. Bodies are kept where the receipt has them, see
//! [`Payloads`](crate::payload::Payloads); where more of them wait than [`Settings::max_waiting_payload_bytes`], records
//! are kept without.
//!
//! # What it does not do
//! A caller who wants no log has no record; what it cost is in the sums. It keeps no key or token: a receipt has none. `synchronous` is `normal`: a killed process loses what was
//! settled in the last 100 ms, a machine that loses power may lose some seconds more.
//!
//! # Example
//! ```
//! use tollgate::readers::records::{Records, Settings};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! let mut settings = Settings::default();
//! settings.path = directory.path().join("tollgate.db");
//! let records = Records::open(settings).unwrap();
//! // … as a reader of `identify::Settings::readers`, and as the ledger of `budget::Settings` …
//! records.close();
//! assert_eq!(records.stats().lost, 0);
//! ```

mod batches;
mod books;
mod checkpoints;
mod copied;
mod error;
mod evidence;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod kept_tests;
mod lock;
mod past;
mod query;
mod row;
mod schema;
mod several;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use self::error::RecordsError;
pub use self::evidence::{BLOCK_TOKENS, Beginnings, Crowd, Evidence, Lost, Ran, Repeats, Roomy};
pub(crate) use self::lock::is_taken;
pub use self::past::{Past, Usual};
pub use self::query::{Archive, Bounds, Filter, Moment, Record};
use self::row::Row;
pub use self::several::MOST_FILES;
pub use self::usage::{Group, Usage};
use crate::batches::{Batches, Journal, Queued};
use crate::layers::budget::{Budgets, Change, Lease, Ledger, LedgerError, Lessee};
use crate::receipt::{Facts, Reader};

/// Where records are kept, and how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub path: PathBuf,
    /// Older records go; their sums stay for a year.
    pub retention: Duration,
    /// The oldest records go where the database and its log together are larger, in bytes.
    pub max_bytes: u64,
    /// Records that may wait to be written; further ones are lost, and counted.
    pub queue: usize,
    /// What their bodies together may weigh in memory.
    pub max_waiting_payload_bytes: usize,
}

/// The records, open for writing. A [`Reader`] of receipts, and a [`Ledger`] for budgets.
pub struct Records {
    path: PathBuf,
    max_waiting_payload_bytes: usize,
    sender: SyncSender<Row>,
    shared: Arc<Shared>,
    thread: Thread,
    joined: Mutex<Option<JoinHandle<()>>>,
}

/// How the writing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records written.
    pub written: u64,
    /// Records in the queue.
    pub waiting: u64,
    /// Records that the queue had no room for.
    pub lost: u64,
    /// Bodies that there was no room for; their records were kept without.
    pub payloads_lost: u64,
    /// Writes that failed; each is tried again.
    pub failures: u64,
    /// For how long there have been records that could not be written.
    pub lag: Duration,
}

/// What the callers and the thread share.
#[derive(Default)]
struct Shared {
    written: AtomicU64,
    waiting: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
    /// Writes that worked.
    commits: AtomicU64,
    payloads_lost: AtomicU64,
    waiting_payload_bytes: AtomicUsize,
    /// Since when writing fails.
    failing_since: Mutex<Option<Instant>>,
    stop: AtomicBool,
    /// Buckets whose leases are to be written.
    leases: Mutex<Vec<Arc<dyn Lessee>>>,
    /// Batches that are to be written before their submits are answered.
    journal: Mutex<Vec<(Queued, oneshot::Sender<()>)>>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: "tollgate.db".into(),
            retention: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 8 << 30,
            queue: 65_536,
            max_waiting_payload_bytes: 64 << 20,
        }
    }
}

// === impl Records ===

impl Records {
    /// Opens the database, made where there is none, and starts the thread that writes.
    pub fn open(settings: Settings) -> Result<Arc<Self>, RecordsError> {
        let (sender, rows) = sync_channel(settings.queue.max(1));
        let shared = Arc::new(Shared::default());
        let path = settings.path.clone();
        let max_waiting_payload_bytes = settings.max_waiting_payload_bytes;
        let joined = writer::start(settings, rows, shared.clone())?;
        let thread = joined.thread().clone();
        let joined = Mutex::new(Some(joined));
        Ok(Arc::new(Self { path, max_waiting_payload_bytes, sender, shared, thread, joined }))
    }

    /// Has these take up the batches that earlier runs knew, with what is held for them.
    pub fn restore_batches(&self, batches: &Batches, budgets: &Budgets) -> Result<(), RecordsError> {
        let connection = schema::open_to_read(&self.path)?;
        batches::restore(&connection, batches, budgets)
            .map_err(|why| RecordsError::Database { path: self.path.display().to_string(), why: why.into() })
    }

    /// How the writing goes.
    pub fn stats(&self) -> Stats {
        Stats {
            written: self.shared.written.load(Ordering::Relaxed),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            payloads_lost: self.shared.payloads_lost.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
            lag: self.shared.failing_since.lock().map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// Writes what there is and ends the thread. What comes later is lost, and counted.
    pub fn close(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
        // The last to let go may be the thread itself, by a bucket that it has just written: it ends without being waited for.
        let is_itself = self.thread.id() == std::thread::current().id();
        if let Some(thread) = self.joined.lock().take().filter(|_| !is_itself) {
            // A panic of the thread's has been logged where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.close();
    }
}

impl Reader for Records {
    fn sealed(&self, facts: &Facts) {
        // Nobody is woken: the thread looks by itself.
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let mut row = Row::of(facts);
        let payload_bytes = row.payload_bytes();
        if payload_bytes > 0 && !self.shared.make_room(payload_bytes, self.max_waiting_payload_bytes) {
            row.drop_payload();
            self.shared.payloads_lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(TrySendError::Full(row) | TrySendError::Disconnected(row)) = self.sender.try_send(row) {
            self.shared.left(1, row.payload_bytes());
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn make_room(&self, payload_bytes: usize, most: usize) -> bool {
        let add = |waiting: usize| waiting.checked_add(payload_bytes).filter(|sum| *sum <= most);
        self.waiting_payload_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// So many rows with such bodies wait no more.
    fn left(&self, rows: u64, payload_bytes: usize) {
        self.waiting.fetch_sub(rows, Ordering::Relaxed);
        self.waiting_payload_bytes.fetch_sub(payload_bytes, Ordering::Relaxed);
    }
}

impl Journal for Records {
    fn keep(&self, queued: &Queued) -> oneshot::Receiver<()> {
        let (kept, told) = oneshot::channel();
        self.shared.journal.lock().push((queued.clone(), kept));
        self.thread.unpark();
        told
    }
}

impl Ledger for Records {
    fn load(&self, budget: &str, _: u64) -> Result<Vec<Lease>, LedgerError> {
        let connection = schema::open_to_read(&self.path).map_err(LedgerError::new)?;
        books::load(&connection, budget).map_err(|why| LedgerError::new(format!("{}: {why}", self.path.display())))
    }

    fn changes(&self, budget: &str, now_ms: u64) -> Result<Vec<Change>, LedgerError> {
        let connection = schema::open_to_read(&self.path).map_err(LedgerError::new)?;
        books::changes(&connection, budget, now_ms).map_err(LedgerError::new)
    }

    fn keep(&self, change: &Change) -> Result<(), LedgerError> {
        let connection = schema::open_to_read(&self.path).map_err(LedgerError::new)?;
        books::keep(&connection, change).map_err(LedgerError::new)
    }

    fn renew(&self, bucket: Arc<dyn Lessee>) {
        self.shared.leases.lock().push(bucket);
        self.thread.unpark();
    }
}
