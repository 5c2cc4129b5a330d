//! Reading the records: calls by filter and page.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::Serialize;

use super::error::RecordsError;
use super::schema;
use crate::neurons::Neurons;
use crate::payload::{Part, Payload};
use crate::receipt::CallId;

/// The records, open for reading beside whoever writes them.
pub struct Archive {
    pub(super) connection: Connection,
    pub(super) path: String,
}

/// What a model did in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moment {
    /// Since 1970.
    pub minute: u64,
    /// The model that answered.
    pub model: String,
    /// Calls.
    pub calls: u64,
    /// Those of them that the cache answered.
    pub hits: u64,
    /// Spent.
    pub neurons: Neurons,
}

/// Which records. `None` is any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The model that answered.
    pub model: Option<String>,
    /// The client's key, by its name.
    pub key: Option<String>,
    /// How it ended: a label of [`Outcome`](crate::receipt::Outcome).
    pub outcome: Option<String>,
    /// What the client was told.
    pub status: Option<u16>,
    /// The caller's own id.
    pub event_id: Option<String>,
    /// The vendor's name for the call. No index has it: with `since_ms` it is found sooner.
    pub vendor_id: Option<String>,
    /// Answered, from the cache or not; or not answered.
    pub success: Option<bool>,
    /// Answered from the cache; or not.
    pub cached: Option<bool>,
    /// What a caller thought of it: -1, 0 or 1.
    pub feedback: Option<i64>,
    /// Received at or after, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Received before, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// An entry of `cf-aig-metadata`, by its name and its value as text. No index has it, nor what follows.
    pub metadata: Option<(String, String)>,
    /// Its cost in US dollars, from and to.
    pub usd: Bounds<f64>,
    /// How long it took, in milliseconds, from and to.
    pub duration_ms: Bounds<f64>,
    /// Tokens read, from and to.
    pub tokens_in: Bounds<u32>,
    /// Tokens written, from and to.
    pub tokens_out: Bounds<u32>,
    /// Before this record: the last one of the page before.
    pub before: Option<CallId>,
}

/// The least and the most, both included. `None` is any.
pub type Bounds<T> = (Option<T>, Option<T>);

/// A record as it is read back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// `cf-aig-log-id`.
    pub id: String,
    /// When it was received, in milliseconds since 1970, UTC.
    pub received_ms: i64,
    /// The client's key, by its name.
    pub key: Option<String>,
    /// The account that pays.
    pub account: String,
    /// The model that was asked for.
    pub asked: String,
    /// The model that answered.
    pub model: String,
    /// The form of the request.
    pub route: Option<String>,
    /// A stream was asked for.
    pub stream: bool,
    /// What the client was told.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: String,
    /// Why the gate refused it.
    pub refused: Option<String>,
    /// Tokens read.
    pub input_tokens: i64,
    /// The cached part of them.
    pub cached_input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
    /// In neurons.
    pub neurons: f64,
    /// In US dollars, at the caller's own price where it named one.
    pub usd: f64,
    /// Who says what it cost.
    pub source: Option<String>,
    /// What the cache had to say.
    pub cache: Option<String>,
    /// Attempts upstream.
    pub attempts: i64,
    /// The vendor's error code of the last of them.
    pub vendor_code: Option<u32>,
    /// In milliseconds.
    pub waited_ms: f64,
    /// In milliseconds.
    pub upstream_ms: f64,
    /// In milliseconds.
    pub duration_ms: f64,
    /// `cf-aig-metadata`.
    pub metadata: Option<serde_json::Value>,
    /// `cf-aig-event-id`.
    pub event_id: Option<String>,
    /// The vendor's name for the call.
    pub vendor_id: Option<String>,
    /// A caller's verdict: -1, 0 or 1.
    pub feedback: Option<i64>,
    /// A caller's verdict: 0 to 100.
    pub score: Option<i64>,
}

const COLUMNS: &str = "id, received_ms, key, account, asked, model, route, stream, status, outcome, refused, \
    input_tokens, cached_input_tokens, output_tokens, neurons, custom_usd, source, cache, attempts, vendor_code, \
    waited_us, upstream_us, duration_us, metadata, event_id, vendor_id, feedback, score";

/// As [`Neurons::usd`] has it, unless the caller named a price.
const USD: &str = "coalesce(custom_usd, neurons * 1.1e-11)";
const HAS_METADATA: &str = "EXISTS (SELECT 1 FROM json_each(records.metadata) AS entry WHERE entry.key = ? AND \
    CASE entry.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(entry.value AS TEXT) END = ?)";
const DELETED_AT_ONCE: usize = 500;
/// Who waits for the database looks again within 25 ms.
const WRITERS_TURN: std::time::Duration = std::time::Duration::from_millis(30);

// === impl Archive ===

