//! The budgets' leases, in the records' database.

use std::sync::Arc;

use highway::{HighwayHash, HighwayHasher};
use rusqlite::{Connection, params};

use crate::layers::budget::{Change, Lease, Lessee};
use crate::neurons::Neurons;

const WRITE: &str = "INSERT INTO leases (budget, bucket, start_ms, expires_ms, spent, upto, checksum) \
    VALUES (?1,?2,?3,?4,?5,?6,?7) ON CONFLICT DO UPDATE SET expires_ms = excluded.expires_ms, spent = excluded.spent, \
    upto = excluded.upto, checksum = excluded.checksum";

/// Writes what these buckets want written, all in one transaction, and tells them.
pub(super) fn write(
    connection: &mut Connection,
    buckets: &[Arc<dyn Lessee>],
    is_closing: bool,
) -> rusqlite::Result<()> {
    let leases: Vec<_> = buckets.iter().map(|bucket| bucket.leases(is_closing)).collect();
    let result = write_all(connection, leases.iter().flatten());
    for (bucket, leases) in buckets.iter().zip(&leases) {
        if result.is_ok() { bucket.written(leases) } else { bucket.unwritten() }
    }
    result
}

fn write_all<'a>(connection: &mut Connection, leases: impl Iterator<Item = &'a Lease>) -> rusqlite::Result<()> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let transaction = connection.transaction()?;
    for lease in leases {
        let [start, expires] = [lease.start_ms, lease.expires_ms].map(number);
        let [spent, upto] = [lease.spent, lease.upto].map(|neurons| number(neurons.micro()));
        let checksum = checksum(&lease.budget, &lease.bucket, [start, expires, spent, upto]);
        let row = params![&*lease.budget, &*lease.bucket, start, expires, spent, upto, checksum];
        transaction.prepare_cached(WRITE)?.execute(row)?;
    }
    transaction.commit()
}

/// No secret: it tells a broken disk, and nobody who writes the file on purpose.
fn checksum(budget: &str, bucket: &str, numbers: [i64; 4]) -> i64 {
    let mut hasher = HighwayHasher::default();
    for text in [budget, bucket] {
        hasher.append(&(text.len() as u64).to_le_bytes());
        hasher.append(text.as_bytes());
    }
    numbers.iter().for_each(|number| hasher.append(&number.to_le_bytes()));
    hasher.finalize64().cast_signed()
}

/// Why leases cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// What SQLite finds wrong.
    #[error("the table of leases is broken: {0}")]
    Broken(String),
    #[error("a lease of the budget {0:?} is not as it was written")]
    Changed(String),
}

/// What there is of one budget, also what has expired: the clock may be wrong just now. [`forget`] keeps that short. All leases are
/// looked at, for a broken one may have lost the name of its budget.
pub(super) fn load(connection: &Connection, budget: &str) -> Result<Vec<Lease>, LoadError> {
    let found: String = connection.query_row("PRAGMA integrity_check(leases)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(LoadError::Broken(found));
    }
    let mut statement =
        connection.prepare("SELECT budget, bucket, start_ms, expires_ms, spent, upto, checksum FROM leases")?;
    let mut rows = statement.query([])?;
    let mut leases = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, bucket): (String, String) = (row.get(0)?, row.get(1)?);
        let numbers: [i64; 4] = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
        let written: Option<i64> = row.get(6)?;
        let is_as_written = written.is_none_or(|written| written == checksum(&name, &bucket, numbers));
        let [start, expires, spent, upto] = match numbers.map(u64::try_from) {
            [Ok(start), Ok(expires), Ok(spent), Ok(upto)] if is_as_written => [start, expires, spent, upto],
            _ => return Err(LoadError::Changed(name)),
        };
        if name == budget {
            let [spent, upto] = [spent, upto].map(Neurons::from_micro);
            leases.push(Lease::new(budget, &bucket, (start, expires), spent, upto));
        }
    }
    Ok(leases)
}

/// What people have changed of a budget that may be in force now, oldest first.
pub(super) fn changes(connection: &Connection, budget: &str, now_ms: u64) -> rusqlite::Result<Vec<Change>> {
    let mut statement = connection.prepare(
        "SELECT bucket, at_ms, raised_to, until_ms, who, reason, checksum FROM budget_changes
         WHERE budget = ?1 AND raised_to IS NOT NULL ORDER BY rowid",
    )?;
    let rows = statement.query_map(params![budget], |row| {
        let number = |place: usize| row.get::<_, i64>(place).map(|number| u64::try_from(number).unwrap_or(0));
        let (bucket, at_ms): (Option<String>, u64) = (row.get(0)?, number(1)?);
        let raised = (Neurons::from_micro(number(2)?), number(3)?);
        let (who, reason): (String, String) = (row.get(4)?, row.get(5)?);
        let numbers = [row.get(1)?, row.get(2)?, row.get(3)?, 0];
        if row.get::<_, i64>(6)? != checksum(budget, bucket.as_deref().unwrap_or(WHOLE), numbers) {
            return Err(rusqlite::Error::InvalidQuery);
        }
        Ok(Change::new(budget, bucket.as_deref(), at_ms, Some(raised), (&who, &reason)))
    })?;
    // A later one takes the place of an earlier one of the same bucket, also where it ends that: all are told, in order.
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let is_last = |(at, change): &(usize, &Change)| !all[at + 1..].iter().any(|later| later.bucket == change.bucket);
    let last = all.iter().enumerate().filter(is_last).map(|(_, change)| change);
    Ok(last.filter(|change| change.until_ms > now_ms).cloned().collect())
}

/// Keeps one more.
pub(super) fn keep(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let raised_to = change.raised_to.map(|to| number(to.micro()));
    let numbers = [number(change.at_ms), raised_to.unwrap_or_default(), number(change.until_ms), 0];
    let checksum = checksum(&change.budget, change.bucket.as_deref().unwrap_or(WHOLE), numbers);
    connection.execute(
        "INSERT INTO budget_changes (at_ms, budget, bucket, raised_to, until_ms, who, reason, checksum)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
        params![
            number(change.at_ms),
            change.budget,
            change.bucket,
            raised_to,
            number(change.until_ms),
            change.who,
            change.reason,
            checksum
        ],
    )?;
    // Only those that are over go: one that is in force is needed after a restart.
    connection.execute(
        "DELETE FROM budget_changes WHERE rowid <= (SELECT max(rowid) FROM budget_changes) - ?1 AND until_ms < ?2",
        params![MAX_CHANGES, number(change.at_ms)],
    )?;
    Ok(())
}

/// All buckets of a budget; no bucket has that name.
const WHOLE: &str = "**";
/// Older changes that are over go.
const MAX_CHANGES: i64 = 10_000;

/// Lets go of what counts in no window any more, by a clock that is believed.
pub(super) fn forget(connection: &Connection, now_ms: u64) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM leases WHERE expires_ms < ?1", params![now_ms as i64])
}
