//! What the vendor reports over what the table's prices come to: 1 where the table is right.
//!
//! A table goes stale, and the vendor's own figure on a reply is the truth. Where the latest [`CALLS`] figures of a model agree
//! with each other but not with the table, their ratio is learned: estimates, reservations and costs that the vendor does not
//! report use it from then on. It is forgotten when the price is set anew, and when as many figures agree with the table again.
//!
//! # What it does not do
//! It learns one ratio for the whole of a model's bill. Where only one of its units has another price, calls disagree with each
//! other, and nothing is learned; what is reserved then covers the dearest figure of the latest calls that another one comes up to, so that
//! no single figure makes calls seem dear.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::neurons::Neurons;

/// Learned, for one model, from every reply that tells its cost. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Learned(Arc<LearnedPrice>);

#[derive(Debug, Default)]
struct LearnedPrice {
    recent: Mutex<VecDeque<RatioInterval>>,
    likely: Ratio,
    upper: Ratio,
}

/// A ratio in millionths, read without a lock.
#[derive(Debug)]
struct Ratio(AtomicU64);

/// Between which ratios the truth lies, after one call: a figure has only so many decimals.
#[derive(Clone, Copy, Debug)]
struct RatioInterval {
    low: f64,
    high: f64,
}

/// The latest calls, held together.
#[derive(Clone, Copy, Debug)]
struct Together {
    calls: usize,
    /// Between these lies the ratio of all of them, if they have one.
    low: f64,
    high: f64,
    /// The dearest of them, and the dearest but one, which two of them come up to.
    dearest: f64,
    dearest_of_two: f64,
}

/// So many calls have to agree.
pub const CALLS: usize = 20;
/// Where they are small and told with few decimals, it takes more of them to know; no more than this.
const MOST: usize = 60;
/// To this part of their ratio, on either side: together a spread of 0.5%.
const SPREAD: f64 = 0.0025;
/// A ratio that is known less exactly than this is not known.
const PRECISION: f64 = 0.02;
/// The table's own rounding; nearer to it than this, the table is right.
const ROUNDING: f64 = 0.01;
/// A figure further off than this, either way, is a mistake of somebody's and no price.
const FURTHEST: f64 = 4.0;
const MILLION: f64 = 1_000_000.0;

// === impl Learned ===

impl Learned {
    /// Learns from a call: what its usage comes to in the table, what the vendor reports, and by how much that figure may be
    /// off for want of decimals.
    pub fn observe(&self, table: Neurons, reported: Neurons, precision: Neurons) {
        let (table, off) = (table.micro() as f64, precision.micro() as f64 + 1.0);
        if table <= 0.0 {
            return;
        }
        let reported = reported.micro() as f64;
        let seen = RatioInterval { low: (reported - off) / table, high: (reported + off) / table };
        if seen.high < 1.0 / FURTHEST || seen.low > FURTHEST {
            return;
        }
        let mut recent = self.0.recent.lock();
        if recent.len() == MOST {
            recent.pop_front();
        }
        recent.push_back(seen);
        let mut all = Together::of(&recent);
        if recent.len() > CALLS && !all.fit_one() {
            let old = recent.len() - CALLS;
            recent.drain(..old);
            all = Together::of(&recent);
        }
        self.0.conclude(&all);
    }

    /// What was learned before, such as in an earlier run.
    pub fn restore(&self, ratio: f64) {
        if (1.0 / FURTHEST..=FURTHEST).contains(&ratio) {
            self.0.likely.set(ratio);
            self.0.upper.set(ratio.max(1.0));
        }
    }

    /// What somebody else has learned of the same prices, such as another gate. Who has had figures enough of its own to know better
    /// keeps to them, and so it ends here: says whether it is taken.
    pub fn adopt(&self, ratio: f64) -> bool {
        let recent = self.0.recent.lock();
        let is_taken = recent.len() < CALLS && (1.0 / FURTHEST..=FURTHEST).contains(&ratio);
        if is_taken {
            self.0.likely.set(ratio);
            self.0.upper.set(ratio.max(Together::of(&recent).dearest_of_two).max(1.0));
        }
        is_taken
    }

