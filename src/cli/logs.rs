//! `tollgate logs`

use clap::Args;

use super::settings::{Settings, variables};
use super::usage::{failed, open};
use super::{Failure, print};
use crate::readers::records::{Filter, Record};

#[derive(Args, Debug)]
pub(super) struct Logs {
    #[command(flatten)]
    settings: Settings,
    /// How many, newest first
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: usize,
    /// Only of this model
    #[arg(long)]
    model: Option<String>,
    /// Only with this key, by its name
    #[arg(long)]
    key: Option<String>,
    /// Only with this outcome: ok, cache_hit, rate_limited, budget_exceeded, client_error, upstream_error, timeout, aborted
    #[arg(long)]
    outcome: Option<String>,
    /// Only with this status
    #[arg(long)]
    status: Option<u16>,
    /// As JSON, a line each
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let archive = open(&self.settings.load(&variables())?)?;
        let Self { limit, model, key, outcome, status, json, .. } = self;
        let filter = Filter { model, key, outcome, status, ..Filter::default() };
        let records = archive.list(&filter, limit).map_err(failed)?;
        let line = |record: &Record| {
            if json { serde_json::to_string(record).map_err(failed) } else { Ok(in_words(record)) }
        };
        let lines = records.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }
}

fn in_words(record: &Record) -> String {
    let time =
        jiff::Timestamp::from_millisecond(record.received_ms).map_or_else(|_| String::new(), |at| at.to_string());
    let status = record.status.map_or_else(|| "-".into(), |status| status.to_string());
    format!(
        "{time:24}  {}  {status:>3} {:15}  {:>10.3} neurons  {:>7.0} ms  {}  {}",
        record.id,
        record.outcome,
        record.neurons,
        record.duration_ms,
        record.key.as_deref().unwrap_or("-"),
        record.model
    )
}
