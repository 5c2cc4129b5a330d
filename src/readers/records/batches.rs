//! The batches that wait for their answers, and those that are paid, in the records' database.
//!
//! A batch is written before its submit is answered, so that a kill does not lose who pays, and is paid here in the transaction of
//! the call's own record: where what it cost is on record, and nowhere else.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::batches::{Batches, Note, Queued};
use crate::layers::budget::Budgets;
use crate::neurons::Neurons;

const QUEUE: &str = "INSERT OR IGNORE INTO batches VALUES (?1,?2,0,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
/// Of one that was never heard of nothing but that is known.
const PAY: &str = "INSERT INTO batches VALUES (?1,?2,1,?3,'',NULL,?3,0,0,0,0,'[]') \
    ON CONFLICT DO UPDATE SET is_paid = 1, touched_ms = excluded.touched_ms";
const LATEST: &str = "SELECT account, id, is_paid, model, key, submitted_ms, likely, input_tokens, output_tokens, held, holdings \
    FROM batches ORDER BY touched_ms DESC LIMIT 100000";

pub(super) fn write(connection: &Connection, account: &str, note: &Note, now_ms: i64) -> rusqlite::Result<()> {
    match note {
        Note::Queued(queued) => insert(connection, account, queued, now_ms)?,
        Note::Settled { id, .. } => drop(connection.prepare_cached(PAY)?.execute(params![account, &**id, now_ms])?),
    }
    Ok(())
}

/// Batches that are kept before their submits are answered.
pub(super) fn keep<'a>(connection: &mut Connection, batches: impl Iterator<Item = &'a Queued>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for queued in batches {
        insert(&transaction, &queued.account, queued, number(queued.submitted_ms))?;
    }
    transaction.commit()
}

fn insert(connection: &Connection, account: &str, queued: &Queued, now_ms: i64) -> rusqlite::Result<()> {
    let holdings = serde_json::to_string(&queued.holdings).unwrap_or_default();
    connection.prepare_cached(QUEUE)?.execute(params![
        account,
        &*queued.id,
        now_ms,
        &*queued.model,
        queued.key.as_deref(),
        number(queued.submitted_ms),
        number(queued.likely.micro()),
        number(queued.input_tokens),
        number(queued.output_tokens),
        number(queued.held.micro()),
        holdings,
    ])?;
    Ok(())
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Takes up what earlier runs knew.
pub(super) fn restore(connection: &Connection, batches: &Batches, budgets: &Budgets) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(LATEST)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
        let (account, id, model): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let holdings: String = row.get(10)?;
        let queued = Queued {
            account: account.into(),
            id: id.into(),
            model: model.into(),
            key: row.get::<_, Option<String>>(4)?.map(Arc::from),
            submitted_ms: number(5)?,
            likely: Neurons::from_micro(number(6)?),
            input_tokens: number(7)?,
            output_tokens: number(8)?,
            held: Neurons::from_micro(number(9)?),
            holdings: serde_json::from_str(&holdings).unwrap_or_default(),
        };
        all.push((queued, row.get::<_, bool>(2)?));
    }
    // The oldest come first, as they came.
    for (queued, is_paid) in all.into_iter().rev() {
        let held = (!is_paid && !queued.holdings.is_empty())
            .then(|| budgets.hold_again(&queued.holdings, queued.held, queued.model.clone()));
        batches.restore(queued, is_paid, held);
    }
    Ok(())
}

/// Lets go of what nobody has asked for since.
pub(super) fn forget(connection: &Connection, oldest_ms: i64) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM batches WHERE touched_ms < ?1", params![oldest_ms])
}
