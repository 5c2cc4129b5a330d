//! `tollgate usage`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::settings::{Settings, variables};
use super::{Failure, print};
use crate::neurons::Neurons;
use crate::readers::records::{Archive, Group, Usage as Line};
use crate::sidecar::config::Config;

#[derive(Args, Debug)]
pub(super) struct Usage {
    #[command(flatten)]
    settings: Settings,
    /// What to sum up by
    #[arg(long, value_enum, default_value = "day")]
    by: By,
    /// How far back, in whole days from 00:00 UTC
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    since: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Day,
    Model,
    Key,
}

const DAY_MS: u64 = 86_400_000;

impl Usage {
    pub(super) fn run(self) -> Result<(), Failure> {
        let archive = open(&self.settings.load(&variables())?)?;
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let from = now.saturating_sub(self.since.as_millis() as u64);
        let (group, name) = match self.by {
            By::Day => (Group::Day, "day"),
            By::Model => (Group::Model, "model"),
            By::Key => (Group::Key, "key"),
        };
        let lines = archive.usage(from - from % DAY_MS, now + DAY_MS, group).map_err(failed)?;
        if self.json {
            let rows: Vec<_> = lines.iter().map(|line| to_json(name, line)).collect();
            return print(&format!("{:#}\n", serde_json::Value::from(rows)));
        }
        print(&table(name, &lines))
    }
}

/// The records that the config names, or those that `tollgate serve` keeps where it names none.
pub(super) fn open(config: &Config) -> Result<Archive, Failure> {
    let path = match &config.records.path {
        Some(path) if path.as_os_str().is_empty() => {
            return Err(Failure::Failed("no records are kept: set [records] path".into()));
        }
        Some(path) => path.clone(),
        None => PathBuf::from(super::serve::RECORDS),
    };
    if !path.exists() {
        return Err(Failure::Failed(format!(
            "no records yet: {} is not there; `tollgate serve` makes it",
            path.display()
        )));
    }
    Archive::open(&path).map_err(failed)
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn to_json(name: &str, line: &Line) -> serde_json::Value {
    json!({
        name: line.name,
        "calls": line.calls,
        "input_tokens": line.input_tokens,
        "cached_input_tokens": line.cached_input_tokens,
        "output_tokens": line.output_tokens,
        "neurons": line.neurons.as_f64(),
        "usd": line.neurons.usd(),
        "saved_neurons": line.saved.as_f64(),
    })
}

fn table(name: &str, lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.name.len()).chain([name.len(), 7]).max().unwrap_or(0);
    let head = ["calls", "tokens in", "cached", "tokens out", "neurons", "USD", "saved"];
    let row = |name: &str, cells: [String; 7]| {
        cells.iter().fold(format!("{name:width$}"), |row, cell| format!("{row}  {cell:>12}")) + "\n"
    };
    let mut text = row(name, head.map(str::to_owned));
    let cells = |line: &Line| {
        [
            line.calls.to_string(),
            line.input_tokens.to_string(),
            line.cached_input_tokens.to_string(),
            line.output_tokens.to_string(),
            format!("{:.2}", line.neurons.as_f64()),
            format!("{:.4}", line.neurons.usd()),
            format!("{:.2}", line.saved.as_f64()),
        ]
    };
    for line in lines {
        text += &row(if line.name.is_empty() { "-" } else { &line.name }, cells(line));
    }
    let calls: u64 = lines.iter().map(|line| line.calls).sum();
    let neurons: Neurons = lines.iter().map(|line| line.neurons).sum();
    text + &format!("{:width$}  {calls} calls, {neurons} neurons, ${:.4}\n", "in all", neurons.usd())
}