    /// Reported over the table's, where that is known and not 1.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.0.likely.get()).filter(|ratio| *ratio != 1.0)
    }

    /// What will likely be charged for what the table has at this cost.
    pub fn likely(&self, table: Neurons) -> Neurons {
        table.times_millionths(self.0.likely.0.load(Ordering::Relaxed))
    }

    /// The most that will be charged for it, as far as the latest calls tell; never less than the table has.
    pub fn upper(&self, table: Neurons) -> Neurons {
        // A figure is rounded to a micro-neuron, and may have been rounded up.
        let rounding = Neurons::from_micro(u64::from(self.0.upper.get() != 1.0));
        table.times_millionths(self.0.upper.0.load(Ordering::Relaxed)) + rounding
    }
}

// === impl LearnedPrice ===

impl LearnedPrice {
    fn conclude(&self, all: &Together) {
        match all.agreed() {
            Some(ratio) => {
                self.likely.set(ratio);
                // A price that is learned as lower rests on rounded figures, so a bound keeps to the table.
                self.upper.set(ratio.max(all.dearest_of_two).max(1.0));
            }
            None => self.upper.set(all.dearest_of_two.max(self.likely.get()).max(1.0)),
        }
    }
}

// === impl Together ===

impl Together {
    fn of(recent: &VecDeque<RatioInterval>) -> Self {
        let none = Self { calls: recent.len(), low: 0.0, high: f64::INFINITY, dearest: 0.0, dearest_of_two: 0.0 };
        recent.iter().fold(none, |all, seen| Self {
            low: all.low.max(seen.low * (1.0 - SPREAD)),
            high: all.high.min(seen.high * (1.0 + SPREAD)),
            dearest: all.dearest.max(seen.low),
            dearest_of_two: all.dearest_of_two.max(all.dearest.min(seen.low)),
            ..all
        })
    }

    fn fit_one(&self) -> bool {
        self.low <= self.high
    }

    /// The one ratio that the latest calls all fit, where they do.
    fn agreed(&self) -> Option<f64> {
        if self.calls < CALLS || !self.fit_one() {
            return None;
        }
        if self.low <= 1.0 && self.high >= 1.0 {
            return Some(1.0);
        }
        let middle = f64::midpoint(self.low, self.high);
        if self.high - self.low > middle * PRECISION {
            return None;
        }
        Some(if (middle - 1.0).abs() < ROUNDING { 1.0 } else { middle })
    }
}

// === impl Ratio ===

