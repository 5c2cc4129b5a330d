//! What is learned of prices, told from gate to gate: one that has not seen the vendor charge more than the table would reserve too
//! little for its first calls.

use std::collections::HashMap;
use std::sync::Arc;

use super::Fact;
use crate::catalogue::{Catalogue, Prices};

/// What the vendor charges over the table, by model, as it was told or heard last; 1 of those that are not named.
#[derive(Debug, Default)]
pub(super) struct KnownPrices(HashMap<Arc<str>, f64>);

/// A change that is smaller than this part is no news: each gate's own figures differ by as much.
const NEWS: f64 = 0.01;

impl KnownPrices {
    /// What has been learned here that the others were not told.
    pub(super) fn news(&mut self, catalogue: &Catalogue) -> Vec<Fact> {
        let mut news = Vec::new();
        for model in catalogue.models() {
            let ratio = model.learned.ratio().unwrap_or(1.0);
            let known = self.0.get(&model.id).copied().unwrap_or(1.0);
            if (ratio / known - 1.0).abs() >= NEWS {
                self.0.insert(model.id.clone(), ratio);
                news.push(Fact::Price { model: model.id.to_string(), ratio, prices: Box::new(model.prices.clone()) });
            }
        }
        news
    }

    /// Takes what another gate has learned of the same prices. Of others it says nothing.
    pub(super) fn take(&mut self, catalogue: &Catalogue, model: &str, ratio: f64, prices: &Prices) {
        let Some(model) = catalogue.get(model).filter(|model| model.prices.same_figures(prices)) else { return };
        if model.learned.adopt(ratio) {
            self.0.insert(model.id.clone(), ratio);
        }
    }

    /// Who comes after the store lost its memory hears of all again.
    pub(super) fn tell_again(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";

    /// Hands over what one has learned, and says how many notices that took.
    fn tell(from: (&mut KnownPrices, &Catalogue), to: (&mut KnownPrices, &Catalogue)) -> usize {
        let news = from.0.news(from.1);
        for fact in &news {
            let Fact::Price { model, ratio, prices } = fact else { panic!("{fact:?}") };
            to.0.take(to.1, model, *ratio, prices);
        }
        news.len()
    }

    #[test]
    fn what_one_gate_has_learned_the_other_knows_and_does_not_tell_again() {
        let (a, b) = (Catalogue::default(), Catalogue::default());
        let (mut knows_a, mut knows_b) = (KnownPrices::default(), KnownPrices::default());
        let ratio = |catalogue: &Catalogue| catalogue.get(LLAMA).unwrap().learned.ratio();
        assert_eq!(tell((&mut knows_a, &a), (&mut knows_b, &b)), 0);
        for now in [1.2, 1.0, 1.5] {
            a.get(LLAMA).unwrap().learned.restore(now);
            assert_eq!(tell((&mut knows_a, &a), (&mut knows_b, &b)), 1);
            assert_eq!(ratio(&b), Some(now).filter(|now| *now != 1.0));
            assert_eq!(tell((&mut knows_b, &b), (&mut knows_a, &a)), 0);
        }
        a.get(LLAMA).unwrap().learned.restore(1.5 * 1.005);
        assert_eq!(tell((&mut knows_a, &a), (&mut knows_b, &b)), 0, "as much as figures differ");
        knows_a.tell_again();
        assert_eq!(tell((&mut knows_a, &a), (&mut knows_b, &b)), 1);
    }

    #[test]
    fn what_was_learned_of_other_prices_says_nothing() {
        let (a, b) = (Catalogue::default(), Catalogue::default());
        let listed =
            serde_json::from_str(&format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": 20077}}}}}}"#)).unwrap();
        b.update(&listed);
        a.get(LLAMA).unwrap().learned.restore(1.2);
        tell((&mut KnownPrices::default(), &a), (&mut KnownPrices::default(), &b));
        assert_eq!(b.get(LLAMA).unwrap().learned.ratio(), None);
    }
}
