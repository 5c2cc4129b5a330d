//! The budgets' leases, in the records' database.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::layers::budget::{Bucket, Lease};
use crate::neurons::Neurons;

const WRITE: &str = "INSERT INTO leases VALUES (?1,?2,?3,?4,?5,?6) \
    ON CONFLICT DO UPDATE SET expires_ms = excluded.expires_ms, spent = excluded.spent, upto = excluded.upto";

/// Writes what these buckets want written, all in one transaction, and tells them.
pub(super) fn write(connection: &mut Connection, buckets: &[Arc<Bucket>], is_closing: bool) -> rusqlite::Result<()> {
    let leases: Vec<_> = buckets.iter().map(|bucket| bucket.leases(is_closing)).collect();
    let result = write_all(connection, leases.iter().flatten());
    for (bucket, leases) in buckets.iter().zip(&leases) {
        if result.is_ok() { bucket.written(leases) } else { bucket.unwritten() }
    }
    result
}

fn write_all<'a>(connection: &mut Connection, leases: impl Iterator<Item = &'a Lease>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for lease in leases {
        transaction.prepare_cached(WRITE)?.execute(params![
            &*lease.budget,
            &*lease.bucket,
            lease.start_ms as i64,
            lease.expires_ms as i64,
            lease.spent.micro() as i64,
            lease.upto.micro() as i64,
        ])?;
    }
    transaction.commit()
}

/// What has not expired of one budget.
pub(super) fn load(connection: &Connection, budget: &str, now_ms: u64) -> rusqlite::Result<Vec<Lease>> {
    let sql = "SELECT bucket, start_ms, expires_ms, spent, upto FROM leases WHERE budget = ?1 AND expires_ms > ?2";
    let mut statement = connection.prepare(sql)?;
    let lease = |row: &rusqlite::Row<'_>| {
        let bucket: String = row.get(0)?;
        let window = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
        let neurons = |n| Ok::<_, rusqlite::Error>(Neurons::from_micro(row.get::<_, i64>(n)? as u64));
        Ok(Lease::new(budget, &bucket, window, neurons(3)?, neurons(4)?))
    };
    statement.query_map(params![budget, now_ms as i64], lease)?.collect()
}

/// Lets go of what counts in no window any more.
pub(super) fn forget(connection: &Connection, now_ms: u64) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM leases WHERE expires_ms < ?1", params![now_ms as i64])
}
