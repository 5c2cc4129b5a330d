//! What a replay is told in.

use serde_json::{Value, json};

use super::comparison::{Comparison, Sums};
use crate::cli::usage::span::Span;
use crate::neurons::Neurons;

const OUTCOMES: [(&str, &str); 8] = [
    ("answered", "ok"),
    ("from the cache", "cache_hit"),
    ("refused by a limit", "rate_limited"),
    ("refused by a budget", "budget_exceeded"),
    ("timed out", "timeout"),
    ("failed upstream", "upstream_error"),
    ("wrong requests", "client_error"),
    ("clients that left", "aborted"),
];

/// `unchanged` is the replay of what was in force: how far it is from the records is how far the other one may be.
pub(super) fn table(span: &Span, unchanged: &Comparison, changed: Option<&Comparison>) -> String {
    let columns: Vec<&Sums> =
        [Some(&unchanged.recorded), Some(&unchanged.replayed), changed.map(|told| &told.replayed)]
            .into_iter()
            .flatten()
            .collect();
    let mut text = format!("{:22}{:>20}{:>20}", "", "on the records", "replayed");
    if changed.is_some() {
        text += &format!("{:>20}", "with the changes");
    }
    text.push('\n');
    let mut row = |name: &str, cells: Vec<String>| {
        text += &format!("{name:22}");
        cells.iter().for_each(|cell| text += &format!("{cell:>20}"));
        text.push('\n');
    };
    let cells = |cell: fn(&Sums) -> String| columns.iter().map(|sums| cell(sums)).collect::<Vec<_>>();
    row("calls", cells(|sums| sums.calls.to_string()));
    for (name, label) in OUTCOMES {
        if columns.iter().any(|sums| sums.outcome(label) > 0) {
            row(name, columns.iter().map(|sums| sums.outcome(label).to_string()).collect());
        }
    }
    row("neurons", cells(|sums| sums.neurons.to_string()));
    row("USD", cells(|sums| sums.neurons.usd_decimal()));
    row("saved by the cache", cells(|sums| sums.saved.to_string()));
    row("waited, all together", cells(|sums| seconds(sums.waited_us)));
    row("longest wait", cells(|sums| seconds(sums.longest_wait_us)));
    let mut models: Vec<_> = columns.iter().flat_map(|sums| sums.models.keys()).collect();
    models.sort_unstable();
    models.dedup();
    for model in models {
        let spent = |sums: &&Sums| sums.models.get(model).map_or(Neurons::ZERO, |(_, spent)| *spent).to_string();
        text += &format!("  {model}\n{:22}", "");
        columns.iter().for_each(|sums| text += &format!("{:>20}", spent(sums)));
        text.push('\n');
    }
    text.push('\n');
    if let Some(changed) = changed {
        text += &difference(&unchanged.replayed, &changed.replayed);
    }
    text += &format!(
        "the replay of what is in force ended {} of {} calls as they had ended\n",
        unchanged.same, unchanged.recorded.calls
    );
    for line in doubts(changed.unwrap_or(unchanged)) {
        text += &line;
        text.push('\n');
    }
    text + &format!("{}\n", span.words())
}

fn difference(was: &Sums, is: &Sums) -> String {
    let usd = |neurons: Neurons| neurons.usd_decimal();
    match is.neurons.cmp(&was.neurons) {
        std::cmp::Ordering::Equal => "the changes save nothing, and cost nothing\n".into(),
        std::cmp::Ordering::Less => {
            let saved = was.neurons.saturating_sub(is.neurons);
            format!("the changes save {saved} neurons, ${}\n", usd(saved))
        }
        std::cmp::Ordering::Greater => {
            let more = is.neurons.saturating_sub(was.neurons);
            format!("the changes cost {more} neurons more, ${}\n", usd(more))
        }
    }
}

/// What is not known of a replay.
fn doubts(told: &Comparison) -> Vec<String> {
    let mut doubts = Vec::new();
    for (budget, calls) in &told.refused_by {
        doubts.push(format!("the budget {budget:?} refuses {calls} calls"));
    }
    if told.assumed.0 > 0 {
        let (calls, neurons) = told.assumed;
        doubts.push(format!(
            "{calls} calls that were refused then are answered: they are taken to use what their models' answers usually do, \
             {neurons} neurons together"
        ));
    }
    if told.unpriced > 0 {
        doubts.push(format!(
            "{} calls keep their cost: their records do not tell by what another price or model would charge them",
            told.unpriced
        ));
    }
    if told.unbounded > 0 {
        doubts.push(format!(
            "{} calls are on record without the bound that budgets reserve: it is reckoned from their tokens",
            told.unbounded
        ));
    }
    doubts
}

fn seconds(micros: u64) -> String {
    format!("{}.{:03} s", micros / 1_000_000, micros % 1_000_000 / 1000)
}

pub(super) fn json(span: &Span, unchanged: &Comparison, changed: Option<&Comparison>) -> String {
    let sums = |sums: &Sums| {
        let models = sums.models.iter().map(|(model, (calls, neurons))| {
            (model.clone(), json!({"calls": calls, "neurons": neurons.as_f64(), "usd": neurons.usd()}))
        });
        json!({
            "calls": sums.calls, "outcomes": sums.outcomes,
            "neurons": sums.neurons.as_f64(), "usd": sums.neurons.usd(), "saved_neurons": sums.saved.as_f64(),
            "waited_seconds": sums.waited_us as f64 / 1e6, "longest_wait_seconds": sums.longest_wait_us as f64 / 1e6,
            "models": models.collect::<serde_json::Map<_, _>>(),
        })
    };
    let replay = |told: &Comparison| {
        let (calls, neurons) = told.assumed;
        let mut replay = sums(&told.replayed);
        replay["ended_the_same"] = json!(told.same);
        replay["refused_by"] = json!(told.refused_by);
        replay["assumed"] = json!({"calls": calls, "neurons": neurons.as_f64()});
        replay["kept_their_cost"] = json!(told.unpriced);
        replay["without_bound"] = json!(told.unbounded);
        replay
    };
    let told = json!({
        "from_ms": span.from_ms, "until_ms": span.until_ms,
        "recorded": sums(&unchanged.recorded),
        "replayed": replay(unchanged),
        "changed": changed.map_or(Value::Null, replay),
    });
    format!("{told:#}\n")
}
