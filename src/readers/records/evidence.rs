//! Reading the records for what was spent in vain: the figures behind `tollgate advise`.

use rusqlite::Row;
use rusqlite::types::FromSql;

use super::error::RecordsError;
use super::query::Archive;
use crate::neurons::Neurons;

/// What the records show of a time.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// What each model used that ran.
    pub models: Vec<Ran>,
    /// Calls that had been answered before, within a day, and ran again.
    pub repeats: Vec<Repeats>,
    /// Calls that began as others had, and were not repeats.
    pub beginnings: Vec<Beginnings>,
    /// Limits of tokens that are far over what is written.
    pub limits: Vec<Roomy>,
    /// Calls whose clients left.
    pub left: Vec<Lost>,
    /// Calls that were tried again, none of which were mended by it.
    pub retried: Vec<Lost>,
    /// What each model used by the vendor's own word for what it cost.
    pub reported: Vec<Ran>,
    /// Calls that came faster than their models' limits, and asked for no stream.
    pub crowds: Vec<Crowd>,
    /// Keys that were used, by their names.
    pub keys: Vec<String>,
    /// Calls with a digest: without any, repeats and beginnings cannot be told.
    pub with_digest: u64,
    /// All that was spent.
    pub spent: Neurons,
}

/// What a model used.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Ran {
    /// The model.
    pub model: String,
    /// Calls that it ran for.
    pub calls: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// The part of them that was cached.
    pub cached_input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// The most tokens that one call read and wrote.
    pub longest: u64,
    /// Spent.
    pub neurons: Neurons,
}

/// Repeats of a model.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Repeats {
    /// The model.
    pub model: String,
    /// Calls that were repeats.
    pub calls: u64,
    /// What they cost.
    pub neurons: Neurons,
    /// The longest time since the call before, in milliseconds.
    pub gap_ms: u64,
    /// Those of them that the cache was not asked for, because their answers are sampled or they said so.
    pub bypassed: u64,
}

/// Calls that began as others had.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Beginnings {
    /// The model.
    pub model: String,
    /// Calls.
    pub calls: u64,
    /// The tokens of a beginning that was read before, and not from the vendor's cache.
    pub tokens: u64,
}

/// A limit of tokens that is never needed.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Roomy {
    /// The model.
    pub model: String,
    /// The client's key; empty for none.
    pub key: String,
    /// Calls.
    pub calls: u64,
    /// All limits together.
    pub asked: u64,
    /// The most that one of the calls wrote.
    pub most: u64,
}

/// Calls that came in a crowd.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Crowd {
    /// The model.
    pub model: String,
    /// The client's key; empty for none.
    pub key: String,
    /// Calls that waited for a second and more, or were refused.
    pub calls: u64,
    /// Those of them that a limit refused.
    pub refused: u64,
    /// All their waits together, in milliseconds.
    pub waited_ms: u64,
}

/// Calls that were of no use.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Lost {
    /// The model.
    pub model: String,
    /// Calls.
    pub calls: u64,
    /// Attempts after the first.
    pub again: u64,
    /// What they cost.
    pub neurons: Neurons,
}

/// A beginning is known to be so many tokens at least: see [`BLOCK_BYTES`](crate::affinity::BLOCK_BYTES).
pub const BLOCK_TOKENS: u64 = (crate::affinity::BLOCK_BYTES / 4) as u64;

const RANGE: &str = "received_ms >= ?1 AND received_ms < ?2";
const REPORTED: &str = "SELECT model, count(*), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), \
    max(input_tokens + output_tokens), sum(neurons) FROM records WHERE source = 'reported' AND outcome = 'ok' \
    AND input_tokens + output_tokens > 0 AND RANGE GROUP BY model";
const CROWDS: &str = "SELECT model, coalesce(key, ''), count(*), sum(outcome = 'rate_limited'), sum(waited_us) / 1000 FROM records \
    WHERE stream = 0 AND (outcome = 'rate_limited' AND refused IS NOT NULL OR outcome = 'ok' AND attempts = 1 \
    AND waited_us >= 1000000) AND RANGE GROUP BY model, key HAVING count(*) >= 100";
const MODELS: &str = "SELECT model, count(*), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), \
    max(input_tokens + output_tokens), sum(neurons) FROM records WHERE source IS NOT NULL AND RANGE GROUP BY model";
const REPEATS: &str = "SELECT model, count(*), sum(neurons), max(gap), sum(cache = 'BYPASS') FROM (SELECT model, neurons, cache, \
    received_ms - lag(received_ms) OVER (PARTITION BY digest ORDER BY id) AS gap FROM records \
    WHERE digest IS NOT NULL AND source IS NOT NULL AND outcome = 'ok' AND RANGE) WHERE gap <= 86400000 GROUP BY model";
