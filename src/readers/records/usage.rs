//! Reading the sums: what was used, by day, month, model, key or account, and what ran for the vendor's books.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::{Row, params};
use serde::Serialize;

use super::error::RecordsError;
use super::query::Archive;
use crate::books::Sums;
use crate::neurons::Neurons;

/// What usage is summed up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Group {
    /// Days of the time zone: `2026-11-24`.
    #[default]
    Day,
    /// Calendar months of the time zone: `2026-11`.
    Month,
    /// Models.
    Model,
    /// Clients' keys.
    Key,
    /// Accounts.
    Account,
}

/// A line of usage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// What the line is of, in the order of the groups that were asked for; a key's name is empty for calls without one.
    pub names: Vec<String>,
    /// Calls, refused ones too.
    pub calls: u64,
    /// Those of them that a limit or a budget refused, the gate's or the vendor's.
    pub refused: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// The part of them that the vendor had in its prefix cache.
    pub cached_input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Spent, in micro-neurons.
    pub neurons: Neurons,
    /// Not spent thanks to the cache, in micro-neurons.
    pub saved: Neurons,
}

const SUMS: &str = "sum(calls), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(neurons), sum(saved), \
    sum(calls) FILTER (WHERE outcome IN ('rate_limited', 'budget_exceeded'))";

// === impl Archive ===

impl Archive {
    /// What was used from one moment to another, in milliseconds since 1970; sums are kept by quarters of an hour, so both
    /// are taken for the beginning of theirs. Days and months are those of `zone`. One group of names alone comes with the
    /// dearest first, anything else in the order of its names.
    pub fn usage(
        &self,
        from_ms: u64,
        until_ms: u64,
        by: &[Group],
        zone: &TimeZone,
    ) -> Result<Vec<Usage>, RecordsError> {
        let columns: Vec<_> = by.iter().map(|group| group.column()).collect();
        let columns = columns.join(", ");
        let sql =
            format!("SELECT {SUMS}, {columns} FROM quarters WHERE start_ms >= ?1 AND start_ms < ?2 GROUP BY {columns}");
        let read = |row: &Row<'_>| {
            let names = by.iter().enumerate().map(|(place, group)| group.name(row, SUM_COUNT + place, zone));
            usage(row, names.collect::<Result<_, _>>()?)
        };
        let span = params![from_ms as i64, until_ms as i64];
        let lines: rusqlite::Result<Vec<Usage>> =
            self.connection.prepare(&sql).and_then(|mut statement| statement.query_map(span, read)?.collect());
        let mut summed: BTreeMap<Vec<String>, Usage> = BTreeMap::new();
        for line in self.told(lines)? {
            summed
                .entry(line.names.clone())
                .or_insert_with(|| Usage { names: line.names.clone(), ..Usage::default() })
                .add(&line);
        }
        let mut lines: Vec<_> = summed.into_values().collect();
        if let [group] = by
            && !group.is_of_time()
        {
            lines.sort_by_key(|line| std::cmp::Reverse(line.neurons));
        }
        Ok(lines)
    }

    /// What ran for an account from one moment to another, in milliseconds since 1970, by model: what the vendor should have
    /// counted too.
    pub fn ran(&self, from_ms: u64, until_ms: u64, account: &str) -> Result<BTreeMap<String, Sums>, RecordsError> {
        let sql = "SELECT model, sum(ran), sum(input_tokens), sum(output_tokens), sum(neurons) FROM quarters \
            WHERE start_ms >= ?1 AND start_ms < ?2 AND account = ?3 AND outcome <> 'cache_hit' GROUP BY 1";
        let sums = |row: &Row<'_>| {
            let figure = |n| row.get::<_, i64>(n).map(|figure| figure as u64);
            let sums = Sums::new(figure(1)?, figure(2)?, figure(3)?, Neurons::from_micro(figure(4)?));
            Ok((row.get(0)?, sums))
        };
        let span = params![from_ms as i64, until_ms as i64, account];
        self.told(self.connection.prepare(sql).and_then(|mut statement| statement.query_map(span, sums)?.collect()))
    }
}

/// How many columns [`SUMS`] has.
const SUM_COUNT: usize = 7;

fn usage(row: &Row<'_>, names: Vec<String>) -> rusqlite::Result<Usage> {
    let figure = |n| row.get::<_, i64>(n).map(|figure| figure as u64);
    Ok(Usage {
        names,
        calls: figure(0)?,
        refused: row.get::<_, Option<i64>>(6)?.unwrap_or(0) as u64,
        input_tokens: figure(1)?,
        cached_input_tokens: figure(2)?,
        output_tokens: figure(3)?,
        neurons: Neurons::from_micro(figure(4)?),
        saved: Neurons::from_micro(figure(5)?),
    })
}

// === impl Group, Usage ===

impl Group {
    fn is_of_time(self) -> bool {
        matches!(self, Self::Day | Self::Month)
    }

    fn column(self) -> &'static str {
        match self {
            Self::Day | Self::Month => "start_ms",
            Self::Model => "model",
            Self::Key => "key",
            Self::Account => "account",
        }
    }

    fn name(self, row: &Row<'_>, place: usize, zone: &TimeZone) -> rusqlite::Result<String> {
        if !self.is_of_time() {
            return row.get(place);
        }
        let start = Timestamp::from_millisecond(row.get(place)?).unwrap_or_default();
        let format = if self == Self::Day { "%Y-%m-%d" } else { "%Y-%m" };
        Ok(zone.to_datetime(start).strftime(format).to_string())
    }
}

impl Usage {
    /// Adds the figures of another line; its own names stay.
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.refused += other.refused;
        self.input_tokens += other.input_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.output_tokens += other.output_tokens;
        self.neurons += other.neurons;
        self.saved += other.saved;
    }
}
