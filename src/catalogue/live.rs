//! What the vendor lists, laid over what was known.
//!
//! The vendor's list has prices in US dollars alone, rounded: a price that agrees with the known one within 4% is the same, and
//! the known one is finer (facts of 2026-10: the two published columns are up to 4% apart).

use std::fmt;
use std::sync::Arc;

use super::model::{Entry, Limit, Task};
use super::price::{Prices, Unit};
use crate::neurons::Neurons;

/// Something about a model is different from before.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// It costs something else. Figures are as published: neurons per million for tokens and images, neurons a unit for the rest.
    Price {
        /// Its name.
        model: Arc<str>,
        /// What for.
        unit: Unit,
        /// What was known; `None` where nothing was.
        from: Option<f64>,
        /// What is in force now.
        to: f64,
    },
    /// It was not there before.
    Arrived {
        /// Its name.
        model: Arc<str>,
    },
    /// The vendor lists it no more, without a word.
    Vanished {
        /// Its name.
        model: Arc<str>,
    },
    /// It is to go.
    Leaving {
        /// Its name.
        model: Arc<str>,
        /// The day from which it answers 410: `2026-05-30`.
        day: String,
    },
    /// It needs the paid plan now, or no more.
    Plan {
        /// Its name.
        model: Arc<str>,
        /// It does.
        paid_only: bool,
    },
}

/// Nearer than this a price is the same.
const ROUNDING: f64 = 0.04;
/// Models that need the paid plan, a minute (limits page, 2026-09-17).
const PAID_LIMIT: u32 = 20;
/// US dollars a unit that the vendor publishes beside neurons they do not come to (pricing page, 2026-08-28). Neurons are what is
/// billed; as long as the dollars stay, so do the neurons.
const STALE_DOLLARS: [(&str, Unit, f64); 2] = [
    ("@cf/openai/whisper", Unit::AudioMinute, 0.0005),
    ("@cf/pipecat-ai/smart-turn-v2", Unit::AudioMinute, 0.000_337_95),
];

/// What is known of a model, and what the vendor lists, together.
pub(super) fn merge(id: &str, known: &Entry, live: &Entry, changes: &mut Vec<Change>) -> Entry {
    let model: Arc<str> = id.into();
    let mut merged = known.clone();
    merged.task = live.task.filter(|task| *task != Task::Unknown).or(known.task);
    merged.context = live.context.or(known.context);
    if let Some(listed) = &live.prices {
        merged.prices = Some(reprice(&model, known.prices.clone().unwrap_or_default(), listed, changes));
    }
    let (was, is) = (known.paid_plan_only.unwrap_or(false), live.paid_plan_only.unwrap_or(false));
    if was != is {
        merged.paid_plan_only = Some(is);
        merged.requests_per_minute = limit(merged.task, is);
        changes.push(Change::Plan { model: model.clone(), paid_only: is });
    }
    if live.deprecated != known.deprecated {
        merged.deprecated.clone_from(&live.deprecated);
        changes.extend(live.deprecated.clone().map(|day| Change::Leaving { model, day }));
    }
    merged
}

/// A model that was not known, with the limit that the vendor has for its kind.
pub(super) fn arrival(id: &str, live: &Entry, changes: &mut Vec<Change>) -> Entry {
    let model: Arc<str> = id.into();
    changes.push(Change::Arrived { model: model.clone() });
    changes.extend(live.deprecated.clone().map(|day| Change::Leaving { model, day }));
    let limit = live.requests_per_minute.or_else(|| limit(live.task, live.paid_plan_only.unwrap_or(false)));
    Entry { requests_per_minute: limit, ..live.clone() }
}

fn limit(task: Option<Task>, paid_only: bool) -> Option<std::num::NonZeroU32> {
    let usual = task.unwrap_or(Task::Unknown).limit();
    Some(if paid_only { Limit::a_minute(PAID_LIMIT).requests } else { usual.requests })
}