impl Archive {
    /// Opens records that are there.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        Ok(Self { connection: schema::open_to_read(path)?, path: path.display().to_string() })
    }

    /// From here on it sees what is there now, whatever is written later.
    pub fn hold(self) -> Result<Self, RecordsError> {
        self.told(self.connection.execute_batch("BEGIN; SELECT 1 FROM quarters LIMIT 1;"))?;
        Ok(self)
    }

    pub(super) fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, RecordsError> {
        result.map_err(|why| RecordsError::Database { path: self.path.clone(), why: why.into() })
    }

    /// The newest records that fit, newest first.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Record>, RecordsError> {
        self.page(filter, 0, limit)
    }

    /// The same beyond so many of them.
    pub fn page(&self, filter: &Filter, skipped: usize, limit: usize) -> Result<Vec<Record>, RecordsError> {
        let (conditions, mut values) = filter.conditions();
        values.extend([Value::Integer(limit as i64), Value::Integer(skipped as i64)]);
        // Which ones is asked of an index alone; only those are then read whole.
        let sql = format!(
            "SELECT {COLUMNS} FROM records WHERE id IN \
             (SELECT id FROM records WHERE {conditions} ORDER BY id DESC LIMIT ? OFFSET ?) ORDER BY id DESC"
        );
        self.told(
            self.connection
                .prepare(&sql)
                .and_then(|mut statement| statement.query_map(params_from_iter(values), record)?.collect()),
        )
    }

    /// One record.
    pub fn get(&self, id: CallId) -> Result<Option<Record>, RecordsError> {
        let sql = format!("SELECT {COLUMNS} FROM records WHERE id = ?1");
        self.told(self.connection.query_row(&sql, params![id.to_bytes()], record).optional())
    }

    /// What each model did minute by minute, between two moments in milliseconds since 1970. At most `most` lines.
    pub fn minutes(&self, from_ms: u64, until_ms: u64, most: usize) -> Result<Vec<Moment>, RecordsError> {
        let sql = "SELECT received_ms / 60000, model, count(*), sum(cache IN ('HIT', 'COALESCED', 'SHARED', 'SEMANTIC_HIT')), sum(neurons) \
            FROM records WHERE id >= ?1 AND id < ?2 GROUP BY 1, 2 ORDER BY 1 DESC, 5 DESC LIMIT ?3";
        let moment = |row: &Row<'_>| {
            let figure = |n| row.get::<_, Option<i64>>(n).map(|figure| figure.unwrap_or(0) as u64);
            let neurons = Neurons::from_micro(figure(4)?);
            Ok(Moment { minute: figure(0)?, model: row.get(1)?, calls: figure(2)?, hits: figure(3)?, neurons })
        };
        let bounds = params![first_id(from_ms), first_id(until_ms), most as i64];
        self.told(self.connection.prepare(sql).and_then(|mut statement| statement.query_map(bounds, moment)?.collect()))
    }

    /// How many records fit; counts no further than `most`.
    pub fn count(&self, filter: &Filter, most: usize) -> Result<usize, RecordsError> {
        let (conditions, mut values) = filter.conditions();
        values.push(Value::Integer(most as i64));
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM records WHERE {conditions} LIMIT ?)");
        let count = self.connection.query_row(&sql, params_from_iter(values), |row| row.get::<_, i64>(0));
        self.told(count.map(|count| count as usize))
    }

    /// A call's bodies, where they were kept.
    pub fn payload(&self, id: CallId) -> Result<Option<Payload>, RecordsError> {
        let sql = "SELECT request_type, request, request_bytes, response_type, response, response_bytes FROM payloads \
            WHERE id = ?1";
        let part = |row: &Row<'_>, n| {
            let bytes: Vec<u8> = row.get(n + 1)?;
            let length = row.get::<_, i64>(n + 2)? as u64;
            Ok::<_, rusqlite::Error>(Part { content_type: row.get(n)?, bytes: bytes.into(), length })
        };
        let payload = |row: &Row<'_>| Ok(Payload { request: part(row, 0)?, response: part(row, 3)? });
        self.told(self.connection.query_row(sql, params![id.to_bytes()], payload).optional())
    }

    /// Deletes what fits and is there now, and says how many that were. Sums stay. A little at a time, for meanwhile nobody
    /// can write.
    pub fn delete(&self, filter: &Filter) -> Result<usize, RecordsError> {
        let newest = "SELECT max(id) FROM records";
        let newest: Option<[u8; 16]> = self.told(self.connection.query_row(newest, [], |row| row.get(0)))?;
        let Some(newest) = newest else { return Ok(0) };
        let (conditions, mut values) = filter.conditions();
        values.extend([Value::Blob(newest.to_vec()), Value::Integer(DELETED_AT_ONCE as i64)]);
        let sql = format!(
            "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE {conditions} AND id <= ? ORDER BY id LIMIT ?)"
        );
        let mut all = 0;
        loop {
            let gone = self.told(self.connection.execute(&sql, params_from_iter(&values)))?;
            all += gone;
            if gone < DELETED_AT_ONCE {
                return Ok(all);
            }
            std::thread::sleep(WRITERS_TURN);
        }
    }

    /// A caller's verdict on a record; false where there is none. `None` leaves what is there.
    pub fn judge(
        &self,
        id: CallId,
        feedback: Option<i64>,
        score: Option<i64>,
        metadata: Option<&str>,
    ) -> Result<bool, RecordsError> {
        let sql = "UPDATE records SET feedback = coalesce(?2, feedback), score = coalesce(?3, score), \
            metadata = coalesce(?4, metadata) WHERE id = ?1";
        let changed = self.connection.execute(sql, params![id.to_bytes(), feedback, score, metadata]);
        self.told(changed.map(|rows| rows > 0))
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let neurons = Neurons::from_micro(row.get::<_, i64>(14)? as u64);
    let millis = |n| row.get::<_, i64>(n).map(|micros| micros as f64 / 1000.0);
    let metadata: Option<String> = row.get(23)?;
    Ok(Record {
        id: CallId::from_bytes(row.get(0)?).to_string(),
        received_ms: row.get(1)?,
        key: row.get(2)?,
        account: row.get(3)?,
        asked: row.get(4)?,
        model: row.get(5)?,
        route: row.get(6)?,
        stream: row.get(7)?,
        status: row.get(8)?,
        outcome: row.get(9)?,
        refused: row.get(10)?,
        input_tokens: row.get(11)?,
        cached_input_tokens: row.get(12)?,
        output_tokens: row.get(13)?,
        neurons: neurons.as_f64(),
        usd: row.get::<_, Option<f64>>(15)?.unwrap_or_else(|| neurons.usd()),
        source: row.get(16)?,
        cache: row.get(17)?,
        attempts: row.get(18)?,
        vendor_code: row.get(19)?,
        waited_ms: millis(20)?,
        upstream_ms: millis(21)?,
        duration_ms: millis(22)?,
        metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
        event_id: row.get(24)?,
        vendor_id: row.get(25)?,
        feedback: row.get(26)?,
        score: row.get(27)?,
    })
}

