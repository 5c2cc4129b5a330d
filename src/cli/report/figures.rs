//! What a report shows: the whole time, its days, and each of those who are charged, model by model.

use std::collections::BTreeMap;

use crate::cli::Failure;
use crate::cli::usage::by::{By, Lines};
use crate::readers::records::Usage;

pub(super) struct Figures {
    pub(super) all: Usage,
    /// In the order of time.
    pub(super) days: Vec<Usage>,
    /// For each model that is told by itself, dearest first, what each day cost in neurons, and what all others did.
    pub(super) by_day: Vec<(String, Vec<f64>)>,
    /// Dearest first.
    pub(super) charged: Vec<Charged>,
}

/// Somebody who is charged.
pub(super) struct Charged {
    /// Empty where no name is known.
    pub(super) name: String,
    pub(super) sum: Usage,
    /// Dearest first.
    pub(super) models: Vec<Usage>,
}

/// Models that have a colour of their own in the picture.
const TOLD_APART: usize = 6;

impl Figures {
    pub(super) fn read(lines: &Lines<'_>, by: &By) -> Result<Self, Failure> {
        let by_day_and_model = lines.read(&[By::Day, By::Model])?;
        let days = summed(&by_day_and_model, 0);
        let mut models = summed(&by_day_and_model, 1);
        models.sort_by_key(|model| std::cmp::Reverse(model.neurons));
        let mut charged: BTreeMap<String, Charged> = BTreeMap::new();
        for line in lines.read(&[by.clone(), By::Model])? {
            let name = line.names.first().cloned().unwrap_or_default();
            let one = charged.entry(name.clone()).or_insert_with(|| Charged {
                name,
                sum: Usage::default(),
                models: Vec::new(),
            });
            one.sum.add(&line);
            one.models.push(line);
        }
        let mut charged: Vec<_> = charged.into_values().collect();
        charged.sort_by_key(|one| std::cmp::Reverse(one.sum.neurons));
        charged.iter_mut().for_each(|one| one.models.sort_by_key(|line| std::cmp::Reverse(line.neurons)));
        let mut all = Usage::default();
        days.iter().for_each(|day| all.add(day));
        let by_day = by_day(&days, &models, &by_day_and_model);
        Ok(Self { all, days, by_day, charged })
    }
}

/// The lines summed up by one of their names, in its order.
fn summed(lines: &[Usage], place: usize) -> Vec<Usage> {
    let mut summed: BTreeMap<&str, Usage> = BTreeMap::new();
    for line in lines {
        let Some(name) = line.names.get(place) else { continue };
        let sum = summed.entry(name).or_insert_with(|| Usage { names: vec![name.clone()], ..Usage::default() });
        sum.add(line);
    }
    summed.into_values().collect()
}

fn by_day(days: &[Usage], models: &[Usage], lines: &[Usage]) -> Vec<(String, Vec<f64>)> {
    let told = models.iter().filter(|model| !model.neurons.is_zero()).take(TOLD_APART);
    let mut series: Vec<_> = told.map(|model| (model.names.concat(), vec![0.0; days.len()])).collect();
    let mut others = vec![0.0; days.len()];
    for line in lines {
        let [day, model] = line.names.as_slice() else { continue };
        let Some(place) = days.iter().position(|one| one.names.first() == Some(day)) else { continue };
        let values = series.iter_mut().find(|(name, _)| name == model).map_or(&mut others, |(_, values)| values);
        values[place] += line.neurons.as_f64();
    }
    if others.iter().any(|value| *value > 0.0) {
        series.push(("all others".into(), others));
    }
    series
}
