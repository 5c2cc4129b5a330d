//! `tollgate replicas`

use std::fmt::Write;

use clap::Args;
use serde_json::json;

use super::settings::{Settings, variables};
use super::{Failure, block_on, print};
use crate::neurons::Neurons;
use crate::replicas::Present;

#[derive(Args, Debug)]
pub(super) struct Replicas {
    #[command(flatten)]
    settings: Settings,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Buckets and limits that are printed for people to read.
const MOST_LINES: usize = 50;

impl Replicas {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&variables())?;
        let link = config.replicas.link().map_err(|error| Failure::Usage(error.to_string()))?;
        let none = "this gate shares with no other: set [replicas] store, such as \"redis://host:6379\"";
        let link = link.ok_or_else(|| Failure::Usage(none.into()))?;
        let present = block_on(async { link.present().await })?;
        let present =
            present.map_err(|why| Failure::Failed(format!("the store of [replicas] cannot be asked: {why}")))?;
        print(&if self.json { as_json(&present) } else { as_text(&present) })
    }
}

fn as_json(present: &Present) -> String {
    let gates = present.gates.iter();
    let gates: Vec<_> =
        gates.map(|(name, ago)| json!({"name": name, "heard_ago_ms": ago.as_millis() as u64, "config": config_of(present, name)})).collect();
    let limit = |(name, parts): &(String, Vec<crate::replicas::Held>)| {
        let parts = parts.iter().map(|it| json!({"gate": it.gate, "held": it.held, "waiting": it.waiting}));
        json!({"limit": name, "gates": parts.collect::<Vec<_>>()})
    };
    let budget = |(name, parts): &(String, Vec<crate::replicas::Registered>)| {
        let part = |it: &crate::replicas::Registered| json!({"gate": it.gate, "spent_neurons": it.spent.as_f64(), "upto_neurons": it.upto.as_f64()});
        json!({"budget": name, "gates": parts.iter().map(part).collect::<Vec<_>>()})
    };
    let all = json!({
        "gates": gates,
        "limits": present.limits.iter().map(limit).collect::<Vec<_>>(),
        "budgets": present.budgets.iter().map(budget).collect::<Vec<_>>(),
        "is_partial": present.is_partial,
    });
    format!("{all:#}\n")
}

fn as_text(present: &Present) -> String {
    let mut text = String::new();
    if present.gates.is_empty() {
        text += "no gate has been heard of for five minutes\n";
    }
    for (name, ago) in &present.gates {
        let config = config_of(present, name).map_or_else(String::new, |config| format!(", config {}", shown(config)));
        let _ = writeln!(text, "{}  heard {:.1} s ago{config}", shown(name), ago.as_secs_f64());
    }
    let configs: std::collections::BTreeSet<_> =
        present.gates.iter().filter_map(|(name, _)| config_of(present, name)).collect();
    if configs.len() > 1 {
        text += "the gates have different configs in force: reload those that lack the last change\n";
    }
    for (name, parts) in present.limits.iter().take(MOST_LINES) {
        let all: u64 = parts.iter().map(|it| it.held).sum();
        let _ = write!(text, "limit {}: {all} in its window", shown(name));
        for it in parts {
            let waiting = if it.waiting > 0 { format!(" ({} wait)", it.waiting) } else { String::new() };
            let _ = write!(text, ", {} {}{waiting}", shown(&it.gate), it.held);
        }
        text += "\n";
    }
    for (name, parts) in present.budgets.iter().take(MOST_LINES) {
        let sum = |part: fn(&crate::replicas::Registered) -> Neurons| parts.iter().map(part).sum::<Neurons>();
        let (spent, upto) = (sum(|it| it.spent), sum(|it| it.upto));
        let _ = write!(text, "budget {}: {spent} spent, {upto} with what gates may spend", shown(name));
        for it in parts {
            let _ = write!(text, ", {} {} of {}", shown(&it.gate), it.spent, it.upto);
        }
        text += "\n";
    }
    let left_out = present.limits.len().saturating_sub(MOST_LINES) + present.budgets.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        let _ = writeln!(text, "and {left_out} more: --json lists them");
    }
    if present.is_partial {
        text +=
            "there may be more limits and budgets: a thousand are looked at, and an ACL user needs +scan for them\n";
    }
    text
}

fn config_of<'a>(present: &'a Present, gate: &str) -> Option<&'a str> {
    present.configs.iter().find(|(name, _)| name == gate).map(|(_, config)| &**config)
}

/// A name that others chose, without what a terminal would obey.
fn shown(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