/// The first that a record of this moment can have: ids begin with their moment.
pub(super) fn first_id(ms: u64) -> [u8; 16] {
    (u128::from(ms) << 80).to_be_bytes()
}

// === impl Filter ===

impl Filter {
    fn conditions(&self) -> (String, Vec<Value>) {
        let text = |value: &Option<String>| value.clone().map(Value::Text);
        let moment = |ms: Option<u64>| ms.map(|ms| Value::Blob(first_id(ms).to_vec()));
        let before = self.before.map(|id| Value::Blob(id.to_bytes().to_vec()));
        let parts = [
            ("model = ?", text(&self.model)),
            ("key = ?", text(&self.key)),
            ("outcome = ?", text(&self.outcome)),
            ("event_id = ?", text(&self.event_id)),
            ("vendor_id = ?", text(&self.vendor_id)),
            ("status = ?", self.status.map(|status| Value::Integer(status.into()))),
            ("feedback = ?", self.feedback.map(Value::Integer)),
            ("id >= ?", moment(self.since_ms)),
            ("id < ?", moment(self.until_ms)),
            ("id < ?", before),
        ];
        let metadata = self.metadata.iter().flat_map(|(name, value)| [("", name), (HAS_METADATA, value)]);
        let metadata = metadata.map(|(sql, text)| (sql.to_owned(), Value::Text(text.clone())));
        let parts = parts.into_iter().filter_map(|(sql, value)| Some((sql.to_owned(), value?)));
        let parts: Vec<_> = parts.chain(metadata).chain(self.bounds()).collect();
        // What is rare has an index; what is usual is found by looking.
        let fixed = [
            self.success.map(|is_so| {
                if is_so { "+outcome IN ('ok', 'cache_hit')" } else { "outcome NOT IN ('ok', 'cache_hit')" }
            }),
            self.cached.map(|is_so| if is_so { "outcome = 'cache_hit'" } else { "outcome <> 'cache_hit'" }),
        ];
        let all = parts.iter().map(|(sql, _)| &**sql).chain(fixed.into_iter().flatten());
        // One condition of two values has the first of them without words.
        let all = all.filter(|sql| !sql.is_empty());
        let conditions = all.fold("1".to_owned(), |all, sql| format!("{all} AND {sql}"));
        (conditions, parts.into_iter().map(|(_, value)| value).collect())
    }
}

impl Filter {
    fn bounds(&self) -> impl Iterator<Item = (String, Value)> {
        let micros = |ms: f64| ms * 1000.0;
        let pair = |(from, to): Bounds<f64>| [(">=", from), ("<=", to)];
        let whole = |(from, to): Bounds<u32>| (from.map(f64::from), to.map(f64::from));
        let (from, to) = self.duration_ms;
        let all = [
            (USD, self.usd),
            ("duration_us", (from.map(micros), to.map(micros))),
            ("input_tokens", whole(self.tokens_in)),
            ("output_tokens", whole(self.tokens_out)),
        ];
        all.into_iter().flat_map(move |(what, bounds)| {
            let kept = pair(bounds).into_iter().filter_map(|(sign, value)| Some((sign, value?)));
            kept.map(move |(sign, value)| (format!("{what} {sign} ?"), Value::Real(value))).collect::<Vec<_>>()
        })
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({})", self.path)
    }
}
