//! Who spends far more than a habit.

use std::collections::BTreeMap;

use crate::neurons::Neurons;

/// What somebody has spent today and usually spends in a whole day.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unusual {
    /// `key`, `model` or `label.NAME`.
    pub(crate) what: String,
    pub(crate) name: String,
    pub(crate) today: Neurons,
    pub(crate) usual: Neurons,
}

/// With fewer days there is no habit.
const LEAST_DAYS: usize = 7;
/// So many times what a day usually costs, and beyond what days differ by.
const TIMES: f64 = 2.0;
const DEVIATIONS: f64 = 6.0;
/// The standard deviation of what is normal, by the median of how far it is from its own.
const BY_MEDIAN: f64 = 1.4826;
/// Less than this part of what all days together usually cost is nobody's concern.
const LEAST_PART: f64 = 0.02;

/// Those whose spending of today is already far over their habit. `days` has, by name, what each of the days before today cost, with
/// zeros where nothing was spent; `today` what was spent so far.
pub(crate) fn unusual(
    what: &str,
    days: &BTreeMap<String, Vec<f64>>,
    today: &BTreeMap<String, Neurons>,
) -> Vec<Unusual> {
    let all: f64 = days.values().map(|days| median(days)).sum();
    let look = |(name, spent): (&String, &Neurons)| {
        let days = days.get(name).filter(|days| days.len() >= LEAST_DAYS)?;
        let usual = median(days);
        let off: Vec<f64> = days.iter().map(|day| (day - usual).abs()).collect();
        let bound = (usual * TIMES).max(usual + DEVIATIONS * BY_MEDIAN * median(&off)).max(all * LEAST_PART);
        let is_so = spent.as_f64() > bound && usual > 0.0;
        is_so.then(|| Unusual { what: what.into(), name: name.clone(), today: *spent, usual: Neurons::from_f64(usual) })
    };
    today.iter().filter_map(look).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}
