//! Reading the records in the order in which they happened, to replay them.

use std::collections::HashMap;

use rusqlite::{Row, params};

use super::error::RecordsError;
use super::query::{Archive, first_id};
use crate::neurons::Neurons;

/// A call of the past, with all that is on its record and bears on another one like it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Past {
    id: [u8; 16],
    /// When it was received, in milliseconds since 1970, UTC.
    pub received_ms: u64,
    /// The client's key, by its name.
    pub key: Option<String>,
    /// The account that paid.
    pub account: String,
    /// The model that was asked for, by the name that it was asked by.
    pub asked: String,
    /// The model that answered, or was last tried.
    pub model: String,
    /// The form of the request.
    pub route: Option<String>,
    /// What the client was told.
    pub status: Option<u16>,
    /// How it ended: a label of [`Outcome`](crate::receipt::Outcome).
    pub outcome: String,
    /// Why the gate refused it.
    pub refused: Option<String>,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// The cached part of them.
    pub cached_input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// What it cost.
    pub neurons: Neurons,
    /// Anything ran for it that somebody has put a price on.
    pub is_priced: bool,
    /// What the cache had to say.
    pub cache: Option<String>,
    /// What a hit would have cost.
    pub saved: Neurons,
    /// Attempts upstream.
    pub attempts: u32,
    /// The vendor's error code of the last of them.
    pub vendor_code: Option<u32>,
    /// Which model of a fallback chain answered.
    pub step: u8,
    /// Time in queues and pauses, in microseconds.
    pub waited_us: u64,
    /// Time upstream, in microseconds.
    pub upstream_us: u64,
    /// All of it, in microseconds.
    pub duration_us: u64,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// `cf-aig-metadata`, as JSON.
    pub metadata: Option<String>,
    /// `max_tokens`, where the request had it.
    pub max_tokens: Option<u32>,
    /// The keyed digest of what was asked, where digests were kept.
    pub digest: Option<u64>,
    /// The most that it was to cost; older records do not tell.
    pub upper: Option<Neurons>,
}

/// What a model's answers usually are: for calls that have none on their records.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usual {
    /// Tokens read.
    pub input_tokens: u64,
    /// The cached part of them.
    pub cached_input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// What it costs.
    pub neurons: Neurons,
    /// From a turn to the last byte, in microseconds.
    pub took_us: u64,
}

/// So many are read at a time.
const PAGE: i64 = 10_000;

impl Archive {
    /// Calls from one moment to another, in milliseconds since 1970, in their order; the first page, or the one after a call.
    /// An empty page is the end.
    pub fn past(&self, from_ms: u64, until_ms: u64, after: Option<&Past>) -> Result<Vec<Past>, RecordsError> {
        let has = |column: &str| {
            let sql = "SELECT count(*) FROM pragma_table_info('records') WHERE name = ?1";
            self.connection.query_row(sql, [column], |row| row.get::<_, i64>(0)).map(|count| count > 0)
        };
        if !self.told(has("digest"))? {
            return Err(RecordsError::Earlier { path: self.path.clone() });
        }
        let upper = if self.told(has("upper"))? { "upper" } else { "NULL" };
        let sql = format!(
            "SELECT id, received_ms, key, account, asked, model, route, status, outcome, refused, input_tokens, \
             cached_input_tokens, output_tokens, neurons, source, cache, saved, attempts, vendor_code, step, waited_us, \
             upstream_us, duration_us, reply_bytes, metadata, max_tokens, digest, {upper} FROM records \
             WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3"
        );
        // No id is as small as the first one that a moment can have.
        let first = after.map_or_else(|| first_id(from_ms), |past| past.id);
        let span = params![first, first_id(until_ms), PAGE];
        self.told(self.connection.prepare(&sql).and_then(|mut page| page.query_map(span, past)?.collect()))
    }

    /// What the answers of each model were on average, between two moments in milliseconds since 1970.
    pub fn usual(&self, from_ms: u64, until_ms: u64) -> Result<HashMap<String, Usual>, RecordsError> {
        let sql = "SELECT model, avg(input_tokens), avg(cached_input_tokens), avg(output_tokens), avg(neurons), \
            avg(max(duration_us - waited_us, 0)) FROM records WHERE id >= ?1 AND id < ?2 AND outcome = 'ok' \
            AND source IS NOT NULL GROUP BY model";
        let usual = |row: &Row<'_>| {
            let figure = |place| row.get::<_, f64>(place).map(|mean| mean.round().max(0.0) as u64);
            let usual = Usual {
                input_tokens: figure(1)?,
                cached_input_tokens: figure(2)?,
                output_tokens: figure(3)?,
                neurons: Neurons::from_micro(figure(4)?),
                took_us: figure(5)?,
            };
            Ok((row.get(0)?, usual))
        };
        let span = params![first_id(from_ms), first_id(until_ms)];
        self.told(self.connection.prepare(sql).and_then(|mut all| all.query_map(span, usual)?.collect()))
    }
}

fn past(row: &Row<'_>) -> rusqlite::Result<Past> {
    let whole = |place| row.get::<_, i64>(place).map(|figure| u64::try_from(figure).unwrap_or(0));
    let neurons = |figure: i64| Neurons::from_micro(figure.unsigned_abs());
    Ok(Past {
        id: row.get(0)?,
        received_ms: whole(1)?,
        key: row.get(2)?,
        account: row.get(3)?,
        asked: row.get(4)?,
        model: row.get(5)?,
        route: row.get(6)?,
        status: row.get(7)?,
        outcome: row.get(8)?,
        refused: row.get(9)?,
        input_tokens: whole(10)?,
        cached_input_tokens: whole(11)?,
        output_tokens: whole(12)?,
        neurons: neurons(row.get(13)?),
        is_priced: row.get::<_, Option<String>>(14)?.is_some(),
        cache: row.get(15)?,
        saved: neurons(row.get(16)?),
        attempts: row.get(17)?,
        vendor_code: row.get(18)?,
        step: row.get(19)?,
        waited_us: whole(20)?,
        upstream_us: whole(21)?,
        duration_us: whole(22)?,
        reply_bytes: whole(23)?,
        metadata: row.get(24)?,
        max_tokens: row.get(25)?,
        digest: row.get::<_, Option<i64>>(26)?.map(i64::cast_unsigned),
        upper: row.get::<_, Option<i64>>(27)?.map(neurons),
    })
}
