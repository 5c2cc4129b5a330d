//! Brings what the write-ahead log holds into the database, on a thread of its own.
//!
//! That waits for the disk, for seconds where the disk is busy. The thread that writes must not: what was settled meanwhile
//! would be gone with a killed process, and calls wait for leases.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::error::RecordsError;
use super::{Shared, schema};

/// A loss of power costs what was settled since.
const EVERY: Duration = Duration::from_secs(2);
/// What was written during one pass is there for the next: only a log that is in the database whole begins anew.
const PASSES: usize = 8;

/// Starts the thread; it ends when it is told to stop and unparked.
pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<JoinHandle<()>, RecordsError> {
    let connection = schema::open_to_read(path)?;
    Ok(std::thread::Builder::new().name("checkpoints".into()).spawn(move || run(&connection, &shared))?)
}

fn run(connection: &Connection, shared: &Shared) {
    let mut seen = 0;
    while !shared.stop.load(Ordering::Acquire) {
        std::thread::park_timeout(EVERY);
        let commits = shared.commits.load(Ordering::Relaxed);
        if std::mem::replace(&mut seen, commits) == commits {
            continue;
        }
        // A disk that refuses is told by the thread that writes.
        let is_whole = (0..PASSES).any(|_| pass(connection).unwrap_or(true));
        tracing::trace!(is_whole, "checkpoint");
    }
}

/// Whether all of the log is in the database now. Nobody who reads or writes is held up.
fn pass(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?))
}