impl Ratio {
    fn set(&self, ratio: f64) {
        self.0.store((ratio.min(FURTHEST) * MILLION).ceil() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / MILLION
    }
}

impl Default for Ratio {
    fn default() -> Self {
        Self(AtomicU64::new(MILLION as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Neurons = Neurons::ZERO;
    /// As `cf-ai-neurons` has it.
    const TWO_DECIMALS: Neurons = Neurons::from_micro(10_000);

    fn neurons(neurons: f64) -> Neurons {
        Neurons::from_f64(neurons)
    }

    fn cost(n: u64) -> f64 {
        1.0 + (n * 37 % 23) as f64 * 0.7
    }

    #[test]
    fn five_percent_are_learned_within_twenty_calls_and_estimates_are_then_within_one() {
        let learned = Learned::default();
        for n in 0..20 {
            assert_eq!(learned.ratio(), None, "after {n} calls");
            // The vendor's own spread, well under 0.5%.
            let ratio = 1.05 * (1.0 + 0.001 * (n % 3) as f64);
            learned.observe(neurons(cost(n)), neurons(cost(n) * ratio), EXACT);
        }
        let guess = learned.likely(neurons(100.0)).as_f64();
        assert!((guess / 105.0 - 1.0).abs() < 0.01, "{guess}");
        assert!(learned.upper(neurons(100.0)) >= neurons(105.2), "{:?}", learned.upper(neurons(100.0)));
    }

    #[test]
    fn what_is_reserved_follows_what_two_calls_come_up_to_and_no_single_one() {
        let learned = Learned::default();
        learned.observe(neurons(10.0), neurons(18.0), EXACT);
        assert_eq!(learned.upper(neurons(10.0)), neurons(10.0));
        learned.observe(neurons(10.0), neurons(39.0), EXACT);
        assert_eq!(learned.ratio(), None);
        assert!((learned.upper(neurons(10.0)).as_f64() - 18.0).abs() < 0.001, "{:?}", learned.upper(neurons(10.0)));
        assert_eq!(learned.likely(neurons(10.0)), neurons(10.0));
    }

    #[test]
    fn figures_that_disagree_with_each_other_teach_nothing() {
        let learned = Learned::default();
        for n in 0..1000 {
            learned.observe(neurons(cost(n)), neurons(cost(n) * if n % 2 == 0 { 1.05 } else { 1.06 }), EXACT);
        }
        assert_eq!(learned.ratio(), None);
    }

    #[test]
    fn two_decimals_of_many_small_calls_tell_as_much() {
        let learned = Learned::default();
        for n in 0..60 {
            let exact = cost(n) * 0.93;
            learned.observe(neurons(cost(n)), neurons((exact * 100.0).round() / 100.0), TWO_DECIMALS);
        }
        assert!(learned.ratio().is_some_and(|ratio| (ratio - 0.93).abs() < 0.005), "{:?}", learned.ratio());
    }

    #[test]
    fn a_right_table_is_left_alone_and_a_mended_one_is_found_out() {
        let learned = Learned::default();
        let twenty = |ratio: f64| {
            (0..20).for_each(|n| learned.observe(neurons(cost(n)), neurons(cost(n) * ratio), EXACT));
            learned.ratio()
        };
        assert_eq!(twenty(1.004), None);
        assert!(twenty(1.1).is_some());
        assert_eq!(twenty(1.0), None);
    }

    #[test]
    fn a_mistake_is_no_price() {
        let learned = Learned::default();
        for _ in 0..100 {
            learned.observe(neurons(1.0), neurons(1e9), EXACT);
            learned.observe(neurons(1.0), EXACT, EXACT);
            learned.observe(EXACT, neurons(1.0), EXACT);
        }
        assert_eq!((learned.ratio(), learned.upper(neurons(1.0))), (None, neurons(1.0)));
    }

    #[test]
    fn what_another_has_learned_holds_until_there_are_figures_of_ones_own() {
        let learned = Learned::default();
        learned.observe(neurons(10.0), neurons(13.0), EXACT);
        learned.observe(neurons(10.0), neurons(13.0), EXACT);
        assert!(learned.adopt(1.2));
        assert_eq!((learned.ratio(), learned.upper(neurons(10.0)) >= neurons(13.0)), (Some(1.2), true));
        assert!(learned.adopt(1.0));
        assert_eq!((learned.ratio(), learned.upper(neurons(10.0)) >= neurons(13.0)), (None, true));
        assert!(!learned.adopt(f64::NAN) && !learned.adopt(1e9));
        (0..20).for_each(|n| learned.observe(neurons(cost(n)), neurons(cost(n) * 1.1), EXACT));
        assert!(!learned.adopt(1.2));
        assert!(learned.ratio().is_some_and(|ratio| (ratio - 1.1).abs() < 0.01));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_reported_what_is_reserved_covers_what_is_expected(
            figures in proptest::collection::vec((0u64..1_000_000_000, 0u64..2_000_000_000, 0u64..20_000), 0..100),
        ) {
            let learned = Learned::default();
            for (table, reported, precision) in figures {
                learned.observe(Neurons::from_micro(table), Neurons::from_micro(reported), Neurons::from_micro(precision));
                let (likely, upper) = (learned.likely(neurons(1000.0)), learned.upper(neurons(1000.0)));
                proptest::prop_assert!(likely <= upper && upper.as_f64() <= 1000.0 * FURTHEST + 1.0, "{likely} {upper}");
            }
        }
    }
}
