//! Two books side by side: what the gate counted, what the vendor counted, and whether they agree.
//!
//! The vendor counts the whole account. What came by a Worker's binding never passed a gate; of what came over HTTP, what is more
//! than the gate counted went around it as well. A model **agrees** where the vendor charged what the gate reckoned: for the gate's
//! own calls, and for others' over HTTP where their tokens tell what they should have cost.
//!
//! # What it does not do
//! It knows no call. Calls that run while a span ends may stand in one of the books and not yet in the other.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Line, REST, Sums};
use crate::catalogue::{Catalogue, Unit};
use crate::neurons::Neurons;
use crate::usage::Usage;

/// One model in both books.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The model.
    pub model: String,
    /// What the gate counted.
    pub ours: Sums,
    /// What the vendor counted, less what went around the gate.
    pub theirs: Sums,
    /// What went around the gate.
    pub outside: Sums,
    /// By how much the gate's figure is off, as a share of the vendor's: 0.01 is 1% too much. 1 where the vendor has nothing.
    pub off: f64,
    /// That is within the tolerance.
    pub agrees: bool,
}

/// Both books, model by model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Models that either has, by name.
    pub rows: Vec<Row>,
    /// How much a model may be off, as a share.
    pub tolerance: f64,
    /// All models together, by the gate.
    pub ours: Sums,
    /// All models together, by the vendor, less what went around the gate.
    pub theirs: Sums,
    /// All models together, what went around the gate.
    pub outside: Sums,
}

/// Less than this is nobody's mistake but the last decimal's.
const NOTHING: Neurons = Neurons::from_micro(10_000);

// === impl Report ===

impl Report {
    /// Of what the gate counted, by model, and the vendor's lines for the same span. The catalogue tells what others' tokens
    /// should have cost.
    pub fn new(ours: &BTreeMap<String, Sums>, lines: &[Line], catalogue: &Catalogue, tolerance: f64) -> Self {
        let (mut rest, mut elsewhere) = (BTreeMap::<&str, Sums>::new(), BTreeMap::<&str, Sums>::new());
        for line in lines {
            let book = if line.source == REST { &mut rest } else { &mut elsewhere };
            *book.entry(&line.model).or_default() += line.sums;
        }
        let models: BTreeSet<&str> =
            ours.keys().map(String::as_str).chain(rest.keys().copied()).chain(elsewhere.keys().copied()).collect();
        let of = |book: &BTreeMap<&str, Sums>, model| book.get(model).copied().unwrap_or_default();
        let rows = models.into_iter().map(|model| {
            let ours = ours.get(model).copied().unwrap_or_default();
            compare(model, ours, of(&rest, model), of(&elsewhere, model), catalogue, tolerance)
        });
        let mut report = Self {
            rows: rows.filter(Row::is_any).collect(),
            tolerance,
            ours: Sums::default(),
            theirs: Sums::default(),
            outside: Sums::default(),
        };
        for row in &report.rows {
            report.ours += row.ours;
            report.theirs += row.theirs;
            report.outside += row.outside;
        }
        report
    }

    /// Every model does.
    pub fn agrees(&self) -> bool {
        self.rows.iter().all(|row| row.agrees)
    }

    /// What went around the gate, as a share of the account's neurons.
    pub fn outside_share(&self) -> f64 {
        let all = (self.theirs.neurons + self.outside.neurons).as_f64();
        if all > 0.0 { self.outside.neurons.as_f64() / all } else { 0.0 }
    }

    /// All of it in one line.
    pub fn verdict(&self) -> String {
        let percent = |share: f64| share * 100.0;
        let tolerance = percent(self.tolerance);
        let count = |of: usize| format!("{of} model{}", if of == 1 { "" } else { "s" });
        let outside = match self.outside_share() {
            none if none <= 0.0 => String::new(),
            share => format!("; {:.1}% of the account's neurons went around the gate", percent(share)),
        };
        let worst = self.rows.iter().max_by(|a, b| a.off.abs().total_cmp(&b.off.abs()));
        let off: Vec<_> = self.rows.iter().filter(|row| !row.agrees).collect();
        match (worst, off.as_slice()) {
            (None, _) => "nothing in either book".into(),
            (Some(worst), []) => format!(
                "agrees: {}, {} calls, {:.3} neurons here and {:.3} there, none off by more than {:.4}% (tolerance \
                 {tolerance}%){outside}",
                count(self.rows.len()),
                self.ours.calls,
                self.ours.neurons.as_f64(),
                self.theirs.neurons.as_f64(),
                percent(worst.off.abs()),
            ),
            (Some(worst), off) => format!(
                "DIFFERS: {} of {} by more than {tolerance}%, most of all {} by {:+.2}%{outside}",
                off.len(),
                count(self.rows.len()),
                worst.model,
                percent(worst.off),
            ),
        }
    }
}

impl Row {
    fn is_any(&self) -> bool {
        [self.ours, self.theirs, self.outside].iter().any(|sums| *sums != Sums::default())
    }
}

