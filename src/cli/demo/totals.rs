//! What the demo's calls came to, by model: read off the receipts, as any reader would.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::neurons::Neurons;
use crate::receipt::{Facts, Outcome, Reader};

/// Sums of sealed receipts. Holds one row for each model of the catalogue at most, and one for all others.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<BTreeMap<Arc<str>, Row>>);

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    calls: u64,
    failed: u64,
    tokens: u64,
    neurons: Neurons,
    saved: Neurons,
}

impl Reader for Totals {
    fn sealed(&self, receipt: &Facts) {
        let mut rows = self.0.lock();
        let label = receipt.model.label();
        let row = match rows.get_mut(label) {
            Some(row) => row,
            None => rows.entry(label.into()).or_default(),
        };
        row.add(receipt);
    }
}

impl Row {
    fn add(&mut self, receipt: &Facts) {
        self.calls += 1;
        self.failed += u64::from(!matches!(receipt.outcome, Outcome::Ok | Outcome::CacheHit));
        self.tokens += receipt.usage.input_tokens + receipt.usage.output_tokens;
        self.neurons += receipt.cost.neurons;
        self.saved += receipt.saved;
    }

    fn join(self, other: &Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            failed: self.failed + other.failed,
            tokens: self.tokens + other.tokens,
            neurons: self.neurons + other.neurons,
            saved: self.saved + other.saved,
        }
    }
}

impl Totals {
    /// One line: how far the demo is.
    pub(super) fn progress(&self) -> String {
        let all = self.all();
        format!(
            "{} calls, {} failed, {} tokens, {:.1} neurons, ${:.6}",
            all.calls,
            all.failed,
            all.tokens,
            all.neurons.as_f64(),
            all.neurons.usd()
        )
    }

    /// The table that closes the demo, dearest model first.
    pub(super) fn table(&self) -> String {
        let mut rows: Vec<_> = self.0.lock().iter().map(|(model, row)| (model.clone(), *row)).collect();
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.neurons));
        rows.push(("total".into(), self.all()));
        let mut table = line("model", "calls", "failed", "tokens", "neurons", "USD", "saved");
        for (model, row) in rows {
            table += &line(
                &model,
                &row.calls.to_string(),
                &row.failed.to_string(),
                &row.tokens.to_string(),
                &format!("{:.3}", row.neurons.as_f64()),
                &format!("{:.6}", row.neurons.usd()),
                &format!("{:.3}", row.saved.as_f64()),
            );
        }
        table
    }

    fn all(&self) -> Row {
        self.0.lock().values().fold(Row::default(), Row::join)
    }
}

fn line(model: &str, calls: &str, failed: &str, tokens: &str, neurons: &str, usd: &str, saved: &str) -> String {
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(line, "{model:<48} {calls:>7} {failed:>7} {tokens:>9} {neurons:>12} {usd:>11} {saved:>11}");
    line
}
