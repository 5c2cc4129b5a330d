//! The thread that writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, params};

use super::error::RecordsError;
use super::lock::Lock;
use super::row::{self, DAY_MS, Row};
use super::{Settings, Shared, batches, books, checkpoints, schema};
use crate::layers::budget::Lessee;
use crate::priority::give_way;

pub(super) struct Writer {
    pub(super) settings: Settings,
    pub(super) connection: Connection,
    /// Outlives the connection.
    _lock: Lock,
    pub(super) rows: Receiver<Row>,
    pub(super) shared: Arc<Shared>,
    /// Of the database, so that it and its log are within what is allowed.
    max_pages: u64,
    /// Those that a sweep gives back to the system.
    vacuum_pages: u64,
    /// Taken off the queue and not on the disk yet.
    batch: Vec<Row>,
    next_batch: Instant,
    next_sweep: Instant,
    /// Tells whether the wall clock can be believed.
    trust: Trust,
    /// Leases that could not be written.
    unwritten: Vec<Arc<dyn Lessee>>,
    retry_leases: Instant,
    /// What could not be written when it was last tried. A small write may find room where a large one does not.
    failing: [bool; Work::COUNT],
}

/// What is written by itself.
#[derive(Clone, Copy)]
enum Work {
    Journal,
    Leases,
    Records,
    /// Letting go of what is old.
    Sweep,
}

impl Work {
    const COUNT: usize = 4;
}

/// Records are written this often; what was settled longer ago survives a kill.
const BATCH_EVERY: Duration = Duration::from_millis(40);
const BATCH_ROWS: usize = 4_000;
/// Leases are written at once, but not more often than this.
const LEASES_EVERY: Duration = Duration::from_millis(2);
const RETRY: Duration = Duration::from_millis(500);
/// To write what is left, before it is given up for lost.
const LAST_TRIES: usize = 5;
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_ROWS: i64 = 2_000;
/// The oldest go a few at a time where the file is too large: some are a hundred bytes, and some a megabyte.
const SHRINK_ROWS: i64 = 50;

/// Nothing is deleted for its age while the wall clock may have been set just now: a clock that is years ahead for a moment
/// would empty the records, and the leases of the window that is now.
struct Trust {
    wall: SystemTime,
    steady: Instant,
    /// Since when both clocks have agreed.
    since: Instant,
}

/// Both clocks are to agree for so long.
const TRUST_AFTER: Duration = Duration::from_secs(600);
/// To the second, as far as a sweep is concerned.
const AGREED: Duration = Duration::from_secs(5);

// === impl Trust ===

impl Trust {
    fn new() -> Self {
        let steady = Instant::now();
        Self { wall: SystemTime::now(), steady, since: steady }
    }

    /// Whether the wall clock has gone as the steady one for long enough.
    fn is_earned(&mut self, wall: SystemTime, steady: Instant) -> bool {
        let expected = self.wall + steady.duration_since(self.steady);
        let gap = wall.duration_since(expected).unwrap_or_else(|behind| behind.duration());
        (self.wall, self.steady) = (wall, steady);
        if gap > AGREED {
            self.since = steady;
            tracing::warn!(
                seconds = gap.as_secs(),
                "the clock was set: nothing is deleted for its age for ten minutes"
            );
        }
        steady.duration_since(self.since) >= TRUST_AFTER
    }
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(
        settings: Settings,
        (connection, lock): (Connection, Lock),
        rows: Receiver<Row>,
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        let max_pages = schema::max_pages(settings.max_bytes);
        let vacuum_pages = (schema::max_log_pages(settings.max_bytes) / 4).unsigned_abs().min(2_000);
        Self {
            settings,
            max_pages,
            vacuum_pages,
            connection,
            _lock: lock,
            rows,
            shared,
            batch: Vec::new(),
            next_batch: now,
            next_sweep: now + Duration::from_secs(5),
            trust: Trust::new(),
            unwritten: Vec::new(),
            retry_leases: now,
            failing: [false; Work::COUNT],
        }
    }

