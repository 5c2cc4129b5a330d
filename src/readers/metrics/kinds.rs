//! What neurons are spent on: tokens read, tokens read from the vendor's prefix cache, tokens written, and the rest.
//!
//! Without a model's label, for four series more for each of a hundred models would be too many.

use prometheus::{Counter, CounterVec, Opts, Registry};

use super::register::register;
use crate::catalogue::Prices;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// Neurons spent, by kind. There are always all four series, from zero on.
pub(super) struct Kinds([Counter; KINDS.len()]);

const KINDS: [&str; 4] = ["input", "cached_input", "output", "other"];

// === impl Kinds ===

impl Kinds {
    /// At zero. Fails where the registry has the name already.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help =
            "Neurons spent, by what for; other: pictures, audio, characters, and what has no price in the table.";
        let counters = CounterVec::new(Opts::new("tollgate_neurons_by_kind_total", help), &["kind"])?;
        let counters = register(registry, counters)?;
        Ok(Self(KINDS.map(|kind| counters.with_label_values(&[kind]))))
    }

    /// Adds a call's cost.
    pub(super) fn count(&self, prices: &Prices, usage: &Usage, spent: Neurons) {
        for (counter, part) in self.0.iter().zip(parts(prices, usage, spent)) {
            counter.inc_by(part);
        }
    }
}

/// What was spent, shared out in the table's proportions: the vendor's own figure is one sum.
fn parts(prices: &Prices, usage: &Usage, spent: Neurons) -> [f64; KINDS.len()] {
    let cached = usage.cached_input_tokens.min(usage.input_tokens);
    let priced = |input, cached, output| prices.cost(&Usage::tokens(input, cached, output)).as_f64();
    let tokens =
        [priced(usage.input_tokens - cached, 0, 0), priced(cached, cached, 0), priced(0, 0, usage.output_tokens)];
    let all = prices.cost(usage).as_f64();
    if all <= 0.0 {
        return [0.0, 0.0, 0.0, spent.as_f64()];
    }
    let [input, cached, output] = tokens.map(|part| part / all * spent.as_f64());
    [input, cached, output, (spent.as_f64() - input - cached - output).max(0.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Unit;

    /// 2, 1 and 4 neurons a token; a tile 7.
    fn prices() -> Prices {
        [(Unit::InputToken, 2), (Unit::CachedInputToken, 1), (Unit::OutputToken, 4), (Unit::Tile, 7)]
            .into_iter()
            .fold(Prices::default(), |prices, (unit, neurons)| prices.with(unit, Neurons::from_whole(neurons)))
    }

    #[test]
    fn what_was_spent_is_shared_out_as_the_table_has_it() {
        let mut usage = Usage::tokens(10, 4, 2);
        assert_eq!(parts(&prices(), &usage, Neurons::from_whole(24)), [12.0, 4.0, 8.0, 0.0]);
        assert_eq!(parts(&prices(), &usage, Neurons::from_whole(12)), [6.0, 2.0, 4.0, 0.0], "the vendor says half");
        usage.image = Some(crate::usage::ImageUsage { size: crate::usage::Size { width: 512, height: 512 }, steps: 1 });
        assert_eq!(parts(&prices(), &usage, Neurons::from_whole(31)), [12.0, 4.0, 8.0, 7.0]);
        assert_eq!(parts(&Prices::default(), &usage, Neurons::from_whole(5)), [0.0, 0.0, 0.0, 5.0], "no price");
    }
}
