//! `tollgate logs`

use std::time::{Duration, SystemTime};

use clap::Args;

use super::settings::{Settings, variables};
use super::usage::{Files, failed};
use super::{Failure, print};
use crate::readers::records::{Filter, Record};
use crate::receipt::{CallId, Outcome};

#[derive(Args, Debug)]
pub(super) struct Logs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    files: Files,
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
    /// Only this call, by the cf-aig-log-id of its reply
    #[arg(long)]
    id: Option<String>,
    /// Only with this cf-aig-event-id
    #[arg(long)]
    event_id: Option<String>,
    /// Only with this name of the vendor's: cf-ai-req-id or cf-ray
    #[arg(long)]
    vendor_id: Option<String>,
    /// Only since then: a time ago such as 2h or 30m, or a moment such as 2026-11-24T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// As JSON, a line each
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let archive = self.files.open(&self.settings.load(&variables())?)?;
        let Self { limit, model, key, outcome, status, id, event_id, vendor_id, since, json, .. } = self;
        let outcomes = Outcome::ALL.map(Outcome::label);
        if outcome.as_deref().is_some_and(|outcome| !outcomes.contains(&outcome)) {
            return Err(Failure::Usage(format!("--outcome is one of {}", outcomes.join(", "))));
        }
        let records = match id {
            Some(id) => {
                let known = CallId::parse(&id).ok_or_else(|| {
                    Failure::Usage(format!("--id {id:?} is no call's id: those have 32 hexadecimal digits"))
                })?;
                let found = archive.get(known).map_err(failed)?;
                vec![found.ok_or_else(|| Failure::Failed(format!("there is no record of the call {id}")))?]
            }
            None => {
                let since_ms = since
                    .map(|at| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64));
                let filter = Filter { model, key, outcome, status, event_id, vendor_id, since_ms, ..Filter::default() };
                archive.list(&filter, limit).map_err(failed)?
            }
        };
        let line = |record: &Record| {
            if json { serde_json::to_string(record).map_err(failed) } else { Ok(in_words(record)) }
        };
        let lines = records.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }
}

/// A time ago, or a moment.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(|| format!("{text} ago is before all clocks"));
    }
    let wrong = |_| "write it like 2h, or 2026-11-24T08:00:00Z".to_owned();
    let millis = text.parse::<jiff::Timestamp>().map_err(wrong)?.as_millisecond();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
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