const BEGINNINGS: &str = "SELECT model, count(*), sum(max(0, min(BLOCK, input_tokens) - cached_input_tokens)) FROM (\
    SELECT model, input_tokens, cached_input_tokens, row_number() OVER (PARTITION BY beginning ORDER BY id) AS nth, \
    row_number() OVER (PARTITION BY digest ORDER BY id) AS seen FROM records \
    WHERE beginning IS NOT NULL AND source IS NOT NULL AND outcome = 'ok' AND RANGE) WHERE nth > 1 AND seen = 1 GROUP BY model";
const LIMITS: &str = "SELECT model, coalesce(key, ''), count(*), sum(max_tokens), max(output_tokens) FROM records \
    WHERE max_tokens IS NOT NULL AND source IS NOT NULL AND outcome = 'ok' AND RANGE GROUP BY model, key \
    HAVING count(*) >= 20 AND max(output_tokens) * 4 <= min(max_tokens)";
const LEFT: &str = "SELECT model, count(*), sum(max(attempts - 1, 0)), sum(neurons) FROM records \
    WHERE outcome = 'aborted' AND neurons > 0 AND RANGE GROUP BY model";
const RETRIED: &str = "SELECT model, count(*), sum(attempts - 1), sum(neurons) FROM records WHERE attempts > 1 \
    AND outcome != 'aborted' AND RANGE GROUP BY model HAVING count(*) >= 10 AND sum(outcome = 'ok') = 0";
const KEYS: &str = "SELECT DISTINCT key FROM records WHERE key IS NOT NULL AND RANGE";
const ALL: &str = "SELECT count(digest), coalesce(sum(neurons), 0) FROM records WHERE RANGE";

impl Archive {
    /// What was spent in vain between two moments, in milliseconds since 1970.
    pub fn evidence(&self, from_ms: u64, until_ms: u64) -> Result<Evidence, RecordsError> {
        let whole = |row: &Row<'_>, at| read::<i64>(row, at).map(i64::unsigned_abs);
        let neurons = |row: &Row<'_>, at| whole(row, at).map(Neurons::from_micro);
        let lost = |row: &Row<'_>| {
            Ok(Lost { model: read(row, 0)?, calls: whole(row, 1)?, again: whole(row, 2)?, neurons: neurons(row, 3)? })
        };
        let ran = |row: &Row<'_>| {
            Ok(Ran {
                model: read(row, 0)?,
                calls: whole(row, 1)?,
                input_tokens: whole(row, 2)?,
                cached_input_tokens: whole(row, 3)?,
                output_tokens: whole(row, 4)?,
                longest: whole(row, 5)?,
                neurons: neurons(row, 6)?,
            })
        };
        let columns = "SELECT count(*) FROM pragma_table_info('records') WHERE name = 'digest'";
        if self.told(self.connection.query_row(columns, [], |row| row.get::<_, i64>(0)))? == 0 {
            return Err(RecordsError::Earlier { path: self.path.clone() });
        }
        let span = (from_ms, until_ms);
        let all = self.rows(ALL, span, |row| Ok((whole(row, 0)?, neurons(row, 1)?)))?;
        let (with_digest, spent) = all.first().copied().unwrap_or_default();
        Ok(Evidence {
            models: self.rows(MODELS, span, ran)?,
            reported: self.rows(REPORTED, span, ran)?,
            crowds: self.rows(CROWDS, span, |row| {
                Ok(Crowd {
                    model: read(row, 0)?,
                    key: read(row, 1)?,
                    calls: whole(row, 2)?,
                    refused: whole(row, 3)?,
                    waited_ms: whole(row, 4)?,
                })
            })?,
            repeats: self.rows(REPEATS, span, |row| {
                Ok(Repeats {
                    model: read(row, 0)?,
                    calls: whole(row, 1)?,
                    neurons: neurons(row, 2)?,
                    gap_ms: whole(row, 3)?,
                    bypassed: whole(row, 4)?,
                })
            })?,
            beginnings: self.rows(BEGINNINGS, span, |row| {
                Ok(Beginnings { model: read(row, 0)?, calls: whole(row, 1)?, tokens: whole(row, 2)? })
            })?,
            limits: self.rows(LIMITS, span, |row| {
                Ok(Roomy {
                    model: read(row, 0)?,
                    key: read(row, 1)?,
                    calls: whole(row, 2)?,
                    asked: whole(row, 3)?,
                    most: whole(row, 4)?,
                })
            })?,
            left: self.rows(LEFT, span, lost)?,
            retried: self.rows(RETRIED, span, lost)?,
            keys: self.rows(KEYS, span, |row| read(row, 0))?,
            with_digest,
            spent,
        })
    }

    fn rows<T>(
        &self,
        sql: &str,
        (from_ms, until_ms): (u64, u64),
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, RecordsError> {
        let sql = sql.replace("RANGE", RANGE).replace("BLOCK", &BLOCK_TOKENS.to_string());
        let bound = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let span = [bound(from_ms), bound(until_ms)];
        let statement = self.connection.prepare(&sql);
        self.told(statement.and_then(|mut statement| statement.query_map(span, |row| read(row))?.collect()))
    }
}

fn read<T: FromSql>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    row.get(at)
}