fn reprice(model: &Arc<str>, known: Prices, listed: &Prices, changes: &mut Vec<Change>) -> Prices {
    let mut prices = known.clone();
    for (unit, price) in Unit::ALL.into_iter().filter_map(|unit| Some((unit, listed.get(unit)?))) {
        let before = known.get(unit);
        if before.is_some_and(|before| is_same(before, price)) || is_stale(model, unit, price) {
            continue;
        }
        prices = prices.with(unit, price);
        let (from, to) = (known.published(unit), listed.published(unit).unwrap_or_default());
        changes.push(Change::Price { model: model.clone(), unit, from, to });
    }
    prices
}

fn is_same(known: Neurons, listed: Neurons) -> bool {
    let (known, listed) = (known.micro() as f64, listed.micro() as f64);
    (listed - known).abs() <= known * ROUNDING
}

fn is_stale(model: &str, unit: Unit, listed: Neurons) -> bool {
    STALE_DOLLARS
        .iter()
        .any(|(id, stale_unit, usd)| *id == model && *stale_unit == unit && is_same(Neurons::from_usd(*usd), listed))
}

// === impl Change ===

impl Change {
    /// Which model.
    pub fn model(&self) -> &str {
        match self {
            Self::Price { model, .. }
            | Self::Arrived { model }
            | Self::Vanished { model }
            | Self::Leaving { model, .. }
            | Self::Plan { model, .. } => model,
        }
    }

