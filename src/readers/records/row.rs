//! A receipt as a row.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::batches;
use crate::neurons::Neurons;
use crate::payload::Payload;
use crate::receipt::{Facts, Source};

/// What is kept of a receipt. Made on the request's path: it shares what can be shared.
pub(super) struct Row(Box<Facts>);

/// What a row of the sums is for: the quarter of an hour, the model, the key, the account, the outcome.
type Place = (i64, Arc<str>, Arc<str>, Arc<str>, &'static str);

/// One row of the sums.
#[derive(Default)]
struct Sum {
    calls: i64,
    input_tokens: i64,
    cached_input_tokens: i64,
    output_tokens: i64,
    neurons: i64,
    saved: i64,
    ran: i64,
}

/// Every time zone is a whole number of these away from UTC.
pub(super) const QUARTER_MS: i64 = 15 * 60 * 1000;
pub(super) const DAY_MS: i64 = 96 * QUARTER_MS;

const INSERT: &str = "INSERT OR IGNORE INTO records VALUES \
    (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29,?30,\
    NULL,NULL,NULL,?31,?32,?33,?34)";

const KEEP: &str = "INSERT OR IGNORE INTO payloads VALUES (?1,?2,?3,?4,?5,?6,?7)";

const ADD: &str = "INSERT INTO quarters VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12) \
    ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, input_tokens = input_tokens + excluded.input_tokens, \
    cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens, \
    output_tokens = output_tokens + excluded.output_tokens, neurons = neurons + excluded.neurons, \
    saved = saved + excluded.saved, ran = ran + excluded.ran";

impl Row {
    pub(super) fn of(facts: &Facts) -> Self {
        Self(Box::new(facts.clone()))
    }

    /// What its bodies weigh, in bytes.
    pub(super) fn payload_bytes(&self) -> usize {
        self.0.payload.as_ref().map_or(0, |payload| payload.kept_bytes())
    }

    pub(super) fn drop_payload(&mut self) {
        self.0.payload = None;
    }

    fn received_ms(&self) -> i64 {
        let since = self.0.received_at.duration_since(std::time::SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as i64)
    }

    fn insert(&self, connection: &Connection) -> rusqlite::Result<usize> {
        let facts = &self.0;
        let metadata = (!facts.metadata.is_empty()).then(|| {
            let entries =
                facts.metadata.iter().filter_map(|(key, v)| Some((key.clone(), serde_json::to_value(v).ok()?)));
            serde_json::Value::Object(entries.collect()).to_string()
        });
        let micros = |time: std::time::Duration| time.as_micros() as i64;
        connection.prepare_cached(INSERT)?.execute(params![
            id_bytes(facts),
            self.received_ms(),
            facts.key.as_deref(),
            &*facts.account,
            facts.asked_name(),
            &*facts.model.id,
            facts.endpoint.map(|endpoint| endpoint.label()),
            facts.stream,
            facts.status.map(|status| status.as_u16()),
            facts.outcome.label(),
            facts.refused,
            facts.usage.input_tokens as i64,
            facts.usage.cached_input_tokens as i64,
            facts.usage.output_tokens as i64,
            whole(facts.cost.neurons),
            facts.cost.source.label(),
            facts.cost.custom_usd,
            facts.cache.label(),
            whole(facts.saved),
            facts.attempts.len() as i64,
            facts.attempts.last().and_then(|attempt| attempt.code),
            facts.step,
            micros(facts.waited),
            micros(facts.upstream),
            facts.first_byte.map(micros),
            micros(facts.duration),
            facts.reply_bytes as i64,
            metadata,
            facts.event_id.as_deref(),
            facts.vendor_id.as_deref(),
            facts.max_tokens,
            facts.digest.map(u64::cast_signed),
            facts.beginning.map(u64::cast_signed),
            facts.estimate.and_then(|estimate| estimate.upper).map(whole),
        ])
    }
}

/// Big-endian, so that their order is that of time.
fn id_bytes(facts: &Facts) -> [u8; 16] {
    facts.id.to_bytes()
}

fn whole(neurons: Neurons) -> i64 {
    i64::try_from(neurons.micro()).unwrap_or(i64::MAX)
}

/// Writes records and their sums in one transaction. A record that is there already is not counted twice; a call whose caller
/// wants no record is in the sums all the same, for it is on the bill.
pub(super) fn insert(connection: &mut Connection, rows: &[Row]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut sums: HashMap<Place, Sum> = HashMap::new();
    let nobody: Arc<str> = Arc::from("");
    for row in rows {
        if row.0.collect.log != Some(false) && row.insert(&transaction)? == 0 {
            continue;
        }
        if let Some(payload) = &row.0.payload {
            let Payload { request, response } = &**payload;
            transaction.prepare_cached(KEEP)?.execute(params![
                id_bytes(&row.0),
                request.content_type,
                &request.bytes[..],
                request.length as i64,
                response.content_type,
                &response.bytes[..],
                response.length as i64,
            ])?;
        }
        if let Some(note) = &row.0.batch {
            batches::write(&transaction, &row.0.account, note, row.received_ms())?;
        }
        let (facts, received) = (&row.0, row.received_ms());
        let key = facts.key.clone().unwrap_or_else(|| nobody.clone());
        let quarter = received - received % QUARTER_MS;
        let place = (quarter, facts.model.id.clone(), key, facts.account.clone(), facts.outcome.label());
        let sum = sums.entry(place).or_default();
        sum.calls += 1;
        sum.input_tokens += facts.usage.input_tokens as i64;
        sum.cached_input_tokens += facts.usage.cached_input_tokens as i64;
        sum.output_tokens += facts.usage.output_tokens as i64;
        sum.neurons = sum.neurons.saturating_add(whole(facts.cost.neurons));
        sum.saved = sum.saved.saturating_add(whole(facts.saved));
        sum.ran += i64::from(facts.cost.source != Source::None);
    }
    for ((quarter, model, key, account, outcome), sum) in &sums {
        let Sum { calls, input_tokens, cached_input_tokens, output_tokens, neurons, saved, ran } = sum;
        transaction.prepare_cached(ADD)?.execute(params![
            quarter,
            &**model,
            &**key,
            &**account,
            outcome,
            calls,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            neurons,
            saved,
            ran,
        ])?;
    }
    transaction.commit()
}