    /// Until it is told to stop; then all that is there is written once more.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.write_journal();
            self.write_leases(false);
            if Instant::now() >= self.next_batch {
                self.write_batch();
            }
            // A batch may have made the file too large.
            if Instant::now() >= self.next_sweep {
                self.next_sweep = Instant::now() + SWEEP_EVERY;
                let swept = self.sweep();
                self.note(Work::Sweep, swept);
            }
            std::thread::sleep(LEASES_EVERY);
            if self.shared.leases.lock().is_empty() && self.shared.journal.lock().is_empty() {
                std::thread::park_timeout(self.next_batch.saturating_duration_since(Instant::now()));
            }
        }
        self.write_journal();
        self.retry_leases = Instant::now();
        self.write_leases(true);
        for _ in 0..LAST_TRIES {
            while self.write_batch() > 0 {}
            if self.batch.is_empty() {
                return;
            }
        }
        let lost = self.batch.len() + self.rows.try_iter().count();
        self.shared.lost.fetch_add(lost as u64, Ordering::Relaxed);
        tracing::error!(lost, path = %self.settings.path.display(), "records are lost: they could not be written to the end");
    }

    /// Those that cannot be written are not tried again here: their submits' own records have them, too.
    fn write_journal(&mut self) {
        let queued = std::mem::take(&mut *self.shared.journal.lock());
        if queued.is_empty() {
            return;
        }
        let written = batches::keep(&mut self.connection, queued.iter().map(|(queued, _)| queued));
        if self.note(Work::Journal, written).is_some() {
            for (_, kept) in queued {
                // Nobody waits where the client has left.
                let _ = kept.send(());
            }
        }
    }

    fn write_leases(&mut self, is_closing: bool) {
        if Instant::now() < self.retry_leases {
            self.unwritten.append(&mut self.shared.leases.lock());
            return;
        }
        let mut listed = std::mem::take(&mut self.unwritten);
        listed.append(&mut self.shared.leases.lock());
        if listed.is_empty() {
            return;
        }
        listed.sort_unstable_by_key(Arc::as_ptr);
        listed.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let written = books::write(&mut self.connection, &listed, is_closing);
        if written.is_err() {
            self.unwritten = listed;
            self.retry_leases = Instant::now() + RETRY;
        }
        self.note(Work::Leases, written);
    }

    /// How many rows it wrote.
    fn write_batch(&mut self) -> usize {
        // What is written in one transaction is in the log twice as long as it is in memory.
        let most_payload_bytes = usize::try_from(self.settings.max_bytes / 16).unwrap_or(usize::MAX);
        let mut payload_bytes: usize = self.batch.iter().map(Row::payload_bytes).sum();
        while self.batch.len() < BATCH_ROWS && payload_bytes <= most_payload_bytes {
            let Ok(row) = self.rows.try_recv() else { break };
            payload_bytes += row.payload_bytes();
            self.batch.push(row);
        }
        self.next_batch = Instant::now() + BATCH_EVERY;
        let length = self.batch.len();
        if length == 0 {
            return 0;
        }
        let written = row::insert(&mut self.connection, &self.batch);
        if written.is_ok() {
            self.batch.clear();
            self.shared.written.fetch_add(length as u64, Ordering::Relaxed);
            self.shared.left(length as u64, payload_bytes);
            if length == BATCH_ROWS || payload_bytes > most_payload_bytes {
                self.next_batch = Instant::now();
            }
            if self.pages().is_ok_and(|pages| pages.all > self.max_pages) {
                self.next_sweep = Instant::now();
            }
        } else {
            self.next_batch = Instant::now() + RETRY;
        }
        self.note(Work::Records, written).map_or(0, |()| length)
    }

    /// Warns once each time that the disk begins to refuse, and tells when it is well again.
    fn note<T>(&mut self, work: Work, written: rusqlite::Result<T>) -> Option<T> {
        let was_failing = self.failing.contains(&true);
        self.failing[work as usize] = written.is_err();
        if was_failing && !self.failing.contains(&true) {
            *self.shared.failing_since.lock() = None;
            tracing::info!("the records can be written again");
        }
        let why = match written {
            Ok(value) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                return Some(value);
            }
            Err(why) => why,
        };
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        if !was_failing {
            *self.shared.failing_since.lock() = Some(Instant::now());
            tracing::warn!(
                %why,
                path = %self.settings.path.display(),
                "the records cannot be written: calls go on, and so does trying; what does not fit into the queue \
                 is counted as lost"
            );
        }
        None
    }

    /// Lets go of what is too old, and of the oldest where the file is too large. A little at a time.
    pub(super) fn sweep(&mut self) -> rusqlite::Result<()> {
        let (wall, steady) = (SystemTime::now(), Instant::now());
        let mut is_behind = self.shrink()?;
        if self.trust.is_earned(wall, steady) {
            is_behind |= self.forget(wall)?;
        }
        if is_behind {
            self.next_sweep = Instant::now() + BATCH_EVERY;
        }
        Ok(())
    }

    /// Deletes what is too old by this clock. True where there is more of it.
    pub(super) fn forget(&mut self, wall: SystemTime) -> rusqlite::Result<bool> {
        let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest = now.saturating_sub(self.settings.retention).as_millis();
        books::forget(&self.connection, now.as_millis() as u64)?;
        let first_kept = (oldest << 80).to_be_bytes();
        let gone = self.connection.execute(DELETE_OLDEST, params![first_kept, SWEEP_ROWS])? as i64;
        batches::forget(&self.connection, i64::try_from(oldest).unwrap_or(i64::MAX))?;
        let oldest_day = i64::try_from(oldest).unwrap_or(i64::MAX) - DAY_MS;
        // Sums are small; they are kept for a year at least, for the bills.
        let year = 366 * DAY_MS;
        let oldest_day = oldest_day.min(now.as_millis() as i64 - year);
        self.connection.execute("DELETE FROM quarters WHERE start_ms < ?1", params![oldest_day])?;
        Ok(gone >= SWEEP_ROWS)
    }

    /// Deletes the oldest records where the file is too large, and gives free pages back. True where that is not enough yet.
    fn shrink(&mut self) -> rusqlite::Result<bool> {
        for _ in 0..SWEEP_ROWS / SHRINK_ROWS {
            let Pages { all, free } = self.pages()?;
            if all - free <= self.max_pages {
                break;
            }
            if self.connection.execute(DELETE_OLDEST, params![[0xff_u8; 16], SHRINK_ROWS])? == 0 {
                return Ok(false);
            }
        }
        let Pages { all, free } = self.pages()?;
        let too_many = all.saturating_sub(self.max_pages).min(free);
        if too_many > 0 {
            // Each page that is moved is in the log.
            let pages = too_many.min(self.vacuum_pages);
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))?;
        }
        Ok(all - free > self.max_pages || too_many > self.vacuum_pages)
    }

    fn pages(&self) -> rusqlite::Result<Pages> {
        let pragma = |name| self.connection.query_row(name, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        Ok(Pages { all: pragma("PRAGMA page_count")?, free: pragma("PRAGMA freelist_count")? })
    }
}

/// Of the database, without its log.
struct Pages {
    all: u64,
    free: u64,
}

const DELETE_OLDEST: &str =
    "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id < ?1 ORDER BY id LIMIT ?2)";

/// Opens the database and starts the threads.
pub(super) fn start(
    settings: Settings,
    rows: Receiver<Row>,
    shared: Arc<Shared>,
) -> Result<std::thread::JoinHandle<()>, RecordsError> {
    let path: PathBuf = settings.path.clone();
    let opened = schema::open(&path, settings.max_bytes)?;
    let writer = Writer::new(settings, opened, rows, shared.clone());
    let checkpoints = checkpoints::start(&path, shared)?;
    let run = move || {
        // Records are in no hurry, and leases are written long before they are spent.
        give_way();
        writer.run();
        checkpoints.thread().unpark();
        // A panic of that thread's has been logged where it happened.
        let _ = checkpoints.join();
    };
    Ok(std::thread::Builder::new().name("records".into()).spawn(run)?)
}