fn compare(model: &str, ours: Sums, rest: Sums, elsewhere: Sums, catalogue: &Catalogue, tolerance: f64) -> Row {
    let passed_by = if rest.calls > ours.calls { rest.beyond(&ours) } else { Sums::default() };
    // Where others' calls over HTTP can be priced, what they were charged is held against it; where they cannot, what is more
    // than ours is taken for theirs.
    let expected = match price(&passed_by, model, catalogue) {
        Some(price) => ours.neurons + price,
        None => ours.neurons + passed_by.neurons,
    };
    let (expected, counted) = (expected.micro() as f64, rest.neurons.micro() as f64);
    let is_nothing = (expected - counted).abs() < NOTHING.micro() as f64;
    let off = match counted {
        _ if is_nothing => 0.0,
        none if none <= 0.0 => 1.0,
        counted => (expected - counted) / counted,
    };
    let mut outside = elsewhere;
    outside += passed_by;
    Row { model: model.to_owned(), ours, theirs: rest.beyond(&passed_by), outside, off, agrees: off.abs() <= tolerance }
}

/// What a use should have cost, where tokens alone are priced.
fn price(sums: &Sums, model: &str, catalogue: &Catalogue) -> Option<Neurons> {
    let model = catalogue.get(model)?;
    let is_token = |unit: &Unit| matches!(unit, Unit::InputToken | Unit::CachedInputToken | Unit::OutputToken);
    let priced: Vec<_> = Unit::ALL.into_iter().filter(|unit| model.prices.get(*unit).is_some()).collect();
    if priced.is_empty() || !priced.iter().all(is_token) {
        return None;
    }
    let cost = model.prices.cost(&Usage::tokens(sums.input_tokens, 0, sums.output_tokens));
    Some(model.learned.likely(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";
    const FLUX: &str = "@cf/black-forest-labs/flux-1-schnell";

    fn tokens(calls: u64, input: u64, output: u64) -> Sums {
        Sums::new(calls, input, output, Neurons::from_micro(2457 * input + 18_252 * output))
    }

    fn line(model: &str, source: &str, sums: Sums) -> Line {
        Line { model: model.into(), source: source.into(), sums }
    }

    fn report(ours: &[(&str, Sums)], lines: &[Line]) -> Report {
        let ours = ours.iter().map(|(model, sums)| ((*model).to_owned(), *sums)).collect();
        Report::new(&ours, lines, &Catalogue::default(), 0.01)
    }

    #[test]
    fn equal_books_agree() {
        let ours = tokens(100, 30_000, 9_000);
        let report = report(&[(LLAMA, ours)], &[line(LLAMA, REST, ours)]);
        assert!(report.agrees(), "{report:?}");
        let verdict = report.verdict();
        assert!(verdict.starts_with("agrees: 1 model, 100 calls") && !verdict.contains("passed"), "{verdict}");
    }

    #[test]
    fn a_stale_price_is_found_also_behind_others_calls() {
        let ours = tokens(100, 30_000, 9_000);
        let dear = |sums: Sums| Sums { neurons: Neurons::from_micro(sums.neurons.micro() * 105 / 100), ..sums };
        for theirs in [dear(ours), dear(tokens(150, 50_000, 12_000))] {
            let report = report(&[(LLAMA, ours)], &[line(LLAMA, REST, theirs)]);
            assert!(!report.agrees() && (report.rows[0].off + 0.0476).abs() < 0.001, "{report:?}");
            assert!(report.verdict().starts_with("DIFFERS: 1 of 1 model by"), "{}", report.verdict());
        }
    }

    #[test]
    fn what_passed_the_gate_by_is_told_apart() {
        let ours = tokens(100, 30_000, 9_000);
        let pictures = |calls: u64| Sums::new(calls, 0, 0, Neurons::from_micro(172_800_000 * calls));
        let lines = [
            line(LLAMA, REST, tokens(130, 40_000, 12_000)),
            line(LLAMA, "workers binding", tokens(7, 1_000, 500)),
            line(FLUX, REST, pictures(5)),
            line("@cf/a/unknown", "workers binding", Sums::new(1, 0, 0, Neurons::from_whole(3))),
        ];
        let report = report(&[(LLAMA, ours), (FLUX, pictures(4))], &lines);
        assert!(report.agrees(), "{report:?}");
        let row = |model: &str| report.rows.iter().find(|row| row.model == model).unwrap();
        assert_eq!((row(LLAMA).theirs, row(LLAMA).outside), (ours, tokens(37, 11_000, 3_500)));
        assert_eq!((row(FLUX).theirs, row(FLUX).outside), (pictures(4), pictures(1)));
        assert!(report.verdict().contains("went around the gate"), "{}", report.verdict());
    }

    #[test]
    fn calls_that_the_vendor_does_not_have_are_a_difference() {
        let report = report(&[(LLAMA, tokens(100, 30_000, 9_000))], &[line(LLAMA, REST, tokens(90, 27_000, 8_100))]);
        assert!(!report.agrees() && (report.rows[0].off - 0.111).abs() < 0.001, "{report:?}");
        assert_eq!(report.outside, Sums::default());
        let lost = self::report(&[(LLAMA, tokens(100, 30_000, 9_000))], &[]);
        assert!(lost.verdict().contains("by +100.00%"), "{}", lost.verdict());
    }
}
