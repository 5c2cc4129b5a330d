//! `tollgate models`

use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::diff::Diff;
use super::settings::{Settings, variables};
use super::{Failure, print};
use crate::catalogue::{Model, Unit};

#[derive(Args, Debug)]
pub(super) struct Models {
    #[command(flatten)]
    settings: Settings,
    /// Only models whose name holds this
    #[arg(value_name = "PART")]
    part: Option<String>,
    /// Built-in prices beside those that the vendor lists now; needs the account and the gate's own token. Where the vendor
    /// cannot be asked, the list that the sidecar has kept
    #[arg(long)]
    diff: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Models {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let config = self.settings.load(&variables)?;
        if self.diff {
            let kept = self.settings.learned(&config);
            return Diff::read(&config, &variables, kept)?.print(self.part.as_deref().unwrap_or_default(), self.json);
        }
        let catalogue = self.settings.catalogue(&config);
        let part = self.part.unwrap_or_default();
        let models: Vec<_> = catalogue.models().into_iter().filter(|model| model.id.contains(&part)).collect();
        if self.json {
            let rows: Vec<_> = models.iter().map(|model| to_json(model)).collect();
            print(&format!("{:#}\n", serde_json::Value::from(rows)))?;
        }
        if models.is_empty() {
            return Err(Failure::Failed(format!("no model's name holds {part:?}; `tollgate models` lists all")));
        }
        if self.json { Ok(()) } else { print(&table(&models)) }
    }
}

fn to_json(model: &Model) -> serde_json::Value {
    let image =
        model.image.map(|image| json!({"width": image.size.width, "height": image.size.height, "steps": image.steps}));
    json!({
        "id": &*model.id,
        "task": model.task,
        "requests": model.limit.requests,
        "per_seconds": model.limit.per.as_secs(),
        "prices": model.prices,
        "image": image,
        "context": model.context,
        "paid_plan_only": model.paid_plan_only,
        "deprecated": model.deprecated,
        "replacement": model.replacement,
        "fallback": model.fallback,
        "learned_price_ratio": model.learned.ratio(),
    })
}

fn table(models: &[std::sync::Arc<Model>]) -> String {
    let width = models.iter().map(|model| model.id.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:28}  {:>7}  neurons\n", "model", "task", "per min");
    for model in models {
        let minute = f64::from(model.limit.requests.get()) * 60.0 / model.limit.per.as_secs_f64();
        let task = serde_json::to_value(model.task).ok();
        let task = task.as_ref().and_then(|task| task.as_str()).unwrap_or_default();
        text.push_str(&format!("{:width$}  {task:28}  {minute:>7}  {}\n", model.id, remarks(model)));
    }
    text
}

/// Prices in words, and what else a caller should know.
fn remarks(model: &Model) -> String {
    let price = |unit| model.prices.published(unit).map(|figure| format!("{figure} {}", unit.words()));
    let mut parts: Vec<_> = Unit::ALL.into_iter().filter_map(price).collect();
    if parts.is_empty() {
        parts.push("no published price".into());
    }
    if model.paid_plan_only {
        parts.push("paid plan only".into());
    }
    if let Some(ratio) = model.learned.ratio() {
        parts.push(format!("LEARNED: the vendor charges {:+.1}%", (ratio - 1.0) * 100.0));
    }
    if let (Some(day), Some(days)) = (&model.deprecated, model.days_left(SystemTime::now())) {
        let instead = model.replacement.as_ref().map_or_else(String::new, |id| format!(": ask {id} instead"));
        let when =
            if days > 0 { format!("LEAVES in {days} days, on {day}") } else { format!("DEPRECATED since {day}") };
        parts.push(when + &instead);
    }
    parts.join(", ")
}
