//! The database: its tables, and how it is opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::RecordsError;
use super::lock::Lock;

/// A record a call, in the order of time, for that is the order of their ids. Money is micro-neurons, times are
/// microseconds, moments are milliseconds since 1970, UTC. The longer indexes answer filters of several parts by themselves. Each index that
/// does not grow at its end costs a record's write as much as all else of it, so there is one a model and one a key, and none more.
/// `quarters` has the same figures summed up by quarters of an hour, so that a month's usage reads thousands of rows and not
/// millions, and so that a day of any time zone is a whole number of rows; `ran` are the calls that a model ran for, which the
/// vendor counts too. `digest` and `beginning` are
/// keyed digests of a call and of what it begins with, where they are kept; `upper` is the most that it was to cost, where anything
/// bounded that. `payloads` has bodies where they are kept, `batches` those that were queued
/// and those that are paid. `leases` is the budgets' own; each has a checksum, for a budget
/// is not to begin anew because of a bit. `budget_changes` are what people have changed of budgets, in order.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS records (
  id BLOB PRIMARY KEY, received_ms INTEGER NOT NULL, key TEXT, account TEXT NOT NULL, asked TEXT NOT NULL,
  model TEXT NOT NULL, route TEXT, stream INTEGER NOT NULL, status INTEGER, outcome TEXT NOT NULL, refused TEXT,
  input_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  neurons INTEGER NOT NULL, source TEXT, custom_usd REAL, cache TEXT, saved INTEGER NOT NULL, attempts INTEGER NOT NULL,
  vendor_code INTEGER, step INTEGER NOT NULL, waited_us INTEGER NOT NULL, upstream_us INTEGER NOT NULL,
  first_byte_us INTEGER, duration_us INTEGER NOT NULL, reply_bytes INTEGER NOT NULL, metadata TEXT, event_id TEXT,
  vendor_id TEXT, feedback INTEGER, score INTEGER, note TEXT,
  max_tokens INTEGER, digest INTEGER, beginning INTEGER, upper INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_in_time_of_model ON records (model, id, key, outcome, status);
