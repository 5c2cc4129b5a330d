//! `tollgate models --diff`

use std::collections::BTreeMap;

use serde_json::json;

use super::{Failure, block_on, print};
use crate::catalogue::{Catalogue, Change, Entry, Unit};
use crate::sidecar::books::{Learned, books};
use crate::sidecar::config::{Config, Variables};

/// The vendor's list beside the built-in table.
pub(super) struct Diff {
    live: BTreeMap<String, Entry>,
    /// Where the list is from.
    source: String,
}

/// One price in both.
struct Row {
    model: String,
    unit: Unit,
    built_in: Option<f64>,
    live: Option<f64>,
}

impl Diff {
    /// Asks the vendor, or takes what was kept.
    pub(super) fn read(config: &Config, variables: &Variables, kept: Learned) -> Result<Self, Failure> {
        let asked = match books(config, variables, "models --diff") {
            Ok(books) => block_on(books.models())?.map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        match (asked, kept.read_at.filter(|_| !kept.models.is_empty())) {
            (Ok(live), _) => Ok(Self { live, source: "as the vendor lists them now".into() }),
            (Err(why), Some(at)) => {
                let at = at.strftime("%Y-%m-%d %H:%M UTC");
                Ok(Self { live: kept.models, source: format!("as they were listed at {at}; now {why}") })
            }
            (Err(why), None) => {
                Err(Failure::Failed(format!("the vendor's list cannot be read, and none is kept: {why}")))
            }
        }
    }

    /// Prices of models whose name holds `part`.
    pub(super) fn print(&self, part: &str, json: bool) -> Result<(), Failure> {
        let built_in = Catalogue::default();
        let rows: Vec<_> = self.rows(&built_in).into_iter().filter(|row| row.model.contains(part)).collect();
        let changes = built_in.update(&self.live);
        let changes: Vec<_> = changes.into_iter().filter(|change| change.model().contains(part)).collect();
        if json {
            let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
            let changes: Vec<_> = changes.iter().map(Change::to_string).collect();
            return print(&format!("{:#}\n", json!({"source": self.source, "prices": rows, "changes": changes})));
        }
        print(&table(&rows, &changes, &self.source))
    }

    fn rows(&self, built_in: &Catalogue) -> Vec<Row> {
        let mut names: Vec<_> = built_in.models().iter().map(|model| model.id.to_string()).collect();
        names.extend(self.live.keys().filter(|id| built_in.get(id).is_none()).cloned());
        names.sort();
        let mut rows = Vec::new();
        for model in names {
            let (ours, theirs) = (built_in.get(&model), self.live.get(&model).and_then(|entry| entry.prices.clone()));
            for unit in Unit::ALL {
                let built_in = ours.as_ref().and_then(|model| model.prices.published(unit));
                let live = theirs.as_ref().and_then(|prices| prices.published(unit));
                if built_in.is_some() || live.is_some() {
                    rows.push(Row { model: model.clone(), unit, built_in, live });
                }
            }
        }
        rows
    }
}

impl Row {
    fn off(&self) -> Option<f64> {
        self.built_in
            .zip(self.live)
            .filter(|(built_in, _)| *built_in > 0.0)
            .map(|(built_in, live)| live / built_in - 1.0)
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "model": self.model, "unit": self.unit.key(), "built_in": self.built_in, "live": self.live, "off": self.off(),
        })
    }
}

fn table(rows: &[Row], changes: &[Change], source: &str) -> String {
    let width = rows.iter().map(|row| row.model.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>12}  {:>12}  {:>8}  neurons\n", "model", "built in", "live", "off");
    for row in rows {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "-".into(), |figure| figure.to_string());
        let off = row.off().map_or_else(String::new, |off| format!("{:+.1}%", off * 100.0));
        let (model, built_in, live) = (&row.model, figure(row.built_in), figure(row.live));
        text += &format!("{model:width$}  {built_in:>12}  {live:>12}  {off:>8}  {}\n", row.unit.words());
    }
    text += &format!("\n{source}; what is more than rounding:\n");
    if changes.is_empty() {
        text += "  nothing\n";
    }
    changes.iter().for_each(|change| text += &format!("  {change}\n"));
    text
}