    /// The config says otherwise, and is in force.
    pub(super) fn is_overridden(&self, own: &Entry) -> bool {
        match self {
            Self::Price { .. } => own.prices.is_some(),
            Self::Leaving { .. } => own.deprecated.is_some(),
            Self::Plan { .. } => own.paid_plan_only.is_some(),
            Self::Arrived { .. } | Self::Vanished { .. } => true,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Price { model, unit, from: Some(from), to } => {
                let percent = (to / from - 1.0) * 100.0;
                write!(f, "{model}: the price of {} is {to} neurons, {percent:+.1}% from {from}", unit.key())
            }
            Self::Price { model, unit, from: None, to } => {
                write!(f, "{model}: {} has a price now, {to} neurons", unit.key())
            }
            Self::Arrived { model } => write!(f, "{model} is new"),
            Self::Vanished { model } => write!(f, "{model} is listed no more"),
            Self::Leaving { model, day } => write!(f, "{model} answers no more from {day} on"),
            Self::Plan { model, paid_only: true } => write!(f, "{model} needs the Workers Paid plan now"),
            Self::Plan { model, paid_only: false } => write!(f, "{model} needs the Workers Paid plan no more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalogue::Catalogue;

    const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";

    fn entries(json: &str) -> BTreeMap<String, Entry> {
        serde_json::from_str(json).unwrap()
    }

    /// The table as the vendor would list it, with this over it.
    fn listed(json: &str) -> BTreeMap<String, Entry> {
        let table: BTreeMap<String, Entry> = serde_json::from_str(super::super::TABLE).unwrap();
        let mut live: BTreeMap<_, _> = table.into_iter().filter(|(_, entry)| entry.deprecated.is_none()).collect();
        live.extend(entries(json));
        live
    }

    fn output_price(catalogue: &Catalogue) -> Option<f64> {
        catalogue.get(LLAMA).unwrap().prices.published(Unit::OutputToken)
    }

    #[test]
    fn three_percent_are_rounding_and_ten_are_a_price_told_once() {
        let catalogue = Catalogue::default();
        let at = |output: f64| listed(&format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": {output}}}}}}}"#));
        assert_eq!(catalogue.update(&at(18_252.0 * 1.03)), []);
        assert_eq!(output_price(&catalogue), Some(18_252.0));
        let changes = catalogue.update(&at(20_077.0));
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].to_string().contains("output_token is 20077 neurons, +10.0% from 18252"), "{}", changes[0]);
        assert_eq!(output_price(&catalogue), Some(20_077.0));
        assert_eq!(catalogue.get(LLAMA).unwrap().prices.published(Unit::InputToken), Some(2457.0));
        assert_eq!(catalogue.update(&at(20_077.0)), []);
    }

    #[test]
    fn the_config_beats_what_is_listed_and_hears_no_news_of_it() {
        let own = entries(&format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": 1}}}}}}"#));
        let catalogue = Catalogue::with(&own);
        let live = listed(&format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": 99999}}, "context": 5}}}}"#));
        assert_eq!(catalogue.update(&live), []);
        let model = catalogue.get(LLAMA).unwrap();
        assert_eq!((model.prices.published(Unit::OutputToken), model.context), (Some(1.0), Some(5)));
    }

    #[test]
    fn a_new_model_has_its_tasks_limit_or_that_of_the_paid_plan_and_a_place_of_its_own() {
        let catalogue = Catalogue::default();
        let changes = catalogue.update(&listed(
            r#"{"@cf/a/new": {"task": "Text Embeddings", "prices": {"input_token": 5}},
                "@cf/a/paid": {"task": "Text Generation", "paid_plan_only": true, "deprecated": "2031-01-01"}}"#,
        ));
        let told: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["@cf/a/new is new", "@cf/a/paid is new", "@cf/a/paid answers no more from 2031-01-01 on"]);
        let (new, paid) = (catalogue.get("@cf/a/new").unwrap(), catalogue.get("@cf/a/paid").unwrap());
        assert_eq!((new.limit, paid.limit), (Limit::a_minute(3000), Limit::a_minute(20)));
        assert!(new.is_listed() && paid.is_listed() && new.slot != paid.slot);
        // 2030-12-30, 23:59:59 UTC.
        let eve = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_924_991_999 - 86_400);
        assert_eq!((paid.days_left(eve), new.days_left(eve)), (Some(2), None));
    }

    #[test]
    fn a_model_that_vanishes_stays_and_is_told_once() {
        let catalogue = Catalogue::default();
        let mut live = listed("{}");
        live.remove(LLAMA);
        let slot = catalogue.get(LLAMA).unwrap().slot;
        assert_eq!(catalogue.update(&live), [Change::Vanished { model: LLAMA.into() }]);
        assert_eq!(catalogue.update(&live), []);
        assert_eq!((catalogue.vanished(), catalogue.get(LLAMA).unwrap().slot), (vec![LLAMA.to_owned()], slot));
        assert_eq!(catalogue.update(&listed("{}")), []);
        assert_eq!(catalogue.vanished(), Vec::<String>::new());
    }

    #[test]
    fn dollars_that_never_came_to_the_neurons_change_nothing() {
        let catalogue = Catalogue::default();
        let model = "@cf/pipecat-ai/smart-turn-v2";
        let live = |price: f64| listed(&format!(r#"{{"{model}": {{"prices": {{"audio_minute": {price}}}}}}}"#));
        assert_eq!(catalogue.update(&live(0.000_338 / 0.000_011)), []);
        assert_eq!(catalogue.get(model).unwrap().prices.published(Unit::AudioMinute), Some(0.51));
        assert_eq!(catalogue.update(&live(62.0)).len(), 1);
    }

    #[test]
    fn what_was_learned_lasts_as_long_as_the_price() {
        let catalogue = Catalogue::default();
        catalogue.get(LLAMA).unwrap().learned.restore(1.05);
        catalogue.update(&listed("{}"));
        assert!(catalogue.get(LLAMA).unwrap().learned.ratio().is_some());
        catalogue.update(&listed(&format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": 30000}}}}}}"#)));
        assert_eq!(catalogue.get(LLAMA).unwrap().learned.ratio(), None);
    }

    #[test]
    fn lists_of_ever_other_models_take_no_more_places_than_there_are() {
        let catalogue = Catalogue::default();
        let day = |day: usize| (0..600).map(|n| (format!("@cf/junk/{day}-{n}"), Entry::default())).collect();
        let told: usize = (0..3).map(|n| catalogue.update(&day(n)).len()).sum();
        // 942 arrive beside the table's 81; each of them is missed once, but for the last ones.
        assert_eq!(catalogue.models().len(), 1023);
        assert!(told < 3 * 1023, "{told}");
        assert!(catalogue.models().iter().all(|model| model.is_listed()));
        assert!(!catalogue.find("@cf/junk/2-599", Task::TextGeneration).is_listed());
        assert!(catalogue.get(LLAMA).unwrap().is_listed());
    }
}