CREATE INDEX IF NOT EXISTS records_in_time_of_key ON records (key, id, model, outcome, status) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_failed ON records (id) WHERE outcome NOT IN ('ok', 'cache_hit');
CREATE INDEX IF NOT EXISTS records_by_feedback ON records (feedback, id) WHERE feedback IS NOT NULL;
DROP INDEX IF EXISTS records_of_model;
DROP INDEX IF EXISTS records_of_key;
DROP INDEX IF EXISTS records_by_model;
DROP INDEX IF EXISTS records_by_key;
CREATE INDEX IF NOT EXISTS records_by_outcome ON records (outcome, id);
CREATE INDEX IF NOT EXISTS records_by_status ON records (status, id);
CREATE INDEX IF NOT EXISTS records_by_event ON records (event_id, id) WHERE event_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS quarters (
  start_ms INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, account TEXT NOT NULL, outcome TEXT NOT NULL,
  calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, neurons INTEGER NOT NULL, saved INTEGER NOT NULL, ran INTEGER NOT NULL,
  PRIMARY KEY (start_ms, model, key, account, outcome)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
  budget TEXT NOT NULL, bucket TEXT NOT NULL, start_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
  spent INTEGER NOT NULL, upto INTEGER NOT NULL, checksum INTEGER, PRIMARY KEY (budget, bucket, start_ms)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budget_changes (
  at_ms INTEGER NOT NULL, budget TEXT NOT NULL, bucket TEXT, raised_to INTEGER, until_ms INTEGER NOT NULL,
  who TEXT NOT NULL, reason TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
  account TEXT NOT NULL, id TEXT NOT NULL, is_paid INTEGER NOT NULL, touched_ms INTEGER NOT NULL, model TEXT NOT NULL, key TEXT,
  submitted_ms INTEGER NOT NULL, likely INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  held INTEGER NOT NULL, holdings TEXT NOT NULL, PRIMARY KEY (account, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS payloads (
  id BLOB PRIMARY KEY, request_type TEXT NOT NULL, request BLOB NOT NULL, request_bytes INTEGER NOT NULL,
  response_type TEXT NOT NULL, response BLOB NOT NULL, response_bytes INTEGER NOT NULL
);
CREATE TRIGGER IF NOT EXISTS records_take_payloads_along AFTER DELETE ON records
  BEGIN DELETE FROM payloads WHERE id = old.id; END;
PRAGMA user_version = 5;
";

/// Of the tables above.
pub(super) const VERSION: i64 = 5;
/// From here on leases have checksums from the first.
const CHECKED: i64 = 3;
/// The first version summed up by days.
const FROM_DAYS: &str = "
INSERT INTO quarters SELECT day_ms, model, key, account, outcome, calls, input_tokens, cached_input_tokens, output_tokens,
  neurons, saved, CASE outcome WHEN 'ok' THEN calls ELSE 0 END FROM days;
DROP TABLE days;
";
/// The second version summed up by hours: what it has is in the first quarter of each.
const FROM_HOURS: &str = "
INSERT INTO quarters SELECT hour_ms, model, key, account, outcome, calls, input_tokens, cached_input_tokens, output_tokens,
  neurons, saved, ran FROM hours;
DROP TABLE hours;
";
/// Leases of the first two versions have no checksum, and are believed.
const WITH_CHECKSUMS: &str = "ALTER TABLE leases ADD COLUMN checksum INTEGER;";
/// Records of the first three versions do not tell what was asked for.
const WITH_DIGESTS: &str = "ALTER TABLE records ADD COLUMN max_tokens INTEGER;
ALTER TABLE records ADD COLUMN digest INTEGER; ALTER TABLE records ADD COLUMN beginning INTEGER;";
/// Records of the first four versions do not tell what was reserved.
const WITH_UPPER: &str = "ALTER TABLE records ADD COLUMN upper INTEGER;";
/// Of the write-ahead log, at most.
pub(super) const MAX_LOG_PAGES: i64 = 65_536;
const MIN_LOG_PAGES: i64 = 64;
const PAGE_BYTES: i64 = 4096;
/// 64 MiB: a second or two.
const MAX_REMADE_PAGES: i64 = 16_384;
/// Someone else's lock is waited for no longer; then the write is tried again later.
const BUSY: Duration = Duration::from_millis(200);

/// For writing, as long as the lock is kept. The file and its log together are to stay under so many bytes.
pub(super) fn open(path: &Path, max_bytes: u64) -> Result<(Connection, Lock), RecordsError> {
    let lock = Lock::take(path)?;
    let database = |why: rusqlite::Error| RecordsError::Database { path: path.display().to_string(), why: why.into() };
    let connection = Connection::open(path).map_err(database)?;
    prepare(&connection, max_bytes).map_err(database)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(database)?;
    if version > VERSION {
        return Err(RecordsError::Later { path: path.display().to_string() });
    }
    create(&connection, version).map_err(database)?;
    Ok((connection, lock))
}

/// In a new file.
pub(super) fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// All of it or, where the process dies meanwhile, none.
fn create(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    let columns = "SELECT sql LIKE '%checksum%' FROM sqlite_schema WHERE type = 'table' AND name = 'leases'";
    let has_checksums: Option<bool> = connection.query_row(columns, [], |row| row.get(0)).optional()?;
    if version >= CHECKED && has_checksums.is_none() {
        // It was made with the file, so the file is broken; to make another one would be to forget what was spent.
        return Err(rusqlite::Error::InvalidQuery);
    }
    let with_checksums = if has_checksums == Some(false) { WITH_CHECKSUMS } else { "" };
    let columns = "SELECT sql LIKE '%beginning%' FROM sqlite_schema WHERE type = 'table' AND name = 'records'";
    let has_digests: Option<bool> = connection.query_row(columns, [], |row| row.get(0)).optional()?;
    let with_digests = if has_digests == Some(false) { WITH_DIGESTS } else { "" };
    let columns = "SELECT sql LIKE '%upper%' FROM sqlite_schema WHERE type = 'table' AND name = 'records'";
    let has_upper: Option<bool> = connection.query_row(columns, [], |row| row.get(0)).optional()?;
    let with_upper = if has_upper == Some(false) { WITH_UPPER } else { "" };
    let sums = match version {
        1 => FROM_DAYS,
        2 => FROM_HOURS,
        _ => "",
    };
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {with_checksums} {with_digests} {with_upper} {SCHEMA} {sums} COMMIT;"
    ))
}

fn prepare(connection: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    give_back_free_pages(connection)?;
    // With a write-ahead log a commit is in the system's hands at once: a killed process loses nothing.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    // `checkpoints` does that; where it does not keep up, the log is bounded all the same.
    let pages = max_log_pages(max_bytes);
    connection.pragma_update(None, "wal_autocheckpoint", pages)?;
    connection.pragma_update(None, "journal_size_limit", (pages * PAGE_BYTES).min(64 << 20))
}

/// An eighth of what the file may have, in pages.
pub(super) fn max_log_pages(max_bytes: u64) -> i64 {
    i64::try_from(max_bytes / 8).unwrap_or(i64::MAX).div_euclid(PAGE_BYTES).clamp(MIN_LOG_PAGES, MAX_LOG_PAGES)
}

/// Of the database, in pages: what its log and the log's index may grow to is left free, and a little that a transaction may add.
pub(super) fn max_pages(max_bytes: u64) -> u64 {
    let pages = max_bytes / PAGE_BYTES.unsigned_abs();
    pages.saturating_sub(3 * max_log_pages(max_bytes).unsigned_abs()).max(pages / 4)
}

/// So that a file can become smaller. A small one that was made otherwise is made anew; to do that with a large one would hold up
/// the start.
fn give_back_free_pages(connection: &Connection) -> rusqlite::Result<()> {
    const INCREMENTAL: i64 = 2;
    let pragma = |name: &str| connection.query_row(name, [], |row| row.get::<_, i64>(0));
    let (pages, is_so) = (pragma("PRAGMA page_count")?, pragma("PRAGMA auto_vacuum")? == INCREMENTAL);
    if is_so {
        return Ok(());
    }
    connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    if (1..=MAX_REMADE_PAGES).contains(&pages) {
        // It takes effect with a new file of the same content, and not in a log.
        connection.pragma_update(None, "journal_mode", "delete")?;
        connection.execute_batch("VACUUM")?;
    }
    Ok(())
}

/// For reading, beside whoever writes.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, RecordsError> {
    let database = |why: rusqlite::Error| RecordsError::Database { path: path.display().to_string(), why: why.into() };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(database)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(database)?;
    Ok(connection)
}
